"""Concurrent `POST /increments` requests move amounts between counters.

These moves never change the sum of all counters.
"""

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

CLIENTS = cases(16, part=4)  # each client occupies a process of the function
SECONDS = cases(30, part=3)
START = 100
NAMES = [f"account-{number}" for number in range(8)]


def move(caller: Caller, chance: random.Random) -> Answer:
    """Move random amounts from one counter, the payer, to others.

    The request sets a minimum of 0 for the payer.
    """
    payer, *payees = chance.sample(NAMES, chance.choice([2, 2, 3, 5]))
    amounts = [chance.randint(1, 40) for _ in payees]
    increments: list[dict[str, object]] = [{"counter_id": payer, "by": -sum(amounts), "min": 0}]
    increments += [
        {"counter_id": payee, "by": amount} for payee, amount in zip(payees, amounts, strict=True)
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
            repeat = caller.request("POST", "/increments", body, headers)
            assert (repeat.status, repeat.body) == (200, answer.body)
            assert repeat.headers["Idempotent-Replayed"] == "true"
        if answer.status == 200:
            assert [counter["counter_id"] for counter in answer.body] == [
                each["counter_id"] for each in increments
            ]
        return answer


def test_concurrent_moves_never_change_the_total(stack: Stack, caller: Caller) -> None:
    for name in NAMES:
        caller.put(f"/counters/{name}", value=START)
    dynamodb = client(stack, "dynamodb")
    table = stack.outputs["CounterTable"]
    totals = Counter[int]()
    stopped = threading.Event()

    def watch() -> None:
        gets = [{"Get": {"TableName": table, "Key": {"counter_id": {"S": name}}}} for name in NAMES]
        while not stopped.wait(0.1):
            found = dynamodb.transact_get_items(TransactItems=gets)["Responses"]
            totals[sum(int(each["Item"]["value"]["N"]) for each in found)] += 1

    def send(sender: Caller, number: int) -> list[Answer]:
        chance = random.Random(number)
        deadline = time.monotonic() + SECONDS
        answers = []
        while time.monotonic() < deadline:
            answers.append(move(sender, chance))
        return answers

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        answers = run_clients(
            stack,
            ["counters/increment"],
            CLIENTS,
            send,
            lambda sender: sender.post("/increments", increments=[{"counter_id": "warm-up"}]),
        )
    finally:
        stopped.set()
        watcher.join()

    statuses = Counter(answer.status for answer in answers)
    print(
        f"{len(answers) / SECONDS:.0f} answers a second, statuses {dict(statuses)},"
        f" {totals.total()} reads of the total: {dict(totals)}"
    )
    assert statuses[200] > 3 * SECONDS
    assert statuses[409] > 0
    assert statuses.keys() <= {200, 409, 503}
    assert totals.keys() == {START * len(NAMES)}
    values = [caller.whole_history(f"/counters/{name}")[-1]["value"] for name in NAMES]
    assert min(values) >= 0
    assert sum(values) == START * len(NAMES)
    assert_each_request_is_atomic(stack, answers)


def assert_each_request_is_atomic(stack: Stack, answers: list[Answer]) -> None:
    """Check that each request changed all of its counters or none.

    Also check that each successful answer shows the changes of its request.
    """
    dynamodb = client(stack, "dynamodb")
    items_by_request: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name in NAMES:
        pages = dynamodb.get_paginator("query").paginate(
            TableName=stack.outputs["HistoryTable"],
            KeyConditionExpression="counter_id = :name",
            ExpressionAttributeValues={":name": {"S": name}},
        )
        for page in pages:
            for item in page["Items"]:
                items_by_request[item["request_id"]["S"]].append(item)
    moves = [
        items for items in items_by_request.values() if items[0]["operation"]["S"] == "increment"
    ]
    assert all(sum(int(item["by"]["N"]) for item in items) == 0 for items in moves)
    unanswered = [
        {
            item["counter_id"]["S"]: (int(item["version"]["N"]), int(item["value"]["N"]))
            for item in items
        }
        for items in moves
    ]
    # If the history does not have a change in time, the answer has null instead of the change's
    # version and value. An answer with no version at all matches every move between the same
    # counters. So check the answers with no version last.
    answered = sorted(
        (answer.body for answer in answers if answer.status == 200),
        key=lambda body: all(each["version"] is None for each in body),
    )
    for body in answered:
        matches = [move for move in unanswered if _matches(body, move)]
        assert matches, body
        unanswered.remove(matches[0])
    assert len(unanswered) <= sum(answer.status == 503 for answer in answers)


def _matches(body: list[dict[str, Any]], move: dict[str, tuple[int, int]]) -> bool:
    """Return whether an answer can be the answer to a move.

    The counters must be the same. The versions and values in the answer must be those of the move.
    """
    return {each["counter_id"] for each in body} == move.keys() and all(
        each["version"] is None or (each["version"], each["value"]) == move[each["counter_id"]]
        for each in body
    )
