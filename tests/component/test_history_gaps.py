"""Reads of a history in which versions are missing.

- If RecordHistory may still write a missing version, a read ends before that version.
- If RecordHistory can no longer write a missing version, a read skips that version.
"""

import itertools
from collections.abc import Callable, Iterator

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef
from tests.component.links import target
from tests.component.partial_history import (
    get_history,
    is_throttled,
    make_counter,
    only_written,
    record_without_trend,
    versions,
)
from tests.contents import delete_entries, prepare_once
from tests.past import START, Past
from tests.stack import Item, Stack
from tests.times import DAY, HOUR
from tests.wire import Wire, delivered, denied

from counters import clock
from counters.model import MAX_INTEGER

APPLY_WINDOW = 20  # seconds


@pytest.fixture
def history_without_13(stack: Stack, wire: Wire, set_clock: Callable[[float], None]) -> Past:
    """A counter with 20 changes. The history lacks version 13. The trend has only versions 1-10."""
    set_clock(START + HOUR)
    past = make_counter(20)

    def record() -> None:
        past.record(stack, past.records[:10])
        record_without_trend(stack, wire, past, 11, 20)
        delete_entries(stack, 13)

    prepare_once(stack, "orders without version 13", record)
    return past


@pytest.mark.usefixtures("history_without_13")
@pytest.mark.parametrize("period", ["", "&from=2025-01-15T08:00:00Z"])
def test_an_ascending_page_ends_before_a_version_that_can_still_be_recorded(
    stack: Stack, period: str
) -> None:
    for limit in (12, 13, 1000):
        reply = get_history(stack, f"limit={limit}{period}")
        assert versions(reply) == list(range(1, 13))
        assert "Link" not in reply.headers
    assert versions(get_history(stack, f"limit=11{period}")) == list(range(1, 12))
    assert "Link" in get_history(stack, f"limit=11{period}").headers
    assert versions(get_history(stack, f"after=12{period}")) == []
    assert versions(get_history(stack, f"after=13{period}")) == list(range(14, 21))


@pytest.mark.usefixtures("history_without_13")
@pytest.mark.parametrize("period", ["", "&to=2025-01-15T08:10:00Z"])
def test_a_descending_page_ends_before_a_version_that_can_still_be_recorded(
    stack: Stack, period: str
) -> None:
    for limit in (7, 8, 1000):
        reply = get_history(stack, f"order=desc&limit={limit}{period}")
        assert versions(reply) == list(range(20, 13, -1))
        assert "after=14" in target(reply.headers["Link"])
    reply = get_history(stack, f"order=desc&after=14{period}")
    assert is_throttled(reply)
    assert reply.headers["Retry-After"] == "1"
    assert versions(get_history(stack, f"order=desc&after=13{period}")) == list(range(12, 0, -1))


def minutes(stack: Stack) -> tuple[int, int | None]:
    """Return the number of changes in the trend by minute, and the last version in this trend."""
    start, end = clock.timestamp(START), clock.timestamp(START + 600)
    query = f"interval=minute&from={start}&to={end}"
    reply = stack.request("GET", "/counters/orders/trend", query=query)
    assert reply.status == 200, reply.body
    buckets = [bucket for bucket in reply.body if bucket["changes"]]
    return sum(bucket["changes"] for bucket in buckets), buckets[-1]["last_version"]


def test_minutes_end_before_a_version_that_can_still_be_recorded(
    stack: Stack, wire: Wire, history_without_13: Past
) -> None:
    assert minutes(stack) == (12, 12)

    record_without_trend(stack, wire, history_without_13, 13, 13)
    assert minutes(stack) == (20, 20)


def test_minutes_skip_a_version_that_was_parked(stack: Stack, history_without_13: Past) -> None:
    # RecordHistory adds a version to the trend only after it has recorded or parked all earlier
    # versions. To park a record is to move it to the dead-letter queue. The trend gets version 14
    # here, so version 13 was parked.
    history_without_13.record(stack, history_without_13.records[13:])

    assert minutes(stack) == (19, 20)


@pytest.mark.parametrize("position", range(8))
def test_minutes_have_no_gap_if_a_missing_version_is_recorded_during_the_read(
    stack: Stack, wire: Wire, history_without_13: Past, position: int
) -> None:
    queries = itertools.count()

    def then_recorded(request: AWSPreparedRequest) -> AWSResponse:
        response = delivered(request)
        if next(queries) == position:
            history_without_13.record(stack)
        return response

    wire.fail("Query", itertools.repeat(then_recorded))

    assert minutes(stack) in {(12, 12), (20, 20)}


def test_the_next_page_begins_with_a_version_that_was_missing_before(
    stack: Stack, wire: Wire, history_without_13: Past
) -> None:
    record_without_trend(stack, wire, history_without_13, 13, 13)

    assert versions(get_history(stack, "after=12")) == list(range(13, 21))
    assert versions(get_history(stack, "order=desc&after=14")) == list(range(13, 0, -1))


def test_a_gap_below_the_last_version_in_the_trend_is_skipped(
    stack: Stack, history_without_13: Past
) -> None:
    without_13 = [*range(1, 13), *range(14, 21)]
    assert stack.record(history_without_13.records[10:12] + history_without_13.records[13:14]) == 3

    # The trend has version 14. So RecordHistory has parked version 13: moved its record to the
    # dead-letter queue.
    assert versions(get_history(stack)) == without_13
    assert versions(get_history(stack, "order=desc")) == without_13[::-1]
    assert versions(get_history(stack, "order=desc&after=14")) == without_13[11::-1]


@pytest.mark.usefixtures("history_without_13")
def test_a_gap_older_than_the_stream_is_skipped(
    stack: Stack, set_clock: Callable[[float], None]
) -> None:
    next_change = START + 13  # the time of version 14
    without_13 = [*range(1, 13), *range(14, 21)]

    set_clock(next_change + DAY + APPLY_WINDOW)
    assert versions(get_history(stack)) == list(range(1, 13))
    assert is_throttled(get_history(stack, "order=desc&after=14"))
    set_clock(next_change + DAY + APPLY_WINDOW + 0.001)
    assert versions(get_history(stack)) == without_13
    assert versions(get_history(stack, "order=desc&after=14")) == without_13[11::-1]


@pytest.mark.usefixtures("history_without_13")
def test_a_descending_page_from_above_all_versions_begins_at_the_newest(stack: Stack) -> None:
    for after in (MAX_INTEGER, MAX_INTEGER - 1, 1000, 21):
        assert versions(get_history(stack, f"order=desc&limit=3&after={after}")) == [20, 19, 18]


@pytest.mark.usefixtures("history_without_13")
@pytest.mark.parametrize("last_version", [None, {"S": "many"}, {"N": "0.5"}], ids=str)
def test_a_malformed_hour_of_the_trend_does_not_close_a_gap(
    stack: Stack, last_version: AttributeValueTypeDef | None
) -> None:
    item: Item = {"counter_id": {"S": "orders"}, "hour": {"S": clock.timestamp(START + HOUR)}}
    if last_version:
        item["last_version"] = last_version
    stack.dynamodb.put_item(TableName=stack.refs["TrendTable"], Item=item)

    assert versions(get_history(stack)) == list(range(1, 13))


@pytest.mark.usefixtures("history_without_13")
def test_no_page_skips_a_first_version_that_can_still_be_recorded(stack: Stack, wire: Wire) -> None:
    past = make_counter(3, name="new")
    wire.fail("BatchWriteItem", [only_written({1, 2}), denied])
    assert stack.record(past.records) == 0

    assert versions(get_history(stack, name="new")) == []
    reply = get_history(stack, "order=desc", name="new")
    assert versions(reply) == [3, 2]
    assert "after=2" in target(reply.headers["Link"])
    assert is_throttled(get_history(stack, "order=desc&after=2", name="new"))

    past.record(stack)
    assert versions(get_history(stack, "order=desc&after=2", name="new")) == [1]


@pytest.mark.usefixtures("set_clock")
@pytest.mark.parametrize("parked", [{1}, {1, 2, 3}, {5}, {4, 5, 9}, {19}, {10, 11, 12, 20}])
def test_pages_skip_the_versions_of_parked_records(stack: Stack, parked: set[int]) -> None:
    past = make_counter(20)
    for version in parked:
        del past.records[version - 1]["dynamodb"]["NewImage"]
    past.record(stack)
    present = [version for version in range(1, 21) if version not in parked]

    for limit in (1, 3, 1000):
        assert list(every_version(stack, f"limit={limit}")) == present
        assert list(every_version(stack, f"limit={limit}&order=desc")) == present[::-1]


def every_version(stack: Stack, query: str) -> Iterator[int]:
    """Read the history page by page, and yield the versions on all pages."""
    while query:
        reply = get_history(stack, query)
        yield from versions(reply)
        link = reply.headers.get("Link")
        query = target(link).removeprefix("?") if link else ""


@pytest.mark.usefixtures("set_clock")
def test_an_ascending_page_has_versions_above_a_parked_version_only_when_the_trend_has_them(
    stack: Stack, wire: Wire
) -> None:
    past = make_counter(9)
    del past.records[4]["dynamodb"]["NewImage"]
    past.record(stack, past.records[:5])
    record_without_trend(stack, wire, past, 6, 9)

    assert versions(get_history(stack)) == [1, 2, 3, 4]
    assert versions(get_history(stack, "order=desc")) == [9, 8, 7, 6]

    past.record(stack, past.records[5:])
    assert versions(get_history(stack)) == [1, 2, 3, 4, 6, 7, 8, 9]
