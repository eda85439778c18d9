"""Simulates a year of five kinds of traffic, and counts false alarms and anomalies that are found.

`python -m bench.unusual` prints the section. `python -m bench.unusual 2` simulates other years.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.report import Section, table
from bench.traffic import BATCH, GROWTH, HOLIDAY, HOURS, KINDS, VARIATION, Year, bursty, events
from counters import anomalies

YEARS_OF_HOURS = 2
YEARS_OF_DAYS = 20

BUSY = 50  # events an hour: the share of anomalies that are found is for hours that expect more

# One bucket of this many has an anomaly.
_RARE_HOURS = 100
_RARE_DAYS = 50

ANOMALIES: Mapping[str, Callable[[int], int]] = {
    "half": lambda increase: increase // 2,
    "double": lambda increase: increase * 2,
    "silence": lambda _: 0,
    "spike": lambda increase: increase * 5,
}


@dataclass
class Result:
    """What was found in some years.

    Attributes:
        buckets: the buckets that are ordinary: without a planted anomaly, and not on a holiday.
        false: how many of them were unusual, in years without planted anomalies.
        holidays: the buckets on holidays.
        marked: how many of them were unusual.
        tried: the ordinary buckets in which more than 50 events an hour are expected, in years with
            planted anomalies.
        found: how many of them are unusual if an anomaly takes their place, by the anomaly.
    """

    buckets: int = 0
    false: int = 0
    holidays: int = 0
    marked: int = 0
    tried: int = 0
    found: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Result") -> None:
        """Add another result to this result."""
        self.buckets += other.buckets
        self.false += other.false
        self.holidays += other.holidays
        self.marked += other.marked
        self.tried += other.tried
        self.found += other.found

    def false_alarms(self) -> float:
        """Return the false alarms per 1,000 buckets."""
        return 1000 * self.false / self.buckets


def judge(year: Year, day: int, rng: random.Random, first: int = 0) -> Result:
    """Count the false alarms and the anomalies that are found in a year.

    Args:
        year: the traffic, by hour or by day.
        day: the number of buckets in a day.
        rng: decides which buckets of the past have anomalies.
        first: the position of the first bucket that is judged.
    """
    result = Result()
    for position, expected in enumerate(anomalies.ranges(year.increases, day, first), first):
        if expected is None:
            continue
        unusual = anomalies.is_unusual(year.increases[position], expected, ended=True)
        if position // day in year.holidays:
            result.holidays += 1
            result.marked += bool(unusual)
        else:
            result.buckets += 1
            result.false += bool(unusual)
    past, planted = _plant(year.increases, _RARE_HOURS if day > 1 else _RARE_DAYS, rng)
    for position, expected in enumerate(anomalies.ranges(past, day, first), first):
        ordinary = position not in planted and position // day not in year.holidays
        if expected and ordinary and year.means[position] * day > BUSY * HOURS:
            result.tried += 1
            for name, change in ANOMALIES.items():
                found = anomalies.is_unusual(change(past[position]), expected, ended=True)
                result.found[name] += bool(found)
    return result


def simulate(kind: str, seed: int, hours: int, days: int) -> tuple[Result, Result]:
    """Simulate years of a kind of traffic.

    Args:
        kind: the name of the kind.
        seed: another seed makes other years.
        hours: the number of years that are judged by hour.
        days: the number of years that are judged by day.

    Returns:
        The result by hour, and the result by day.
    """
    by_hour, by_day = Result(), Result()
    for number in range(max(hours, days)):
        rng = random.Random(f"{kind} {seed} {number}")  # noqa: S311  a simulation
        year = KINDS[kind](rng)
        if number < hours:
            by_hour.add(judge(year, HOURS, rng))
        if number < days:
            by_day.add(judge(year.by_day(), 1, rng))
    return by_hour, by_day


def _plant(
    increases: list[int], rare: int, rng: random.Random
) -> tuple[list[int], Mapping[int, str]]:
    """Return a copy in which one bucket of `rare` has an anomaly, and these buckets."""
    count = len(increases) // rare
    names = list(ANOMALIES)
    planted = {each: rng.choice(names) for each in rng.sample(range(len(increases)), count)}
    changed = [
        ANOMALIES[planted[position]](increase) if position in planted else increase
        for position, increase in enumerate(increases)
    ]
    return changed, planted


def measure(seed: int = 1) -> Section:
    """Simulate all kinds of traffic, and return the section of docs/benchmarks.md."""
    results = {kind: simulate(kind, seed, YEARS_OF_HOURS, YEARS_OF_DAYS) for kind in KINDS}
    found = [f"found: {name}" for name in ANOMALIES]
    best = _percent(*best_possible(random.Random(seed)))  # noqa: S311  a simulation
    parts = [_text(best)]
    for number, (unit, years) in enumerate((("hours", YEARS_OF_HOURS), ("days", YEARS_OF_DAYS))):
        columns = [f"{unit} of {years} years", f"false alarms per 1,000 {unit}", *found]
        rows = [_row(kind, each[number]) for kind, each in results.items()]
        parts.append(table([*columns, f"{unit} on holidays: marked"], rows))
    return Section("What is unusual", "python -m bench.unusual", "\n\n".join(parts))


def best_possible(rng: random.Random, draws: int = 4000) -> tuple[int, int]:
    """Return how many doubled hours of bursty traffic are above 999 of 1,000 ordinary hours.

    Returns:
        Their number, and the number of all doubled hours.
    """
    found = tried = 0
    for mean in bursty(rng).means[: 7 * HOURS]:
        if mean > BUSY:
            hours = sorted(events(rng, mean, BATCH) for _ in range(draws))
            limit = hours[draws * 999 // 1000]
            found += sum(2 * hour > limit for hour in hours)
            tried += draws
    return found, tried


def _text(best: str) -> str:
    return f"""
The next tables show how well [`expected=true`](history.md#what-is-unusual) tells ordinary traffic
from anomalies. Each kind of traffic is simulated for several years. The function `list_trend` and
this program compute the ranges with the same module.

- **Rhythm**: 200 events an hour on average, but 13 times as many in a busy hour as in a quiet hour,
  and fewer at weekends. Each day and each hour is also busier or quieter than usual, by
  {_whole(VARIATION)} (one standard deviation). All other kinds have the same rhythm.
- **Growth**: {GROWTH} times as many events at the end of the year as at its beginning: from 20 to
  400 an hour.
- **Holidays**: on 10 days of the year and 5 days at its end, only {_whole(HOLIDAY)} of the traffic.
- **Sparse**: one event in three hours.
- **Bursty**: events come in batches of {BATCH} on average. So the standard deviation is three
  times as great as that of independent events.

How the numbers are counted:

- A false alarm is an hour or a day that is marked as unusual, although the simulation did nothing
  unusual in it. A holiday that is marked is not a false alarm, because a holiday is unusual. The
  last column has the share of holidays that are marked.
- The columns "found" are from other runs over the same years. In these runs, one hour of
  {_RARE_HOURS}, or one day of {_RARE_DAYS}, has an anomaly. The ranges are computed from this
  history. Then every ordinary hour or day of the year is replaced by each anomaly in turn: half the
  increase, double the increase, no increase, and five times the increase.
- "Found" counts only hours and days in which more than {BUSY} events an hour are expected.
- The first four weeks of a year have no range, so they do not count.

One hour of bursty traffic varies so much that many doublings look like ordinary hours. A program
that knew the exact distribution, and raised one false alarm in 1,000 hours, would find only {best}
of the doubled hours. Days are easier: they average the batches.
""".strip()


def _row(kind: str, result: Result) -> list[object]:
    found = [_percent(result.found[name], result.tried) for name in ANOMALIES]
    marked = _percent(result.marked, result.holidays)
    return [kind, f"{result.false_alarms():.2f}", *found, marked]


def _whole(part: float) -> str:
    return f"{part:.0%}".replace("%", " %")


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}".replace("%", " %") if whole else "-"


if __name__ == "__main__":
    print(measure(*map(int, sys.argv[1:2])).markdown())
