"""Thousands of changes while requests to the database meet faults at random."""

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

from counters import idempotency


@dataclass
class Wish:
    """What a caller wants applied once, and repeats until it is told what has become of it."""

    key: str
    counter: str
    by: int
    bounds: dict[str, int]
    tries: list[Invocation] = field(default_factory=list)

    def told(self) -> list[Invocation]:
        """Return the tries that were told what has become of it."""
        return [reply for reply in self.tries if _is_told(reply)]


def _is_told(reply: Invocation) -> bool:
    return reply.status == 200 or reply.problem == "bound-exceeded"


class Callers:
    """A dozen callers; each repeats a wish until it is told, then it has the next one."""

    def __init__(self, scene: Scene, source: random.Random, wishes: Sequence[Wish]) -> None:
        self._scene = scene
        self._source = source
        self._order = itertools.count()
        self._to_come = iter(wishes)
        self._waiting: list[tuple[float, int, Wish]] = []  # by the time of the next try
        for wish in itertools.islice(self._to_come, 12):
            self._wait(0, wish)

    def run(self) -> None:
        while self._waiting:
            self.next()

    def next(self) -> None:
        """Let the next try be made, if there is one."""
        if not self._waiting:
            return
        due, _, wish = heapq.heappop(self._waiting)
        self._scene.advance(max(0.0, due - self._scene.time))
        reply = self._scene.add(wish.counter, wish.by, wish.key, wish.bounds)
        assert _is_told(reply) or reply.status in {0, 409, 503}, reply.answer  # 0: killed
        wish.tries.append(reply)
        # Some ask again although they have their answer.
        if not _is_told(reply) or (reply.status == 200 and self._source.random() < 0.05):
            self._wait(int(reply.headers.get("Retry-After", "1")), wish)
        elif following := next(self._to_come, None):
            self._wait(0, following)

    def _wait(self, seconds: float, wish: Wish) -> None:
        due = self._scene.time + seconds + self._source.random()
        heapq.heappush(self._waiting, (due, next(self._order), wish))


def some_amount(source: random.Random) -> int:
    return source.choice([1, source.randint(1, 1000), -source.randint(1, 1000)])


KEYED = cases(5000, part=80)
WITHOUT_KEY = cases(3000, part=80)


def test_keyed_increments_count_exactly_once_each(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "_PATIENCE", 0.0)  # to look again is for the callers
    storm = Storm(scene, seed=7)
    source = storm.source
    applied = [
        Wish(f"key{n}", source.choice(COUNTERS), some_amount(source), {}) for n in range(KEYED)
    ]
    refused = [
        Wish(f"bad{n}", source.choice(COUNTERS), some_amount(source), {"min": 10**12})
        for n in range(max(50, KEYED // 16))
    ]
    callers = Callers(scene, source, source.sample(applied + refused, len(applied + refused)))
    storm.interruption = callers.next

    callers.run()
    storm.settle()

    storm.check_fault_shares()
    print_tries([wish.tries for wish in applied + refused])
    histories = storm.histories()
    assert sum(len(history) for history in histories.values()) == KEYED
    for counter in COUNTERS:
        assert scene.value(counter) == sum(wish.by for wish in applied if wish.counter == counter)
    versions = set()
    for wish in applied:
        (body,) = {reply.text for reply in wish.told()}  # the same to the letter
        answer = json.loads(body)
        entry = histories[wish.counter][answer["version"] - 1]
        assert (entry["by"], entry["value"]) == (wish.by, answer["value"])
        # It was made by one of this key's own tries.
        assert entry["request_id"] in {reply.context.aws_request_id for reply in wish.tries}
        versions.add((wish.counter, answer["version"]))
    assert len(versions) == KEYED
    for wish in refused:
        assert {reply.status for reply in wish.told()} == {409}


def print_tries(tries_of_each: Sequence[Sequence[Invocation]]) -> None:
    """Print what the tries came to, and make sure that the history knew some, and some not yet."""
    tries = [reply for tries in tries_of_each for reply in tries]
    answers = Counter(f"{reply.status} {reply.problem}".strip() for reply in tries)
    most = max(len(tries) for tries in tries_of_each)
    print(f"{len(tries)} requests, at most {most} with one key: {dict(answers)} (0: killed)")
    looked_up = [reply for reply in tries if "Query" in reply.operations()]
    found = sum(reply.status == 200 for reply in looked_up)
    replayed = sum(reply.replayed for reply in tries)
    print(f"{replayed} replayed; {len(looked_up)} asked the history, {found} then knew the answer")
    assert 0 < found < len(looked_up)


def test_increments_without_a_key_are_what_their_answers_say(scene: Scene) -> None:
    storm = Storm(scene, seed=3000)
    source = storm.source
    replies: list[tuple[str, int, Invocation]] = []

    def try_one() -> None:
        counter = source.choice(COUNTERS)
        by = some_amount(source)
        bounds = {"min": 10**12} if source.random() < 0.05 else {}
        replies.append((counter, by, scene.add(counter, by, bounds=bounds)))
        scene.advance(source.uniform(0, 1))

    storm.interruption = try_one
    while len(replies) < WITHOUT_KEY:
        try_one()
    storm.settle()

    storm.check_fault_shares()
    entries = {
        entry["request_id"]: entry for history in storm.histories().values() for entry in history
    }
    answers: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    told = {"by reading back": 0, "through the history": 0}
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
            changes = [fault for operation, fault in reply.asked if operation == "UpdateItem"]
            if changes[-1] is not delivered:
                way = "Query" in reply.operations()
                told["through the history" if way else "by reading back"] += 1
        elif reply.problem in {"throttled", "bound-exceeded"}:
            assert not entry
        else:
            assert reply.problem in {"outcome-unknown", ""}  # "": killed
        if entry:
            assert (entry["counter_id"], entry["by"]) == (counter, by)
            expected[counter] += by
    print(f"answers: {dict(answers)} (0: killed); lost replies resolved: {told}")
    assert not entries  # nobody else's
    assert {counter: scene.value(counter) for counter in COUNTERS} == expected
    assert min(told.values()) > 0
