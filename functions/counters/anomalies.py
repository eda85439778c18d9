"""Which increases are unusual: a range that is computed from the eight weeks before a bucket.

A bucket is one hour or one day of a trend. This module does not read from tables.

The range comes from the same hour of the week, or the same weekday, in the previous weeks:

1. Growth. The level of a week is the sum of its seven days without the highest and the lowest day.
   The growth is the median of the slopes between the logarithms of all levels: the estimator of
   H. Theil (1950) and P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau",
   Journal of the American Statistical Association 63 (1968), pages 1379 to 1389. Each earlier
   increase is multiplied by the growth since then.
2. Scale. The increases are transformed so that the standard deviation of a random count (a Poisson
   distribution) is about 1 at any level: F. J. Anscombe, "The transformation of Poisson, binomial
   and negative-binomial data", Biometrika 35 (1948), pages 246 to 254.
3. Range. The middle is the median. The spread comes from the median absolute deviation. An increase
   is unusual if it is more than 3.5 spreads from the middle: B. Iglewicz and D. C. Hoaglin, "How to
   Detect and Handle Outliers" (1993), the modified z-score.

Eight deviations are too few to estimate a spread. So the spread of an hour comes from the same hour
of all days, and the hours next to it. The spread of a day comes from all days. In each of these
columns, the deviation of a week is its distance from the median of the other weeks. This distance
is the error of a prediction from the other weeks. The spread is never smaller than that of random
counts.

The computation uses floats, which have 15 digits. So it accepts increases of any size that DynamoDB
can store: 38 digits.
"""

import math
from itertools import accumulate, combinations, pairwise
from typing import TYPE_CHECKING

from counters.model import Range

if TYPE_CHECKING:
    from collections.abc import Sequence

WEEKS = 8  # how many weeks before a bucket its range comes from, at most
FEWEST_WEEKS = 4  # with fewer weeks, there is no range

_DAYS = 7  # in a week

# An increase is unusual if it is more spreads than this from the middle. A day has a greater limit,
# because its spread comes from fewer deviations: 56 instead of 168.
_LIMIT_OF_HOURS = 3.5
_LIMIT_OF_DAYS = 4.5

# The median absolute deviation of a normal distribution is this part of its standard deviation.
_DEVIATION = 0.6745

_SHIFT = 3 / 8  # of Anscombe's transformation

# In a week, a level can at most double, or fall to a half. A greater change is not growth.
_MOST_GROWTH = math.log(2)

# Floats are rounded. The range is this part wider, so that rounding makes no increase unusual.
_ROUNDING = 1e-12


def ranges(
    increases: "Sequence[int]", day: int, first: int = 0, began: int = 0
) -> list[Range | None]:
    """Return the expected range of consecutive buckets. Each uses only the buckets before it.

    Args:
        increases: the increases of consecutive buckets, oldest first.
        day: the number of buckets in a day: 24 for hours, 1 for days.
        first: the position of the first bucket whose range is returned.
        began: the position of the bucket with the counter's first change; 0 if that change is in
            the first bucket or before it.

    Returns:
        A range for each bucket from `first` on; None if there are fewer than four weeks between
        `began` and the bucket.
    """
    totals = [0, *accumulate(increases)]
    week = _DAYS * day
    found: list[Range | None] = []
    for end in range(first, len(increases)):
        weeks = min(WEEKS, (end - began) // week)
        found.append(_range(increases, totals, day, end, weeks) if weeks >= FEWEST_WEEKS else None)
    return found


def is_unusual(increase: int, expected: Range | None, *, ended: bool) -> bool | None:
    """Return whether an increase is outside its expected range.

    Args:
        increase: the increase of a bucket.
        expected: its expected range; None if there is none.
        ended: whether the bucket has ended. Until then, its increase can still grow.

    Returns:
        True or False; None if the answer is not known, or not known yet.
    """
    if expected is None:
        return None
    if increase > expected.high:
        return True
    return increase < expected.low if ended else None


def _range(
    increases: "Sequence[int]", totals: "Sequence[int]", day: int, end: int, weeks: int
) -> Range:
    """Return the range of the bucket at the position `end`.

    Args:
        increases: as for `ranges`.
        totals: the sums of the first 0, 1, 2, … increases.
        day: as for `ranges`.
        end: the position.
        weeks: how many weeks before the bucket count.
    """
    week = _DAYS * day
    growth = _growth(totals, day, end, weeks)
    # How much the counter has grown since each of the weeks, the oldest week first.
    factors = [math.exp(growth * age) for age in range(weeks, 0, -1)]
    start = end - weeks * week

    def column(offset: int) -> list[float]:
        """Return the same hour or day of each week, transformed. Offset 0 is the bucket's own."""
        same = increases[start + offset : end : week]
        return [
            2 * math.sqrt(increase * factor + _SHIFT)
            for increase, factor in zip(same, factors, strict=True)
        ]

    beside = (-1, 0, 1) if day > 1 else (0,)
    columns = {(day * days + hours) % week for days in range(_DAYS) for hours in beside}
    deviations = [each for offset in columns for each in _deviations(column(offset))]
    deviation = _median(sorted(deviations)) / _DEVIATION
    # The variance of random counts. The median of a few weeks is not exact, which adds to it.
    natural = 1 + math.pi / 2 / weeks
    # The factors have changed the natural variance of the weeks, so subtract that change.
    variance = deviation**2 - natural * (sum(factors) / weeks - 1)
    spread = math.sqrt(max(natural, variance))
    width = spread * (_LIMIT_OF_HOURS if day > 1 else _LIMIT_OF_DAYS)
    middle = _median(sorted(column(0)))
    return Range(
        math.floor(_count(middle - width) * (1 - _ROUNDING)),
        math.ceil(_count(middle + width) * (1 + _ROUNDING)),
    )


def _growth(totals: "Sequence[int]", day: int, end: int, weeks: int) -> float:
    """Return the logarithm of the growth from one week to the next; 0 if it is not known."""
    levels: list[tuple[int, float]] = []
    for age in range(weeks, 0, -1):
        start = end - age * _DAYS * day
        bounds = totals[start : start + _DAYS * day + 1 : day]
        days = sorted(after - before for before, after in pairwise(bounds))
        level = sum(days[1:-1])
        if level:  # a week without changes has no logarithm
            levels.append((age, math.log(level)))
    if len(levels) < FEWEST_WEEKS:
        return 0.0
    slopes = [
        (later - earlier) / (before - after)
        for (before, earlier), (after, later) in combinations(levels, 2)
    ]
    return max(-_MOST_GROWTH, min(_MOST_GROWTH, _median(sorted(slopes))))


def _deviations(column: list[float]) -> list[float]:
    """Return how far each week is from the median of the other weeks."""
    ranked = sorted(column)
    half, odd = divmod(len(ranked), 2)
    # The median of the others depends only on whether the week is below or above the middle.
    if odd:
        low, middle, high = ranked[half - 1 : half + 2]
        below, level, above = (middle + high) / 2, (low + high) / 2, (low + middle) / 2
    else:
        middle = above = ranked[half - 1]
        below = level = ranked[half]
    return [
        abs(each - (below if each < middle else above if each > middle else level))
        for each in column
    ]


def _median(ranked: list[float]) -> float:
    """Return the median of sorted values."""
    half, odd = divmod(len(ranked), 2)
    return ranked[half] if odd else (ranked[half - 1] + ranked[half]) / 2


def _count(transformed: float) -> float:
    """Return the count that has been transformed; 0 if there is none."""
    return max(0.0, (max(0.0, transformed) / 2) ** 2 - _SHIFT)
