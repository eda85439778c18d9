"""Many clients move amounts between counters: the total over all of them never changes."""

import json
import random
import threading
import time
import uuid
from collections import Counter, defaultdict
from typing import Any

from tests.e2e.service import Answer, Caller, client, run_clients
from tests.sizes import cases

from deployment import Stack

CLIENTS = cases(16, part=4)  # each takes a process of the function
SECONDS = cases(30, part=3)
START = 100
NAMES = [f"account-{number}" for number in range(8)]


def move(caller: Caller, chance: random.Random) -> Answer:
    """Take from one counter, as far as it has that, and give to one or some others."""
    giver, *takers = chance.sample(NAMES, chance.choice([2, 2, 3, 5]))
    amounts = [chance.randint(1, 40) for _ in takers]
    increments: list[dict[str, object]] = [{"counter_id": giver, "by": -sum(amounts), "min": 0}]
    increments += [
        {"counter_id": taker, "by": amount} for taker, amount in zip(takers, amounts, strict=True)
    ]
    chance.shuffle(increments)
    body = json.dumps({"increments": increments})
    headers = {"Idempotency-Key": str(uuid.uuid4())} if chance.random() < 0.5 else {}
    while True:
        answer = caller.request("POST", "/increments", body, headers)
        if headers and answer.status in {503, 409} and "bound" not in answer.body["type"]:
            time.sleep(0.2)
            continue
        if headers and answer.status == 200 and chance.random() < 0.1:
            again = caller.request("POST", "/increments", body, headers)
            assert (again.status, again.body) == (200, answer.body)
            assert again.headers["Idempotent-Replayed"] == "true"
        if answer.status == 200:
            assert [counter["counter_id"] for counter in answer.body] == [
                each["counter_id"] for each in increments
            ]
        return answer


def test_the_total_never_changes(stack: Stack, caller: Caller) -> None:
    for name in NAMES:
        caller.put(f"/counters/{name}", value=START)
    dynamodb = client(stack, "dynamodb")
    table = stack.outputs["CounterTable"]
    totals = Counter[int]()
    over = threading.Event()

    def watch() -> None:
        gets = [{"Get": {"TableName": table, "Key": {"counter_id": {"S": name}}}} for name in NAMES]
        while not over.wait(0.1):
            found = dynamodb.transact_get_items(TransactItems=gets)["Responses"]
            totals[sum(int(each["Item"]["value"]["N"]) for each in found)] += 1

    def send(each: Caller, number: int) -> list[Answer]:
        chance = random.Random(number)
        deadline = time.monotonic() + SECONDS
        answers = []
        while time.monotonic() < deadline:
            answers.append(move(each, chance))
        return answers

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        answers = run_clients(
            stack,
            ["counters/increment"],
            CLIENTS,
            send,
            lambda each: each.post("/increments", increments=[{"counter_id": "warm-up"}]),
        )
    finally:
        over.set()
        watcher.join()

    statuses = Counter(answer.status for answer in answers)
    print(
        f"{len(answers) / SECONDS:.0f} answers a second, statuses {dict(statuses)},"
        f" {totals.total()} looks at the total: {dict(totals)}"
    )
    assert statuses[200] > 3 * SECONDS
    assert statuses[409] > 0
    assert statuses.keys() <= {200, 409, 503}
    assert totals.keys() == {START * len(NAMES)}
    values = [caller.whole_history(f"/counters/{name}")[-1]["value"] for name in NAMES]
    assert min(values) >= 0
    assert sum(values) == START * len(NAMES)
    all_or_none(stack, answers)


def all_or_none(stack: Stack, answers: list[Answer]) -> None:
    """See that each request changed all of its counters once, as it was answered, or none."""
    dynamodb = client(stack, "dynamodb")
    made: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name in NAMES:
        pages = dynamodb.get_paginator("query").paginate(
            TableName=stack.outputs["HistoryTable"],
            KeyConditionExpression="counter_id = :name",
            ExpressionAttributeValues={":name": {"S": name}},
        )
        for page in pages:
            for item in page["Items"]:
                made[item["request_id"]["S"]].append(item)
    moves = [items for items in made.values() if items[0]["operation"]["S"] == "increment"]
    assert all(sum(int(item["by"]["N"]) for item in items) == 0 for items in moves)
    left = [
        {
            item["counter_id"]["S"]: (int(item["version"]["N"]), int(item["value"]["N"]))
            for item in items
        }
        for items in moves
    ]
    # If the history is late, an answer has null instead of the version and the value. Check answers
    # without any version last: they match every move between the same counters.
    answered = sorted(
        (answer.body for answer in answers if answer.status == 200),
        key=lambda body: all(each["version"] is None for each in body),
    )
    for body in answered:
        its_own = [move for move in left if _is_of(body, move)]
        assert its_own, body
        left.remove(its_own[0])
    assert len(left) <= sum(answer.status == 503 for answer in answers)


def _is_of(body: list[dict[str, Any]], move: dict[str, tuple[int, int]]) -> bool:
    """Return whether an answer may be that to a move: it has the move's counters and versions."""
    return {each["counter_id"] for each in body} == move.keys() and all(
        each["version"] is None or (each["version"], each["value"]) == move[each["counter_id"]]
        for each in body
    )
