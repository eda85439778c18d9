"""Tally and a simple model in memory give the same answers to requests for one counter."""

import itertools
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from tests.component.simulation import BEGINNING
from tests.proxy import ALL_RIGHTS, proxy_event
from tests.sizes import cases, examples
from tests.stack import Stack, StreamRecord
from tests.times import DAY
from tests.wire import Wire, delivered

from counters import clock

MAX = 2**53 - 1

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What a caller sees: the status, the headers about a counter, and the body.

    If the answer is a problem (an error document), `body` has only these members:
    - `problem`: the last part of the problem's `type`;
    - `value`: as in the problem, if the problem has a `value`.
    """

    status: int
    etag: str | None = None
    replayed: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)


# --- The service ---------------------------------------------------------------------------------


class Service:
    """The real functions on moto, in simulated time. A read of the history finds every change."""

    def __init__(self, stack: Stack, wire: Wire) -> None:
        self.stack = stack
        self.wire = wire
        self.time = BEGINNING
        self.requests = 0
        self._images: dict[str, Any] = {}
        self._unrecorded: list[StreamRecord] = []

    def request(
        self, method: str, counter: str, headers: Headers, body: Mapping[str, int]
    ) -> Answer:
        self.requests += 1
        path = f"/counters/{counter}"
        function, route, parameters = self.stack.route(method, path)
        text = json.dumps(body).encode() if body else b""
        event = proxy_event(
            route, path, parameters, "", headers, text, ALL_RIGHTS | {"sub": "somebody"}
        )
        response = self.stack.invoke(function.name, event)
        content = json.loads(response["body"] or "{}")
        if response["statusCode"] >= 400:
            problem = content["type"].rpartition(":")[2]
            content = {"problem": problem} | {k: v for k, v in content.items() if k == "value"}
        response_headers = response["headers"]
        return Answer(
            response["statusCode"],
            response_headers.get("ETag"),
            response_headers.get("Idempotent-Replayed"),
            content,
        )

    def carry(self, request: AWSPreparedRequest) -> AWSResponse:
        """Let moto answer a request.

        Before a request to HistoryTable, record all changes so far. After a request that changed a
        counter, remember the change.
        """
        assert isinstance(request.body, bytes)
        parameters = json.loads(request.body)
        if parameters.get("TableName") == self.stack.refs["HistoryTable"]:
            self._record()
        response = delivered(request)
        if (
            parameters.get("TableName") == self.stack.refs["CounterTable"]
            and "UpdateExpression" in parameters
        ):
            self._note(json.loads(response.text))
        return response

    def _note(self, answer: Mapping[str, Any]) -> None:
        if item := answer.get("Attributes"):
            counter = item["counter_id"]["S"]
            images = {"NewImage": item}
            if counter in self._images:
                images["OldImage"] = self._images[counter]
            self._images[counter] = item
            self._unrecorded.append({"dynamodb": images})

    def _record(self) -> None:
        records, self._unrecorded = self._unrecorded, []
        if records:
            with patch.object(self.wire, "through", delivered):
                assert self.stack.record(records) == len(records)


@pytest.fixture
def service(stack: Stack, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service = Service(stack, wire)
    monkeypatch.setattr(clock, "now", lambda: service.time)
    monkeypatch.setattr(wire, "through", service.carry)
    logging.disable()  # logging would take a fifth of the test's time
    yield service
    logging.disable(logging.NOTSET)


# --- The model -----------------------------------------------------------------------------------


@dataclass
class Receipt:
    """What the model remembers about a request with a key."""

    body: tuple[int, int, int]
    answer: Answer
    until: float


@dataclass
class Model:
    """A simple model of what Tally promises about one counter."""

    counter: str
    value: int = 0
    version: int = 0
    created_at: str | None = None
    updated_at: str | None = None
    receipts: dict[str, Receipt] = field(default_factory=dict)

    def get(self, if_none_match: str | None) -> Answer:
        if if_none_match == f'"{self.version}"' or (if_none_match == "*" and self.version):
            return Answer(304, f'"{self.version}"')
        return self._counter()

    def increment(self, now: float, by: int, low: int, high: int, key: str | None) -> Answer:
        receipt = self.receipts.get(key) if key else None
        if receipt and now < receipt.until:
            if receipt.body != (by, low, high):
                return Answer(422, body={"problem": "idempotency-key-reused"})
            first = receipt.answer
            return Answer(first.status, first.etag, "true", first.body)
        if not low <= self.value + by <= high:
            return Answer(409, body={"problem": "bound-exceeded", "value": self.value})
        answer = self._change(now, self.value + by)
        if key:
            self.receipts[key] = Receipt(
                (by, low, high), answer, now + DAY + clock.CLOCK_DIFFERENCE
            )
        return answer

    def set(self, now: float, value: int, expected: int | None) -> Answer:
        if expected not in {None, self.version}:
            return Answer(412, f'"{self.version}"', body={"problem": "version-mismatch"})
        return self._change(now, value)

    def _change(self, now: float, value: int) -> Answer:
        self.value = value
        self.version += 1
        self.updated_at = clock.timestamp(now)
        self.created_at = self.created_at or self.updated_at
        return self._counter()

    def _counter(self) -> Answer:
        body = {
            "counter_id": self.counter,
            "value": self.value,
            "version": self.version,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }
        return Answer(200, f'"{self.version}"', body=body)


# --- The comparison ------------------------------------------------------------------------------

Body = dict[str, int]

VALUES = st.one_of(st.integers(-10, 10), st.sampled_from([MAX, -MAX, MAX - 1, 1 - MAX]))
INCREMENTS = VALUES.filter(bool)
BOUNDS: st.SearchStrategy[Body] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"min": st.integers(-20, 5)}),
    st.fixed_dictionaries({"max": st.integers(-5, 20)}),
    st.fixed_dictionaries({"min": st.integers(-20, 0), "max": st.integers(0, 20)}),
)
KEYS = st.sampled_from(["a", "b"])
# The version in a request is the current version plus one of these numbers.
VERSIONS = st.sampled_from([0, 0, 0, -1, 1])


class Comparison(RuleBasedStateMachine):
    """Sends each request to the service and to the model. Every run has its own counter."""

    def __init__(self, service: Service, counter: str) -> None:
        super().__init__()
        self.service = service
        self.model = Model(counter)
        # The key and the body of the last increment with a key.
        self.last_keyed: tuple[str, Body] | None = None

    @rule(by=INCREMENTS, bounds=BOUNDS)
    def increment(self, by: int, bounds: Body) -> None:
        self._increment(None, {"by": by, **bounds})

    @rule(key=KEYS, by=INCREMENTS, bounds=BOUNDS)
    def increment_once(self, key: str, by: int, bounds: Body) -> None:
        self._increment(key, {"by": by, **bounds})

    @rule()
    def repeat(self) -> None:
        if self.last_keyed:
            self._increment(*self.last_keyed)

    @rule(value=VALUES)
    def set(self, value: int) -> None:
        self._set({}, value, None)

    @rule(value=VALUES, offset=VERSIONS)
    def set_if_match(self, value: int, offset: int) -> None:
        version = max(0, self.model.version + offset)
        self._set({"If-Match": f'"{version}"'}, value, version)

    @rule(value=VALUES)
    def set_if_none_match(self, value: int) -> None:
        self._set({"If-None-Match": "*"}, value, 0)

    @rule()
    def get(self) -> None:
        self._get(None)

    @rule(offset=VERSIONS)
    def get_if_none_match(self, offset: int) -> None:
        self._get(f'"{max(0, self.model.version + offset)}"')

    @rule()
    def get_if_none_match_star(self) -> None:
        self._get("*")

    @rule(seconds=st.sampled_from([1, 5, 19, 20, 21, 3600, DAY - 21, DAY - 1, DAY]))
    def wait(self, seconds: int) -> None:
        self.service.time += seconds

    def _increment(self, key: str | None, body: Body) -> None:
        low, high = body.get("min", -MAX), body.get("max", MAX)
        headers = {"Idempotency-Key": key} if key else {}
        if key:
            self.last_keyed = key, body
        self._compare(
            self._request("POST", headers, body),
            self.model.increment(self.service.time, body["by"], low, high, key),
        )

    def _set(self, headers: Headers, value: int, expected: int | None) -> None:
        self._compare(
            self._request("PUT", headers, {"value": value}),
            self.model.set(self.service.time, value, expected),
        )

    def _get(self, if_none_match: str | None) -> None:
        headers = {"If-None-Match": if_none_match} if if_none_match else {}
        self._compare(self._request("GET", headers, {}), self.model.get(if_none_match))

    def _request(self, method: str, headers: Headers, body: Body) -> Answer:
        return self.service.request(method, self.model.counter, headers, body)

    def _compare(self, answer: Answer, expected: Answer) -> None:
        assert answer == expected


def test_the_service_and_the_model_give_the_same_answers(service: Service) -> None:
    runs = itertools.count()

    class Run(Comparison):
        def __init__(self) -> None:
            super().__init__(service, f"run{next(runs)}")

    run_state_machine_as_test(
        Run,
        settings=examples(full=500, part=8, stateful_step_count=50),
    )

    print(f"{service.requests} requests in {next(runs)} runs")
    assert service.requests > cases(500, part=8) * 10
