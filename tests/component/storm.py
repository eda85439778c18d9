"""Faults at random: every request to the database may meet one."""

import random
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.component.scene import Scene
from tests.wire import (
    Fault,
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

from counters import clock

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTERS = [f"counter{n}" for n in range(8)]
READS = {"BatchGetItem", "Query"}

WEATHER: list[tuple[Fault, int]] = [
    (delivered, 52),
    (reply_lost, 25),
    (throttled, 16),
    (connection_lost, 2),
    (request_lost, 1),
    (internal_error, 2),
    (refused_internally, 2),
    (conflict, 2),
    (unreachable, 2),
]


class Storm:
    """Callers of 8 counters in a scene where every request may meet a fault.

    Now and then, one that asks what became of its change is held up, and `other` happens first;
    now and then the history is written.
    """

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        self.source = random.Random(seed)
        self.other: Callable[[], None] = lambda: None
        self.met: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._nested = False
        random.seed(seed)  # the code's own jitter
        scene.chance = self._chance

    def _chance(self, operation: str) -> Fault:
        asks = operation == "BatchGetItem"
        if asks and not self._nested and self.source.random() < 0.1:
            self._nested = True
            self.other()
            self._nested = False
        if self.source.random() < 0.2:
            self.scene.record()
        faults, weights = zip(*WEATHER, strict=True)
        fault: Fault = self.source.choices(faults, weights)[0]
        self.met[operation][getattr(fault, "__name__", "")] += 1
        if fault is reply_lost and operation in READS:
            return request_lost  # for a read that is the same, and moto is slow
        if fault is request_lost:  # some of the lost are only held up
            return partial(self.scene.held_up, seconds=self.source.uniform(0, 8))
        return fault

    def calm_down(self) -> None:
        """Let what is under way arrive, and all of it be in the history."""
        self.scene.chance = lambda _operation: delivered
        self.scene.advance(clock.APPLY_WINDOW)
        self.scene.record()

    def print_shares(self) -> None:
        """Print what the requests met, and make sure that it was enough."""
        for operation, met in sorted(self.met.items()):
            shares = {name: met[name] / met.total() for name in ("reply_lost", "throttled")}
            print(f"{operation}: {met.total()} requests, {shares}, {dict(met)}")
            if met.total() >= 1000:  # fewer say little about shares
                assert shares["reply_lost"] >= 0.2
                assert shares["throttled"] >= 0.1
        every = sum(self.met.values(), Counter[str]())
        assert every["reply_lost"] >= 0.2 * every.total()
        assert every["throttled"] >= 0.1 * every.total()

    def histories(self) -> dict[str, list[dict[str, Any]]]:
        """Return each counter's history, without gaps and adding up to the counter's value."""
        histories: dict[str, list[dict[str, Any]]] = {counter: [] for counter in COUNTERS}
        for item in self.scene.stack.items("HistoryTable"):
            entry: dict[str, Any] = {
                name: int(value["N"]) if "N" in value else value["S"]
                for name, value in item.items()
            }
            histories[entry["counter_id"]].append(entry)
        for counter, entries in histories.items():
            entries.sort(key=lambda entry: int(entry["version"]))
            value = 0
            for version, entry in enumerate(entries, 1):
                assert (entry["version"], entry["previous_value"]) == (version, value)
                value += entry["by"]
                assert entry["value"] == value
            assert self.scene.value(counter) == value
        return histories
