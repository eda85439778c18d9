"""The search of the HTTP benchmark: the highest rate that a program keeps, and what stopped it."""

import pytest
from bench.http_load import LOWEST, PRECISION, Load, highest

MEDIAN = 20  # milliseconds


@pytest.mark.parametrize(
    ("p99", "answered", "failed", "reason"),
    [
        (200, 1, 0, "p99 of 200 ms or more"),
        (199, 0.94, 0, "less than 95% answered"),
        (199, 1, 1, "requests failed"),
        (300, 0.9, 2, "requests failed, less than 95% answered, p99 of 200 ms or more"),
        (float("nan"), 1, 0, "p99 of 200 ms or more"),
    ],
)
@pytest.mark.parametrize("capacity", [LOWEST, 6, 47, 1000])
def test_the_search_ends_between_a_rate_that_is_kept_and_one_that_is_not(
    capacity: int, p99: float, answered: float, failed: int, reason: str
) -> None:
    def load(rate: int) -> Load:
        if rate <= capacity:
            return Load(rate, 0.95 * rate, MEDIAN, 199, 0)
        return Load(rate, answered * rate, MEDIAN, p99, failed)

    idle, best, worst = highest(load)

    assert idle.asked == LOWEST
    assert best.asked <= capacity < worst.asked <= max(PRECISION * best.asked, best.asked + 1)
    assert best.too_high(10 * MEDIAN) == ""
    assert worst.too_high(10 * MEDIAN) == reason
