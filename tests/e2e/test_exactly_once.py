"""Many clients at once over HTTP: one key, one version, one stock, a hot counter, lost replies."""

import json
import time
import uuid
from collections import Counter

from tests.e2e.fault_proxy import Losing, serving
from tests.e2e.service import Answer, Caller, extra_variables, run_clients
from tests.sizes import cases

from deployment import Stack

CLIENTS = cases(32, part=8)  # each takes a process of a function
STOCK = cases(100, part=25)
INCREMENT = ["counters/increment"]
SECONDS = cases(60, part=3)
HOT_CLIENTS = cases(16, part=8)
LOST = 0.2  # share of the replies to writes to CounterTable
LOSING_CLIENTS = cases(8, part=4)
LOSING_TIMES = cases(100, part=10)


def keyed(caller: Caller, counter: str, key: str) -> tuple[Answer, int]:
    """Increment once for a key: repeat until there is an answer; tell how many repeats it took."""
    repeats = 0
    while True:
        answer = caller.request("POST", counter, headers={"Idempotency-Key": key})
        if answer.status == 200:
            return answer, repeats
        assert answer.status in {409, 503}, answer
        repeats += 1
        time.sleep(min(1, int(answer.headers.get("Retry-After", 0))))


def test_one_key_is_applied_once_and_everybody_gets_the_same_answer(
    stack: Stack, caller: Caller, counter: str
) -> None:
    def send(client: Caller, _number: int) -> list[Answer]:
        return [keyed(client, counter, "the-key")[0] for _ in range(3)]

    answers = run_clients(stack, INCREMENT, CLIENTS, send)

    assert len({json.dumps(answer.body) for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) <= 1
    assert caller.get(counter).body == answers[0].body
    assert answers[0].body["version"] == 1


def test_of_those_who_set_one_version_one_wins(stack: Stack, caller: Caller, counter: str) -> None:
    tag = caller.put(counter, value=0).headers["ETag"]

    def send(client: Caller, number: int) -> list[Answer]:
        body = json.dumps({"value": number + 1})
        return [client.request("PUT", counter, body, {"If-Match": tag})]

    answers = run_clients(stack, ["counters/set"], CLIENTS, send)

    assert Counter(answer.status for answer in answers) == {200: 1, 412: CLIENTS - 1}
    (winner,) = (answer for answer in answers if answer.status == 200)
    assert {answer.headers["ETag"] for answer in answers} == {'"2"'}
    assert caller.get(counter).body == winner.body


def test_a_stock_is_never_oversold(stack: Stack, caller: Caller, counter: str) -> None:
    caller.put(counter, value=STOCK)

    def send(client: Caller, number: int) -> list[Answer]:
        return [client.post(counter, by=-1, min=0) for _ in range(number, 4 * STOCK, CLIENTS)]

    answers = run_clients(stack, INCREMENT, CLIENTS, send)

    assert Counter(answer.status for answer in answers) == {200: STOCK, 409: 3 * STOCK}
    sold = sorted(answer.body["value"] for answer in answers if answer.status == 200)
    assert sold == list(range(STOCK))
    assert {answer.body["value"] for answer in answers if answer.status == 409} == {0}
    assert caller.get(counter).body["value"] == 0


def test_a_hot_counter_loses_nothing_and_doubles_nothing(
    stack: Stack, caller: Caller, counter: str
) -> None:
    repeats = Counter[str]()

    def send(client: Caller, number: int) -> list[Answer]:
        answers: list[Answer] = []
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if (number + len(answers)) % 2:
                answer, again = keyed(client, counter, str(uuid.uuid4()))
                repeats["keyed"] += again
            else:
                answer = client.post(counter)
            answers.append(answer)
        return answers

    answers = run_clients(stack, INCREMENT, HOT_CLIENTS, send)

    print(f"{len(answers) / SECONDS:.0f} answers a second, {repeats['keyed']} repeats with a key")
    assert_counted_once(caller, counter, answers)


def test_an_increment_counts_once_though_the_database_s_replies_are_lost(
    stack: Stack, caller: Caller, counter: str
) -> None:
    def send(client: Caller, _number: int) -> list[Answer]:
        answers: list[Answer] = []
        for _ in range(LOSING_TIMES):
            answers += [keyed(client, counter, str(uuid.uuid4()))[0], client.post(counter)]
        return answers

    losing = Losing(LOST)
    with (
        serving(stack.endpoint_url) as (proxy, url),
        extra_variables(stack, "IncrementCounter", AWS_ENDPOINT_URL_DYNAMODB=url),
        proxy.failing(stack.outputs["CounterTable"], losing),
    ):
        answers = run_clients(stack, INCREMENT, LOSING_CLIENTS, send)

    print(f"{losing.lost} replies lost")
    assert losing.lost > LOST / 2 * len(answers)
    assert_counted_once(caller, counter, answers)


def assert_counted_once(caller: Caller, counter: str, answers: list[Answer]) -> None:
    """Hold a counter, which only these requests have changed, to what they were answered."""
    statuses = Counter(answer.status for answer in answers)
    print(f"statuses {dict(statuses)}")
    assert statuses.keys() <= {200, 503}
    version = len(caller.whole_history(counter))
    answered = [answer.body["version"] for answer in answers if answer.status == 200]
    assert len(set(answered)) == len(answered)
    # What was not applied says so; of the rest nobody has had an answer.
    unknown = sum(
        answer.status == 503 and answer.body["type"].endswith("outcome-unknown")
        for answer in answers
    )
    assert len(answered) <= version <= len(answered) + unknown
