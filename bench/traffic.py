"""Simulated traffic: how often something is counted in each hour of a year, and how often a day."""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

DAYS = 364  # 52 weeks
HOURS = 24  # in a day

# The share of an hour of the day, and of a day of the week: 1 is average.
_DAY = (
    *(0.25, 0.18, 0.14, 0.12, 0.14, 0.25, 0.50, 0.85, 1.20, 1.45, 1.55, 1.60),
    *(1.55, 1.50, 1.50, 1.50, 1.50, 1.45, 1.35, 1.25, 1.15, 0.95, 0.65, 0.42),
)
_WEEK = (1.10, 1.15, 1.15, 1.10, 1.05, 0.75, 0.70)

# Besides the randomness of counts, each day and each hour is busier or quieter than usual, by this
# part (one standard deviation).
VARIATION = 0.05

GROWTH = 20  # the factor of a year
HOLIDAYS = 10  # in a year, besides 5 days at its end
HOLIDAY = 0.35  # the part of the usual traffic on a holiday
BATCH = 5  # events in a batch, on average

_SMALL = 30  # below this mean, multiplication is fast enough


@dataclass(frozen=True)
class Year:
    """The traffic of a year.

    Attributes:
        increases: how often something was counted in each hour.
        means: how often it was expected to be counted in each hour.
        holidays: the days that are holidays.
    """

    increases: list[int]
    means: list[float]
    holidays: frozenset[int] = frozenset()

    def by_day(self) -> "Year":
        """Return the year with days in place of hours."""
        starts = range(0, len(self.increases), HOURS)
        return Year(
            [sum(self.increases[start : start + HOURS]) for start in starts],
            [sum(self.means[start : start + HOURS]) for start in starts],
            self.holidays,
        )


def rhythm(rng: random.Random) -> Year:
    """Return traffic of 200 events an hour, with a daily and a weekly rhythm."""
    return _year(rng, lambda _: 200)


def growth(rng: random.Random) -> Year:
    """Return traffic that grows from 20 to 400 events an hour."""
    return _year(rng, lambda day: 20 * GROWTH ** (day / DAYS))


def holidays(rng: random.Random) -> Year:
    """Return traffic of 200 events an hour, and of only a third on 15 days."""
    days = frozenset([*rng.sample(range(DAYS - 7), HOLIDAYS), *range(DAYS - 7, DAYS - 2)])
    return _year(rng, lambda day: 200 * (HOLIDAY if day in days else 1), days)


def sparse(rng: random.Random) -> Year:
    """Return traffic of one event in three hours."""
    return _year(rng, lambda _: 1 / 3)


def bursty(rng: random.Random) -> Year:
    """Return traffic of 200 events an hour, in batches of 1 to 30 or so events."""
    return _year(rng, lambda _: 200, batch=BATCH)


KINDS: Mapping[str, Callable[[random.Random], Year]] = {
    "daily and weekly rhythm": rhythm,
    "growth": growth,
    "holidays": holidays,
    "sparse": sparse,
    "bursty": bursty,
}


def _year(
    rng: random.Random,
    level: Callable[[int], float],
    days: frozenset[int] = frozenset(),
    batch: int = 1,
) -> Year:
    """Return a year with a daily and a weekly rhythm.

    Args:
        rng: the source of randomness.
        level: returns the events an hour that are expected on a day.
        days: the days that are holidays.
        batch: the number of events in a batch, on average.
    """
    increases, means = [], []
    for day in range(DAYS):
        busy = rng.lognormvariate(0, VARIATION)
        for share in _DAY:
            mean = level(day) * share * _WEEK[day % 7]
            means.append(mean)
            increases.append(events(rng, mean * busy, batch))
    return Year(increases, means, days)


def poisson(rng: random.Random, mean: float) -> int:
    """Return a random count of independent events.

    For great means, this is the transformed rejection PTRS of W. Hörmann, "The transformed
    rejection method for generating Poisson random variables", Insurance: Mathematics and Economics
    12 (1993), pages 39 to 45.
    """
    if mean < _SMALL:
        least, product, count = math.exp(-mean), rng.random(), 0
        while product > least:
            product *= rng.random()
            count += 1
        return count
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    inverse = 1.1239 + 1.1328 / (b - 3.4)
    limit = 0.9277 - 3.6224 / (b - 2)
    while True:
        u, v = rng.random() - 0.5, rng.random()
        us = 0.5 - abs(u)
        count = math.floor((2 * a / us + b) * u + mean + 0.43) if us else -1
        if us >= 0.07 and v <= limit:  # noqa: PLR2004  the constants of the paper
            return count
        if count < 0 or (us < 0.013 and v > us):  # noqa: PLR2004
            continue
        accepted = math.log(v * inverse / (a / (us * us) + b))
        if accepted <= count * math.log(mean) - mean - math.lgamma(count + 1):
            return count


def events(rng: random.Random, mean: float, batch: int) -> int:
    """Return how many events there are in an hour.

    Args:
        rng: the source of randomness.
        mean: the number of events that is expected.
        batch: the number of events in a batch, on average. The sizes of the batches have a
            geometric distribution.
    """
    batches = poisson(rng, mean * rng.lognormvariate(0, VARIATION) / batch)
    if not batches or batch == 1:
        return batches
    # The sum of geometric distributions is a negative binomial distribution: a mixture of Poisson
    # distributions, whose means have a gamma distribution.
    return batches + poisson(rng, rng.gammavariate(batches, batch - 1))
