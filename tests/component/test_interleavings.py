"""Concurrent requests with the same Idempotency-Key, in every order of their steps.

A step ends at a pause, or before the next request to DynamoDB. Functions can be killed, and the
history can lack changes. But each change must be made once.
"""

import itertools
import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.component.simulation import Caller, World
from tests.proxy import ALL_RIGHTS, TIMEOUT, proxy_event
from tests.sizes import FULL, cases
from tests.stack import Stack
from tests.wire import (
    Fault,
    Wire,
    conflict,
    connection_lost,
    delivered,
    internal_error,
    refused_internally,
    reply_lost,
    request_lost,
    throttled,
    unreachable,
)

from counters import clock, idempotency

Action = tuple[str, int]

PROMPT, LATE, MISSING = "prompt", "late", "missing"

numbers = itertools.count()


class Run:
    """A run in which several callers send the same request with the same key.

    The test chooses the order of the run's actions. The run checks all answers.

    Args:
        callers: the number of callers.
        history: when the history gets a change. PROMPT: at once. LATE: when the test chooses the
            action "record". MISSING: at once, but the history never gets version 1.
        kills: how many callers may be killed.
        other_changes: how many changes without the key may happen.
        jumps: how often the clock may jump past the apply window. A change that was not applied
            in its apply window will never be applied.
    """

    def __init__(  # noqa: PLR0913
        self,
        stack: Stack,
        wire: Wire,
        *,
        callers: int,
        history: str = PROMPT,
        kills: int = 0,
        other_changes: int = 0,
        jumps: int = 0,
    ) -> None:
        self.world = World(stack, wire)
        self.counter = f"run{next(numbers)}"
        self.history = history
        self.kills = kills
        self.other_changes = other_changes
        self.jumps = jumps
        self.in_flight: list[Any] = []  # requests of killed callers that may still arrive
        self.callers = [self._caller(f"caller{n}") for n in range(callers)]

    def actions(self) -> list[Action]:
        """Return the actions that are possible now."""
        unfinished = [n for n, caller in enumerate(self.callers) if not caller.finished]
        started = [n for n in unfinished if self.callers[n].started]
        actions = [("step", n) for n in unfinished]
        if self.kills:
            actions += [("kill", n) for n in started]
            requesting = [n for n in started if self.callers[n].pending]
            actions += [("kill with a request in flight", n) for n in requesting]
        actions += [("arrive", n) for n in range(len(self.in_flight))]
        if self.history == LATE and self.world.stream.unrecorded():
            actions.append(("record", 0))
        if self.other_changes:
            actions.append(("other change", 0))
        if self.jumps and (len(unfinished) < len(self.callers) or started):
            actions.append(("jump", 0))
        return actions

    def is_covered(self, action: Action) -> bool:
        """Return whether the test can skip an action, because another action includes its effects.

        The action "kill with a request in flight" includes "kill": the request in flight may never
        arrive.
        """
        name, number = action
        return name == "kill" and self.callers[number].pending is not None

    def do(self, action: Action) -> None:
        """Carry out an action, and check the answers so far."""
        name, number = action
        match name:
            case "step":
                self.callers[number].step()
            case "kill":
                self.kills -= 1
                self.callers[number].kill()
            case "kill with a request in flight":
                self.kills -= 1
                self.in_flight.append(self.callers[number].pending)
                self.callers[number].kill()
            case "arrive":
                self.world.deliver(self.in_flight.pop(number))
            case "record":
                self.world.stream.record()
            case "other change":
                self.other_changes -= 1
                self._caller(f"other{self.other_changes}", key=None).run()
            case "jump":
                self.jumps -= 1
                self.jump(clock.APPLY_WINDOW + 1)
        if self.history == PROMPT:
            self.world.stream.record()
        elif self.history == MISSING:
            self.world.stream.record(without=1)
        self.check()

    def jump(self, seconds: float) -> None:
        """Advance the clock. Kill callers whose timeout has passed.

        If the clock jumps past the apply window, drop the requests in flight, because they can no
        longer be applied.
        """
        self.world.time += seconds
        for caller in self.world.callers:
            if caller.started and not caller.finished and caller.deadline <= self.world.time:
                caller.kill()
        if seconds > clock.APPLY_WINDOW:
            self.in_flight.clear()

    def check(self) -> None:
        """Check that the change was made at most once and that all 200 answers are the same."""
        applied = self.applied()
        assert len(applied) <= 1
        answers = [caller.answer for caller in self.callers if caller.answer]
        assert {answer["statusCode"] for answer in answers} <= {200, 409, 503}
        bodies = {answer["body"] for answer in answers if answer["statusCode"] == 200}
        assert len(bodies) <= 1
        for body in bodies:
            assert json.loads(body)["value"] == int(applied[0]["value"]["N"])
            assert json.loads(body)["version"] == int(applied[0]["version"]["N"])

    def applied(self) -> list[dict[str, Any]]:
        """Return the state of the counter after each change that was made with the key."""
        return [
            item
            for item in self.world.applied
            if item["change"]["M"]["request_id"]["S"].startswith("caller")
        ]

    def finish(self) -> None:
        """Send one more repeat and check its answer.

        The answer must be 200. If the history never gets version 1, `in-progress` is also allowed.
        """
        self.world.fault = delivered
        self.jump(clock.APPLY_WINDOW + TIMEOUT)
        if self.history == LATE:
            self.world.stream.record()
        last = self._caller("caller-last")
        self.callers.append(last)
        last.run()
        self.check()
        assert last.answer
        if self.history == MISSING and last.answer["statusCode"] == 409:
            assert json.loads(last.answer["body"])["type"].endswith("in-progress")
        else:
            assert last.answer["statusCode"] == 200
            assert len(self.applied()) == 1

    def state(self) -> str:
        """Return a text that identifies the state of the run.

        Two states that differ only in the names of callers have the same text.
        """
        receipt = self.world.stack.item("ReceiptTable", self._intent().receipt_id("somebody"))
        shared = repr(
            (
                receipt or {},
                [item["change"]["M"]["request_id"]["S"] for item in self.world.applied],
                self.world.stream.unrecorded(),
                [request.body for request in self.in_flight],
                (self.kills, self.other_changes, self.jumps),
            )
        )
        each = [
            repr((caller.started, caller.finished, caller.answer, caller.responses))
            for caller in self.callers
        ]
        return min(
            _anonymous(repr((shared, [each[n] for n in order])), order)
            for order in itertools.permutations(range(len(self.callers)))
        )

    def _intent(self) -> idempotency.Intent:
        return idempotency.Intent("key", self.counter, (self.counter,), "")

    def _caller(self, name: str, key: str | None = "key") -> Caller:
        path = f"/counters/{self.counter}"
        _, route, parameters = self.world.stack.route("POST", path)
        event = proxy_event(
            route,
            path,
            parameters,
            "",
            {"Idempotency-Key": key} if key else {},
            b"",
            ALL_RIGHTS | {"sub": "somebody" if key else "another"},
        )
        return self.world.call(name, event)


def _anonymous(text: str, order: tuple[int, ...]) -> str:
    for place, caller in enumerate(order):
        text = text.replace(f"caller{caller}", f"place{place}")
    # Remove names and times, because they differ between equal states of two runs.
    return re.sub(
        r"run\d+|urn:uuid:[0-9a-f-]+|\d{4}-\d\d-\d\dT[0-9:.]+Z|'expires_at'[^}]*", "", text
    )


def explore(new_run: Callable[[], Run]) -> int:
    """Try every order of actions. Return the number of different states that the runs reached.

    A run ends when it reaches a state that an earlier run has already reached.
    """
    known: set[str] = set()
    beginnings: list[list[Action]] = [[]]
    while beginnings:
        path = beginnings.pop()
        run = new_run()
        with run.world.running():
            try:
                for action in path:
                    run.do(action)
                while (state := run.state()) not in known:
                    known.add(state)
                    actions = [each for each in run.actions() if not run.is_covered(each)]
                    if not any(name == "step" for name, _ in actions):
                        run.finish()
                        break
                    first, *others = actions
                    beginnings += [[*path, other] for other in others]
                    path = [*path, first]
                    run.do(first)
            except AssertionError as error:
                error.add_note(f"after {path}")
                raise
    return len(known)


@pytest.mark.usefixtures("look_once")
@pytest.mark.parametrize(
    ("history", "options"),
    [
        (MISSING, {"callers": 2, "jumps": 1}),
        (LATE, {"callers": 2}),
        (LATE, {"callers": 1, "kills": 1, "other_changes": 1}),
        *(
            [
                (LATE, {"callers": 2, "kills": 1}),
                (LATE, {"callers": 2, "jumps": 1}),
                (PROMPT, {"callers": 2, "other_changes": 1}),
                (MISSING, {"callers": 2, "kills": 1, "jumps": 1}),
                (LATE, {"callers": 2, "kills": 1, "jumps": 1}),
                (PROMPT, {"callers": 2, "kills": 1, "jumps": 1}),
                (LATE, {"callers": 2, "other_changes": 1}),
                (PROMPT, {"callers": 2, "kills": 1, "other_changes": 1}),
                (PROMPT, {"callers": 3}),
            ]
            if FULL
            else []
        ),
    ],
)
def test_a_change_is_made_once_in_every_order_of_actions(
    stack: Stack, wire: Wire, history: str, options: dict[str, int]
) -> None:
    states = explore(lambda: Run(stack, wire, history=history, **options))

    print(f"{history} {options}: {states} states")
    assert states > 20


BLOCKS = cases(4, part=1)
RUNS = cases(500, part=20)  # runs in each block

FAULTS: list[tuple[Fault, int]] = [
    (delivered, 60),
    (reply_lost, 8),
    (connection_lost, 6),
    (request_lost, 4),
    (internal_error, 4),
    (refused_internally, 4),
    (throttled, 8),
    (conflict, 3),
    (unreachable, 3),
]


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_change_is_made_once_in_random_runs_with_faults(
    stack: Stack, wire: Wire, block: int
) -> None:
    answers: dict[int, int] = {}
    for seed in range(block * RUNS, (block + 1) * RUNS):
        source = random.Random(seed)
        run = Run(
            stack,
            wire,
            callers=source.randint(1, 6),
            history=source.choice([PROMPT, LATE, LATE, MISSING]),
            kills=source.randint(0, 3),
            other_changes=source.randint(0, 3),
            jumps=source.choice([0, 0, 1]),
        )
        with run.world.running():
            try:
                run_at_random(run, source)
            except AssertionError as error:
                error.add_note(f"seed {seed}")
                raise
        for caller in run.callers:
            if caller.answer:
                status = caller.answer["statusCode"]
                answers[status] = answers.get(status, 0) + 1

    print(f"answers: {answers}")
    assert answers.keys() == {200, 409, 503}


def run_at_random(run: Run, source: random.Random) -> None:
    """Carry out random actions until all callers are finished."""
    faults, weights = zip(*FAULTS, strict=True)
    while actions := run.actions():
        if not any(name == "step" for name, _ in actions):
            break
        run.world.fault = source.choices(faults, weights)[0]
        # A kill or a jump ends a run early, so choose kills and jumps less often than steps.
        chances = [1.0 if name in {"step", "record", "arrive"} else 0.1 for name, _ in actions]
        action = source.choices(actions, chances)[0]
        if action[0] in {"arrive", "record"}:
            run.world.fault = delivered
        run.do(action)
        if source.random() < 0.05:
            run.jump(source.uniform(0, 6))
    run.finish()
