"""Random faults: any request to DynamoDB can meet a fault."""

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

FAULT_WEIGHTS: list[tuple[Fault, int]] = [
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
    """A scene with 8 counters in which any request can meet a fault.

    Before some requests, the storm writes the waiting changes to the history. Before some requests
    that read the outcome of a change, it calls `interruption`.
    """

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        self.source = random.Random(seed)
        self.interruption: Callable[[], None] = lambda: None
        self.fault_counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._nested = False
        random.seed(seed)  # for the jitter of the functions' pauses
        scene.choose_fault = self._choose_fault

    def _choose_fault(self, operation: str) -> Fault:
        reads_outcome = operation == "BatchGetItem"
        if reads_outcome and not self._nested and self.source.random() < 0.1:
            self._nested = True
            self.interruption()
            self._nested = False
        if self.source.random() < 0.2:
            self.scene.record()
        faults, weights = zip(*FAULT_WEIGHTS, strict=True)
        fault: Fault = self.source.choices(faults, weights)[0]
        self.fault_counts[operation][getattr(fault, "__name__", "")] += 1
        if fault is reply_lost and operation in READS:
            # For a read, a lost request has the same effect as a lost reply, but takes less time in
            # moto.
            return request_lost
        if fault is request_lost:
            # DynamoDB applies the request later, perhaps after the function's answer.
            return partial(self.scene.lost_and_applied_later, seconds=self.source.uniform(0, 8))
        return fault

    def settle(self) -> None:
        """End the faults, deliver delayed requests, and record all changes in the history."""
        self.scene.choose_fault = lambda _operation: delivered
        self.scene.advance(clock.APPLY_WINDOW)
        self.scene.record()

    def check_fault_shares(self) -> None:
        """Print the faults that the requests met, and check that enough requests met a fault."""
        for operation, faults in sorted(self.fault_counts.items()):
            shares = {name: faults[name] / faults.total() for name in ("reply_lost", "throttled")}
            print(f"{operation}: {faults.total()} requests, {shares}, {dict(faults)}")
            if faults.total() >= 1000:  # the shares of fewer requests vary too much
                assert shares["reply_lost"] >= 0.2
                assert shares["throttled"] >= 0.1
        total = sum(self.fault_counts.values(), Counter[str]())
        assert total["reply_lost"] >= 0.2 * total.total()
        assert total["throttled"] >= 0.1 * total.total()

    def histories(self) -> dict[str, list[dict[str, Any]]]:
        """Return each counter's history.

        Also check that each history is complete, and that its amounts add up to the counter's
        value.
        """
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
