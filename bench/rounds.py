"""Measuring side by side: a round has one of each, so that what slows the machine slows all."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from bench.report import median

T = TypeVar("T")


def interleaved(variants: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Return what each variant gives in each round; every round begins with another variant."""
    names = list(variants)
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(variants[name]())
    return results


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return value to other, round by round."""
    return [value / other for value, other in zip(values, others, strict=True)]


def shown_ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """Return the median of the ratios of the rounds, with the least and the greatest of them."""
    each = ratios(values, others)
    return f"{median(each):.2f} ({min(each):.2f} to {max(each):.2f})"
