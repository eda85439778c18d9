"""Measures programs in turn, so that a slow moment of the machine affects all of them alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from bench.report import median

T = TypeVar("T")


def interleaved(variants: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure every variant once in each round. Each round starts with a different variant.

    Args:
        variants: for each variant, a callable that measures it once and returns the result.
        rounds: the number of rounds.

    Returns:
        The measurements of each variant, one per round.
    """
    names = list(variants)
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(variants[name]())
    return results


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return, for each round, its measurement in `values` divided by that in `others`."""
    return [value / other for value, other in zip(values, others, strict=True)]


def shown_ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """Return the ratios of all rounds as text: the median, then the lowest and the highest."""
    each = ratios(values, others)
    return f"{median(each):.2f} ({min(each):.2f} to {max(each):.2f})"
