"""Tally and a simple model in memory give the same answers to increments and sets."""

import itertools
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from tests.component.scene import Invocation, Scene
from tests.sizes import examples
from tests.stack import Stack
from tests.times import DAY
from tests.wire import Fault, Wire, delivered

from counters import clock
from counters.model import MAX_INTEGER, MIN_INTEGER

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ["a", "b", "c", "default", "Z.9"]

Entry = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a caller sees.

    If the answer is a problem (an error document), `body` is a tuple of:
    - the last part of the problem's `type`;
    - the request field that the problem names;
    - the problem's `value`.
    """

    status: int
    body: object
    replayed: bool = False


def refusal(status: int, problem: str, field: str = "", value: int | None = None) -> Answer:
    return Answer(status, (problem, field, value))


# --- The service ---------------------------------------------------------------------------------


class Service(Scene):
    """The real functions on moto, in simulated time. A read of the history finds every change."""

    def __init__(self, stack: Stack, wire: Wire) -> None:
        super().__init__(stack, wire)
        self.choose_fault = self._record_before_query
        stack.remove_stream()

    def _record_before_query(self, operation: str) -> Fault:
        if operation == "Query":
            self.record()
        return delivered

    def request(
        self, method: str, path: str, body: dict[str, Any], key: str | None, caller: str
    ) -> Answer:
        headers = {"Idempotency-Key": key} if key else {}
        reply = self.send(method, path, body, headers, caller)
        return Answer(reply.status, _content(reply), reply.replayed)

    def counters(self) -> dict[str, dict[str, Any]]:
        """Return the stored counters, by name."""
        return {
            item["counter_id"]["S"]: {
                "counter_id": item["counter_id"]["S"],
                "value": int(item["value"]["N"]),
                "version": int(item["version"]["N"]),
                "created_at": item["created_at"]["S"],
                "updated_at": item["updated_at"]["S"],
            }
            for item in self.stack.items("CounterTable")
        }

    def amounts(self) -> dict[str, list[int]]:
        """Return the amounts in the history of each counter, in the order of the versions."""
        self.record()
        amounts: dict[str, list[int]] = {}
        items = self.stack.items("HistoryTable")
        for item in sorted(items, key=lambda item: int(item["version"]["N"])):
            amounts.setdefault(item["counter_id"]["S"], []).append(int(item["by"]["N"]))
            assert len(amounts[item["counter_id"]["S"]]) == int(item["version"]["N"])
        return amounts


def _content(reply: Invocation) -> object:
    content = json.loads(reply.text)
    if reply.status < 400:
        return content
    field_name = reply.body["detail"].partition(": ")[0] if reply.status in {400, 409} else ""
    return reply.problem, field_name, reply.body.get("value")


# --- The model -----------------------------------------------------------------------------------


@dataclass
class Receipt:
    """What the model remembers about a request with a key."""

    body: object
    answer: object
    until: float


@dataclass
class Model:
    """A simple model of the increments that Tally promises."""

    counters: dict[str, dict[str, Any]] = field(default_factory=dict)
    amounts: dict[str, list[int]] = field(default_factory=dict)
    receipts: dict[tuple[str, str, str], Receipt] = field(default_factory=dict)

    def increments(
        self, now: float, increments: list[Entry], key: str | None, caller: str
    ) -> Answer:
        if not 1 <= len(increments) <= 100:
            return refusal(400, "invalid-request", "increments")
        names = [each["counter_id"] for each in increments]
        for position, name in enumerate(names):
            if name in names[:position]:
                return refusal(400, "invalid-request", f"increments[{position}].counter_id")
        parsed = [self._parse(each["counter_id"], each) for each in increments]
        return self._once(
            now, parsed, "increments", key, caller, [f"increments[{n}].by" for n in range(100)]
        )

    def increment(
        self, now: float, counter: str, body: Entry, key: str | None, caller: str
    ) -> Answer:
        answer = self._once(now, [self._parse(counter, body)], counter, key, caller, ["by"])
        if isinstance(answer.body, list):
            return Answer(answer.status, answer.body[0], answer.replayed)
        return answer

    def set(self, now: float, counter: str, value: int) -> Answer:
        return Answer(200, self._change(now, counter, value - self._value(counter)))

    def _once(  # noqa: PLR0913, PLR0917
        self,
        now: float,
        increments: list[tuple[str, int, int, int]],  # counter, by, min, max
        target: str,
        key: str | None,
        caller: str,
        fields: list[str],
    ) -> Answer:
        receipt = self.receipts.get((caller, f"/{target}", key or ""))
        if receipt and int(now) < receipt.until:
            if receipt.body != increments:
                return refusal(422, "idempotency-key-reused")
            return Answer(200, receipt.answer, replayed=True)
        for field_name, (counter, by, low, high) in zip(fields, increments, strict=False):
            value = self._value(counter)
            if not low <= value + by <= high:
                return refusal(409, "bound-exceeded", field_name, value)
        answer = [self._change(now, counter, by) for counter, by, _, _ in increments]
        if key:
            lifetime = DAY + clock.CLOCK_DIFFERENCE
            until = math.ceil(clock.seconds(clock.timestamp(now)) + lifetime)
            self.receipts[caller, f"/{target}", key] = Receipt(increments, answer, until)
        return Answer(200, answer)

    @staticmethod
    def _parse(counter: str, body: Entry) -> tuple[str, int, int, int]:
        low, high = body.get("min", MIN_INTEGER), body.get("max", MAX_INTEGER)
        return counter, body.get("by", 1), low, high

    def _value(self, counter: str) -> int:
        return int(self.counters[counter]["value"]) if counter in self.counters else 0

    def _change(self, now: float, counter: str, by: int) -> dict[str, Any]:
        changed_at = clock.timestamp(now)
        before = self.counters.get(counter, {"value": 0, "version": 0, "created_at": changed_at})
        self.amounts.setdefault(counter, []).append(by)
        self.counters[counter] = {
            "counter_id": counter,
            "value": before["value"] + by,
            "version": before["version"] + 1,
            "created_at": before["created_at"],
            "updated_at": changed_at,
        }
        return self.counters[counter]


# --- The comparison ------------------------------------------------------------------------------

EDGES = [MAX_INTEGER, MIN_INTEGER]
AMOUNTS = st.sampled_from([1, 2, 3, 7, -1, -2, -3, -7, 1, -1, *EDGES])
VALUES = st.sampled_from([0, 3, -3, 10, -10, *EDGES])
BOUNDS: st.SearchStrategy[Entry] = st.sampled_from(
    [{}, {}, {}, {"min": -5}, {"max": 5}, {"min": 1}, {"max": -1}, {"min": -20, "max": 20}]
)
BODIES: st.SearchStrategy[Entry] = st.builds(
    dict.__or__, st.fixed_dictionaries({}, optional={"by": AMOUNTS}), BOUNDS
)
COUNTERS = st.sampled_from(NAMES)
ENTRIES: st.SearchStrategy[Entry] = st.builds(
    lambda name, body: {"counter_id": name, **body}, COUNTERS, BODIES
)
DISTINCT = st.lists(
    ENTRIES, min_size=1, max_size=5, unique_by=lambda entry: str(entry["counter_id"])
)
ANY = st.lists(ENTRIES, min_size=2, max_size=4)
SIZES = st.sampled_from([0, 101])
MANY = st.one_of(
    DISTINCT,
    DISTINCT,
    ANY,
    SIZES.map(lambda size: [{"counter_id": f"n{number}"} for number in range(size)]),
)
KEYS = st.sampled_from([None, "x", "y", "z"])
CALLERS = st.sampled_from(["one", "one", "another"])
TIMES = st.integers(1, 2)  # how many times in a row a request is sent


class Comparison(RuleBasedStateMachine):
    """Sends each request to the service and to the model, and compares the answers."""

    def __init__(self, service: Service, counts: Counter[str]) -> None:
        super().__init__()
        self.service = service
        self.service.empty()
        self.model = Model()
        self.counts = counts
        self.repeat_last: Callable[[], None] = lambda: None

    @rule(increments=MANY, key=KEYS, caller=CALLERS, times=TIMES)
    def increments(self, increments: list[Entry], key: str | None, caller: str, times: int) -> None:
        self.repeat_last = partial(self._increments, increments, key, caller)
        for _ in range(times):
            self.repeat_last()

    @rule(increments=DISTINCT, key=KEYS, caller=CALLERS, other=CALLERS)
    def increments_again_in_another_order(
        self, increments: list[Entry], key: str | None, caller: str, other: str
    ) -> None:
        self._increments(increments, key, caller)
        self._increments(increments[::-1], key, other)

    @rule(counter=COUNTERS, body=BODIES, key=KEYS, caller=CALLERS, times=TIMES)
    def increment(
        self, counter: str, body: Entry, key: str | None, caller: str, times: int
    ) -> None:
        self.repeat_last = partial(self._increment, counter, body, key, caller)
        for _ in range(times):
            self.repeat_last()

    @rule(counter=COUNTERS, body=BODIES, other=BODIES, key=KEYS, caller=CALLERS)
    def increment_again_with_another_body(
        self, counter: str, body: Entry, other: Entry, key: str | None, caller: str
    ) -> None:
        self._increment(counter, body, key, caller)
        self._increment(counter, other, key, caller)

    @rule()
    def repeat(self) -> None:
        self.repeat_last()

    @rule(counter=COUNTERS, value=VALUES)
    def set(self, counter: str, value: int) -> None:
        now = self.service.time
        answer = self.service.request("PUT", _path(counter), {"value": value}, None, "one")
        self._compare(answer, self.model.set(now, counter, value), "set")

    @rule(seconds=st.sampled_from([1, 21, 3600, DAY + clock.CLOCK_DIFFERENCE + 1]))
    def wait(self, seconds: int) -> None:
        self.service.advance(seconds)

    def teardown(self) -> None:
        assert self.service.amounts() == self.model.amounts

    def increment_100(self) -> None:
        every = [{"counter_id": f"n{number}", "by": number + 1} for number in range(95)]
        self._increments([{"counter_id": name, "by": -1} for name in NAMES] + every, None, "one")
        self.counts["100 entries"] += 1

    def _increments(self, increments: list[Entry], key: str | None, caller: str) -> None:
        now = self.service.time
        body = {"increments": increments}
        answer = self.service.request("POST", "/increments", body, key, caller)
        self._compare(answer, self.model.increments(now, increments, key, caller), "many")

    def _increment(self, counter: str, body: Entry, key: str | None, caller: str) -> None:
        now = self.service.time
        answer = self.service.request("POST", _path(counter), body, key, caller)
        self._compare(answer, self.model.increment(now, counter, body, key, caller), "one")

    def _compare(self, answer: Answer, expected: Answer, route: str) -> None:
        assert answer == expected
        assert self.service.counters() == self.model.counters
        outcome = str(answer.status)
        if answer.status == 400:
            outcome += " twice" if "counter_id" in str(answer.body) else " size"
        self.counts[f"{route} {outcome}{' replayed' if answer.replayed else ''}"] += 1


def _path(counter: str) -> str:
    return "/counter" if counter == "default" else f"/counters/{counter}"


def test_the_service_and_the_model_give_the_same_answers(stack: Stack, wire: Wire) -> None:
    counts: Counter[str] = Counter()
    runs = itertools.count()
    service = Service(stack, wire)
    with service.running():

        class Run(Comparison):
            def __init__(self) -> None:
                super().__init__(service, counts)
                self.run = next(runs)

            def teardown(self) -> None:
                super().teardown()
                if self.run % 40 == 1:  # takes a second in moto
                    self.increment_100()

        run_state_machine_as_test(Run, settings=examples(100, part=12, stateful_step_count=30))

    print(f"{next(runs)} runs: {dict(counts)}")
    for outcome in (
        "100 entries",
        "many 200",
        "many 200 replayed",
        "many 400 size",
        "many 400 twice",
        "many 409",
        "many 422",
        "one 200",
        "one 200 replayed",
        "one 409",
        "one 422",
        "set 200",
    ):
        assert counts[outcome], outcome
