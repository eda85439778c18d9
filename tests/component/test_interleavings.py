"""Concurrent requests under one key: every order of their steps, every death, a late history."""

import itertools
import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.component.simulation import Caller, World
from tests.proxy import TIMEOUT, proxy_event
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

runs = itertools.count()


class Game:
    """A counter, a key and its callers: what may happen next, and what must never happen."""

    def __init__(  # noqa: PLR0913
        self,
        stack: Stack,
        wire: Wire,
        *,
        callers: int,
        history: str = PROMPT,
        deaths: int = 0,
        strangers: int = 0,
        jumps: int = 0,
    ) -> None:
        self.world = World(stack, wire)
        self.counter = f"game{next(runs)}"
        self.history = history
        self.deaths = deaths
        self.strangers = strangers
        self.jumps = jumps
        self.under_way: list[Any] = []  # requests of the dead
        self.callers = [self._caller(f"caller{n}") for n in range(callers)]

    def actions(self) -> list[Action]:
        """Return what may happen next."""
        going = [n for n, caller in enumerate(self.callers) if not caller.finished]
        began = [n for n in going if self.callers[n].started]
        actions = [("go", n) for n in going]
        if self.deaths:
            actions += [("die", n) for n in began]
            asking = [n for n in began if self.callers[n].pending]
            actions += [("die with a request under way", n) for n in asking]
        actions += [("arrive", n) for n in range(len(self.under_way))]
        if self.history == LATE and self.world.stream.unrecorded():
            actions.append(("record", 0))
        if self.strangers:
            actions.append(("stranger", 0))
        if self.jumps and (len(going) < len(self.callers) or began):
            actions.append(("jump", 0))
        return actions

    def is_covered(self, action: Action) -> bool:
        """Return whether another action leads to the same games: a request that never arrives."""
        kind, number = action
        return kind == "die" and self.callers[number].pending is not None

    def do(self, action: Action) -> None:
        """Let an action happen, and check what must always hold."""
        kind, number = action
        match kind:
            case "go":
                self.callers[number].step()
            case "die":
                self.deaths -= 1
                self.callers[number].kill()
            case "die with a request under way":
                self.deaths -= 1
                self.under_way.append(self.callers[number].pending)
                self.callers[number].kill()
            case "arrive":
                self.world.deliver(self.under_way.pop(number))
            case "record":
                self.world.stream.record()
            case "stranger":
                self.strangers -= 1
                self._caller(f"stranger{self.strangers}", key=None).run()
            case "jump":
                self.jumps -= 1
                self.jump(clock.APPLY_WINDOW + 1)
        if self.history == PROMPT:
            self.world.stream.record()
        elif self.history == MISSING:
            self.world.stream.record(without=1)
        self.check()

    def jump(self, seconds: float) -> None:
        """Let time pass. Kill callers past their timeout, and drop requests past their window."""
        self.world.time += seconds
        for caller in self.world.callers:
            if caller.started and not caller.finished and caller.deadline <= self.world.time:
                caller.kill()
        if seconds > clock.APPLY_WINDOW:
            self.under_way.clear()

    def check(self) -> None:
        """Check that the change was made at most once and that all answers are the same."""
        ours = self.ours()
        assert len(ours) <= 1
        answers = [caller.answer for caller in self.callers if caller.answer]
        assert {answer["statusCode"] for answer in answers} <= {200, 409, 503}
        bodies = {answer["body"] for answer in answers if answer["statusCode"] == 200}
        assert len(bodies) <= 1
        for body in bodies:
            assert json.loads(body)["value"] == int(ours[0]["value"]["N"])
            assert json.loads(body)["version"] == int(ours[0]["version"]["N"])

    def ours(self) -> list[dict[str, Any]]:
        """Return the counter after each change that was made for the key."""
        return [
            item
            for item in self.world.applied
            if item["change"]["M"]["request_id"]["S"].startswith("caller")
        ]

    def finish(self) -> None:
        """Check that one more repeat gets the answer, unless the history lacks it."""
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
            assert len(self.ours()) == 1

    def state(self) -> str:
        """Return a text that differs between states. It does not depend on the callers' names."""
        receipt = self.world.stack.item("ReceiptTable", self._intent().receipt_id())
        shared = repr(
            (
                receipt or {},
                [item["change"]["M"]["request_id"]["S"] for item in self.world.applied],
                self.world.stream.unrecorded(),
                [request.body for request in self.under_way],
                (self.deaths, self.strangers, self.jumps),
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
        return idempotency.Intent("key", "somebody", self.counter, (self.counter,), "")

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
            {"sub": "somebody" if key else "stranger"},
        )
        return self.world.call(name, event)


def _anonymous(text: str, order: tuple[int, ...]) -> str:
    for place, caller in enumerate(order):
        text = text.replace(f"caller{caller}", f"place{place}")
    # Names and times differ from game to game.
    return re.sub(
        r"game\d+|urn:uuid:[0-9a-f-]+|\d{4}-\d\d-\d\dT[0-9:.]+Z|'expires_at'[^}]*", "", text
    )


def explore(new_game: Callable[[], Game]) -> int:
    """Play every possible game until it reaches a state of another game; return how many states."""
    seen: set[str] = set()
    openings: list[list[Action]] = [[]]
    while openings:
        moves = openings.pop()
        game = new_game()
        with game.world.running():
            try:
                for move in moves:
                    game.do(move)
                while (state := game.state()) not in seen:
                    seen.add(state)
                    actions = [each for each in game.actions() if not game.is_covered(each)]
                    if not any(kind == "go" for kind, _ in actions):
                        game.finish()
                        break
                    first, *others = actions
                    openings += [[*moves, other] for other in others]
                    moves = [*moves, first]
                    game.do(first)
            except AssertionError as error:
                error.add_note(f"after {moves}")
                raise
    return len(seen)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("history", "options"),
    [
        (MISSING, {"callers": 2, "jumps": 1}),
        (LATE, {"callers": 2, "deaths": 1}),
        (LATE, {"callers": 2, "jumps": 1}),
        (PROMPT, {"callers": 2, "strangers": 1}),
        *(
            [
                (MISSING, {"callers": 2, "deaths": 1, "jumps": 1}),
                (LATE, {"callers": 2, "deaths": 1, "jumps": 1}),
                (PROMPT, {"callers": 2, "deaths": 1, "jumps": 1}),
                (LATE, {"callers": 2, "strangers": 1}),
                (PROMPT, {"callers": 2, "deaths": 1, "strangers": 1}),
                (PROMPT, {"callers": 3}),
            ]
            if FULL
            else []
        ),
    ],
)
def test_a_key_is_applied_once_in_every_order_of_events(
    stack: Stack, wire: Wire, history: str, options: dict[str, int]
) -> None:
    states = explore(lambda: Game(stack, wire, history=history, **options))

    print(f"{history} {options}: {states} states")
    assert states > 50


BLOCKS = cases(4, part=1)
GAMES = cases(500, part=40)  # per block

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
def test_a_key_is_applied_once_in_random_games_with_faults(
    stack: Stack, wire: Wire, block: int
) -> None:
    answers: dict[int, int] = {}
    for seed in range(block * GAMES, (block + 1) * GAMES):
        source = random.Random(seed)
        game = Game(
            stack,
            wire,
            callers=source.randint(1, 6),
            history=source.choice([PROMPT, LATE, LATE, MISSING]),
            deaths=source.randint(0, 3),
            strangers=source.randint(0, 3),
            jumps=source.choice([0, 0, 1]),
        )
        with game.world.running():
            try:
                play(game, source)
            except AssertionError as error:
                error.add_note(f"seed {seed}")
                raise
        for caller in game.callers:
            if caller.answer:
                status = caller.answer["statusCode"]
                answers[status] = answers.get(status, 0) + 1

    print(f"answers: {answers}")
    assert answers.keys() == {200, 409, 503}


def play(game: Game, source: random.Random) -> None:
    """Play a game at random to its end."""
    faults, weights = zip(*FAULTS, strict=True)
    while actions := game.actions():
        if not any(kind == "go" for kind, _ in actions):
            break
        game.world.fault = source.choices(faults, weights)[0]
        # Deaths and jumps are rarer than steps, or no game would get far.
        kinds = [1.0 if kind in {"go", "record", "arrive"} else 0.1 for kind, _ in actions]
        action = source.choices(actions, kinds)[0]
        if action[0] in {"arrive", "record"}:
            game.world.fault = delivered
        game.do(action)
        if source.random() < 0.05:
            game.jump(source.uniform(0, 6))
    game.finish()
