"""Thousands of increments, while requests to DynamoDB fail at random."""

import heapq
import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from tests.component.scene import Invocation, Scene
from tests.component.storm import COUNTERS, Storm
from tests.sizes import cases
from tests.wire import delivered


@dataclass
class KeyedIncrement:
    """An increment with an Idempotency-Key, and all replies to its requests."""

    key: str
    counter: str
    by: int
    bounds: dict[str, int]
    replies: list[Invocation] = field(default_factory=list)

    def final_replies(self) -> list[Invocation]:
        """Return the replies that tell whether the increment was made."""
        return [reply for reply in self.replies if _is_final(reply)]


def _is_final(reply: Invocation) -> bool:
    return reply.status == 200 or reply.problem == "bound-exceeded"


class Callers:
    """Twelve callers that send increments with keys.

    Each caller repeats an increment until a reply tells whether the increment was made. After that
    reply, the caller sends its next increment.
    """

    def __init__(
        self, scene: Scene, source: random.Random, increments: Sequence[KeyedIncrement]
    ) -> None:
        self._scene = scene
        self._source = source
        self._order = itertools.count()
        self._to_come = iter(increments)
        # A heap with the next request of each caller, ordered by the time of the request.
        self._waiting: list[tuple[float, int, KeyedIncrement]] = []
        for increment in itertools.islice(self._to_come, 12):
            self._wait(0, increment)

    def run(self) -> None:
        while self._waiting:
            self.next()

    def next(self) -> None:
        """Send the next request, if there is one."""
        if not self._waiting:
            return
        due, _, increment = heapq.heappop(self._waiting)
        self._scene.advance(max(0.0, due - self._scene.time))
        reply = self._scene.add(increment.counter, increment.by, increment.key, increment.bounds)
        # Status 0 means that the function was killed.
        assert _is_final(reply) or reply.status in {0, 409, 503}, reply.answer
        increment.replies.append(reply)
        # Now and then, a caller repeats an increment although it knows the outcome.
        if not _is_final(reply) or (reply.status == 200 and self._source.random() < 0.05):
            self._wait(int(reply.headers.get("Retry-After", "1")), increment)
        elif following := next(self._to_come, None):
            self._wait(0, following)

    def _wait(self, seconds: float, increment: KeyedIncrement) -> None:
        due = self._scene.time + seconds + self._source.random()
        heapq.heappush(self._waiting, (due, next(self._order), increment))


def random_amount(source: random.Random) -> int:
    return source.choice([1, source.randint(1, 1000), -source.randint(1, 1000)])


KEYED = cases(5000, part=25)
WITHOUT_KEY = cases(3000, part=80)


@pytest.mark.usefixtures("look_once")
def test_each_increment_with_a_key_is_made_exactly_once(scene: Scene) -> None:
    storm = Storm(scene, seed=7)
    source = storm.source
    applied = [
        KeyedIncrement(f"key{n}", source.choice(COUNTERS), random_amount(source), {})
        for n in range(KEYED)
    ]
    refused = [
        KeyedIncrement(f"bad{n}", source.choice(COUNTERS), random_amount(source), {"min": 10**12})
        for n in range(max(50, KEYED // 16))
    ]
    callers = Callers(scene, source, source.sample(applied + refused, len(applied + refused)))
    storm.interruption = callers.next

    callers.run()
    storm.settle()

    storm.check_fault_shares()
    print_replies([increment.replies for increment in applied + refused])
    histories = storm.histories()
    assert sum(len(history) for history in histories.values()) == KEYED
    for counter in COUNTERS:
        assert scene.value(counter) == sum(each.by for each in applied if each.counter == counter)
    versions = set()
    for increment in applied:
        # The final replies are the same, byte for byte.
        (body,) = {reply.text for reply in increment.final_replies()}
        answer = json.loads(body)
        entry = histories[increment.counter][answer["version"] - 1]
        assert (entry["by"], entry["value"]) == (increment.by, answer["value"])
        # One of the requests with this key made the change.
        assert entry["request_id"] in {reply.context.aws_request_id for reply in increment.replies}
        versions.add((increment.counter, answer["version"]))
    assert len(versions) == KEYED
    for increment in refused:
        assert {reply.status for reply in increment.final_replies()} == {409}


def print_replies(replies_of_each: Sequence[Sequence[Invocation]]) -> None:
    """Print statistics of the replies.

    Check that some requests found their outcome in the history, and that others did not.
    """
    all_replies = [reply for replies in replies_of_each for reply in replies]
    answers = Counter(f"{reply.status} {reply.problem}".strip() for reply in all_replies)
    most = max(len(replies) for replies in replies_of_each)
    print(f"{len(all_replies)} requests, at most {most} with one key: {dict(answers)} (0: killed)")
    looked_up = [reply for reply in all_replies if "Query" in reply.operations()]
    found = sum(reply.status == 200 for reply in looked_up)
    replayed = sum(reply.replayed for reply in all_replies)
    print(f"{replayed} replayed; {len(looked_up)} queried the history, {found} found the outcome")
    assert 0 < found < len(looked_up)


def test_answers_to_increments_without_a_key_are_true(scene: Scene) -> None:
    storm = Storm(scene, seed=3000)
    source = storm.source
    replies: list[tuple[str, int, Invocation]] = []

    def send_one() -> None:
        counter = source.choice(COUNTERS)
        by = random_amount(source)
        bounds = {"min": 10**12} if source.random() < 0.05 else {}
        replies.append((counter, by, scene.add(counter, by, bounds=bounds)))
        scene.advance(source.uniform(0, 1))

    storm.interruption = send_one
    while len(replies) < WITHOUT_KEY:
        send_one()
    storm.settle()

    storm.check_fault_shares()
    entries = {
        entry["request_id"]: entry for history in storm.histories().values() for entry in history
    }
    answers: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    resolved = {"by reading back": 0, "through the history": 0}
    for counter, by, reply in replies:
        entry = entries.pop(reply.context.aws_request_id, None)
        answers[f"{reply.status} {reply.problem} {'applied' if entry else 'not applied'}"] += 1
        if reply.status == 200:
            assert entry
            assert reply.body == {
                "counter_id": counter,
                "value": entry["value"],
                "version": entry["version"],
                "created_at": entry["counter_created_at"],
                "updated_at": entry["created_at"],
            }
            changes = [fault for operation, fault in reply.requests if operation == "UpdateItem"]
            if changes[-1] is not delivered:
                queried = "Query" in reply.operations()
                resolved["through the history" if queried else "by reading back"] += 1
        elif reply.problem in {"throttled", "bound-exceeded"}:
            assert not entry
        else:
            assert reply.problem in {"outcome-unknown", ""}  # "": the function was killed
        if entry:
            assert (entry["counter_id"], entry["by"]) == (counter, by)
            expected[counter] += by
    print(f"answers: {dict(answers)} (0: killed); lost replies resolved: {resolved}")
    assert not entries  # every recorded change belongs to a request
    assert {counter: scene.value(counter) for counter in COUNTERS} == expected
    assert min(resolved.values()) > 0
