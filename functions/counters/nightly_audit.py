"""The nightly audit: audits all counters that changed since the last nightly audit.

The state machine NightlyAudit, in template.yaml, calls the functions of this module:
1. `begin` divides CounterTable into segments. Together, they have each counter exactly once:
   https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Scan.html#Scan.ParallelScan
2. For each segment, `audit_segment` audits counters until the segment is finished, the time is up,
   or something fails. Unless the segment is finished, the state machine calls the function again,
   with the segment that it returned.
3. `end` adds up the segments.

The state machine remembers how far each segment is and what was counted there. If a call fails, the
state machine repeats it with the same segment. So no counter is skipped, and none is counted twice.

A nightly audit is clean if all segments are finished and nothing was found. AuditTable stores only
when the last clean nightly audit began. After any other nightly audit, this time stays as it is. So
the next one covers the same counters again, and reports the same findings again.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass

from aws_lambda_powertools import Logger

from counters import audit, clock, progress, store, trend
from counters.errors import ThrottledError
from counters.history import STREAM_SECONDS

_FIRST_TIME = clock.timestamp(0)

logger = Logger(service="tally")


@dataclass(slots=True)
class Segment:
    """A segment of CounterTable, and how far the nightly audit is there.

    Attributes:
        number: the number of the segment, starting at 0.
        segments: the number of segments into which the table is divided.
        since: counters that changed at or after this time (RFC 3339) are audited.
        after: the place in the segment up to which all counters are audited: the name of a counter;
            empty at the beginning.
        counters: the number of counters that were audited.
        entries: the number of history entries that were read.
        findings: the number of mismatches that were found.
        finished: whether all counters of the segment are audited.
        error: the name of the error for which the state machine gave up the segment; otherwise
            empty.
    """

    number: int
    segments: int
    since: str
    after: str = ""
    counters: int = 0
    entries: int = 0
    findings: int = 0
    finished: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Night:
    """A nightly audit that begins.

    Attributes:
        began_at: when it began (RFC 3339).
        segments: all segments of CounterTable, not audited yet.
    """

    began_at: str
    segments: list[Segment]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a nightly audit.

    Attributes:
        counters: the number of counters that were audited.
        entries: the number of history entries that were read.
        findings: the number of mismatches that were found.
        finished: whether all segments are finished.
    """

    counters: int
    entries: int
    findings: int
    finished: bool


def begin(until: float) -> Night:
    """Divide CounterTable into segments. The parameter AuditSegments says how many.

    Args:
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    began_at = clock.timestamp(clock.now())
    last = clock.seconds(_last_began_at(progress.load(progress.NIGHTLY, until)))
    # When the last clean nightly audit began, the history may have lacked changes of the 25 hours
    # before. So this one also audits the counters that changed in those 25 hours.
    since = clock.timestamp(max(0.0, last - STREAM_SECONDS - trend.HOUR))
    count = int(os.environ["AUDIT_SEGMENTS"])
    return Night(began_at, [Segment(number, count, since) for number in range(count)])


def audit_segment(segment: Segment, until: float) -> None:
    """Audit the changed counters of a segment, from where the last call stopped.

    Args:
        segment: the segment. This function updates it. If it is not finished afterwards, call this
            function again.
        until: when to stop, in seconds since the epoch.

    Raises:
        Exception: if something failed, and the segment is where it was before. Otherwise, the error
            is only logged.
    """
    start = segment.after
    try:
        while not segment.finished and clock.now() <= until:
            _audit_page(segment, until)
    except Exception as error:
        if segment.after == start:
            raise
        # Return what was counted. If the error occurs again, the next call raises it.
        log = logger.warning if isinstance(error, ThrottledError) else logger.exception
        log("segment %d: stopped after %s: %s", segment.number, segment.after, error)


def _audit_page(segment: Segment, until: float) -> None:
    """Scan a part of the segment, and audit its changed counters until the time is up.

    Raises:
        ThrottledError: if DynamoDB did not answer in time. The segment has what was done before.
    """
    counter_ids, position = store.changed_since(
        segment.since,
        segment.number,
        segment.segments,
        segment.after,
        until + audit.FINISH_SECONDS,
    )
    for counter_id in counter_ids:
        if clock.now() > until:
            return
        report = audit.audit_counter(counter_id, None, until)
        segment.entries += report.entries
        if not report.finished:
            return  # the next call continues with this counter
        segment.counters += 1
        segment.findings += len(report.findings)
        segment.after = counter_id
    if position is None:
        segment.finished = True
    else:
        segment.after = position


def end(night: Night, audited: Iterable[Segment], until: float) -> Result:
    """Add up the segments. If the nightly audit is clean, save when it began.

    Args:
        night: the nightly audit, as `begin` returned it.
        audited: the segments as `audit_segment` left them. If one is missing, it is not finished.
        until: latest time to start a request, in seconds since the epoch.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    by_number = {segment.number: segment for segment in audited}
    segments = [by_number.get(segment.number, segment) for segment in night.segments]
    for segment in segments:
        if not segment.finished:
            why = segment.error or "its execution failed"
            logger.error("segment %d is not finished: %s", segment.number, why)
    result = Result(
        counters=sum(segment.counters for segment in segments),
        entries=sum(segment.entries for segment in segments),
        findings=sum(segment.findings for segment in segments),
        finished=all(segment.finished for segment in segments),
    )
    if result.finished and not result.findings:
        _save_began_at(night.began_at, until)
    return result


def _save_began_at(began_at: str, until: float) -> None:
    """Save when a nightly audit began, unless one that began later is saved already."""
    while True:
        saved = progress.load(progress.NIGHTLY, until)
        if _last_began_at(saved) >= began_at:
            return
        if progress.save(progress.NIGHTLY, json.dumps({"began_at": began_at}), saved, until):
            return


def _last_began_at(saved: str | None) -> str:
    """Return when the last clean nightly audit began (RFC 3339).

    In three cases, this is the year 1970, so the nightly audit covers all counters:
    - Nothing was saved.
    - The saved JSON is malformed.
    - The saved time is in the future, because the clock was wrong.
    """
    try:
        began_at = clock.seconds(progress.parsed(saved)["began_at"])
        is_past = began_at <= clock.now() + clock.CLOCK_DIFFERENCE
        return clock.timestamp(began_at) if is_past else _FIRST_TIME
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return _FIRST_TIME
