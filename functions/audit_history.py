"""Audits counters: checks that a counter's history adds up to its value.

The state machine NightlyAudit invokes this function every night for all counters that changed. An
operator invokes it by hand to audit one counter.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, cast

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import audit, clients, clock, errors, init_phase, metrics, nightly_audit, rules
from counters.nightly_audit import Night, Result, Segment

logger = Logger(service="tally")

# An audit stops this many seconds before the function's timeout. In these seconds, it finishes the
# page of the history that it is checking, and saves its progress.
_MARGIN = 60

# The types of a segment's fields, and of those without which there is no segment.
_TYPES = {each.name: each.type for each in fields(Segment)}
_REQUIRED = {"number": int, "segments": int, "since": str}


def handler(event: Any, context: LambdaContext) -> dict[str, Any]:  # noqa: ANN401  any JSON value
    """Audit one counter, or do a step of a nightly audit (see `nightly_audit`).

    Args:
        event: a JSON object. To audit one counter, it has these fields:
            - `counter_id`: the counter;
            - `after` (optional): begin after this version of the counter, and assume that all
              versions up to it are correct. Without this field, the audit begins after the last
              version that an earlier audit verified.
            The state machine sends the name of a `step` instead, and what the step is about.
        context: the Lambda context. It tells how much time is left.

    Returns:
        For one counter: the number of `counters`, which is 1, and the members of `audit.Report`.
        For a step of a nightly audit: the value that the step's function in `nightly_audit` returns
        or updates. Only the last step publishes metrics.

    Raises:
        InvalidRequestError: if the event is malformed.
        NotFoundError: if the history does not have the version `after`.
        ThrottledError: if DynamoDB did not answer in time.
    """
    until = clock.deadline(context, _MARGIN)
    try:
        match event:
            case {"step": "begin"}:
                return asdict(nightly_audit.begin(until))
            case {"step": "audit", "segment": item}:
                segment = _segment(item)
                nightly_audit.audit_segment(segment, until)
                return _logged(
                    f"segment {segment.number}: audited {segment.counters} counters",
                    asdict(segment),
                    segment.findings,
                )
            case {"step": "end", "nightly": dict() as nightly}:
                audited = _audited(nightly)
                return _published(nightly_audit.end(_night(nightly), audited, until))
        counter_id, after = _parameters(event)
        report = audit.audit_counter(counter_id, after, until)
    except errors.CounterError as error:
        # The person who invoked the function needs the text, not the stack trace.
        raise error.with_traceback(None) from None
    answer = {"counters": 1, **asdict(report)}
    return _logged(f"audited counter {counter_id}", answer, len(report.findings))


def _night(nightly: Mapping[str, Any]) -> Night:
    """Return the nightly audit that the step `begin` returned.

    Raises:
        InvalidRequestError: if it is malformed, has no segments, or began in the future.
    """
    began_at, segments = nightly.get("began_at"), nightly.get("segments")
    latest = clock.now() + clock.CLOCK_DIFFERENCE
    if not isinstance(began_at, str) or rules.time("began_at", began_at) > latest:
        rules.invalid("began_at", "must be a time that is not in the future")
    if not isinstance(segments, list) or not segments:
        rules.invalid("segments", "must be a list of segments")
    return Night(began_at, [_segment(item) for item in segments])


def _audited(nightly: Mapping[str, Any]) -> list[Segment]:
    """Return the segments in the state machine's result.

    If a child execution failed, the result has a description of that execution, or null, in place
    of the segment. These items are left out.
    https://docs.aws.amazon.com/step-functions/latest/dg/input-output-resultwriter.html

    Raises:
        InvalidRequestError: if the result is malformed.
    """
    items = nightly.get("audited", [])
    if not isinstance(items, list):
        rules.invalid("audited", "must be a list of segments")
    return [_segment(item) for item in items if isinstance(item, dict) and "number" in item]


def _segment(item: object) -> Segment:
    """Return the segment in an event.

    Raises:
        InvalidRequestError: if the segment is malformed.
    """
    members = rules.fields("segment", item)
    types = {name: type(value) for name, value in members.items()}
    if not _REQUIRED.items() <= types.items() <= _TYPES.items():
        rules.invalid("segment", "must be a segment that the step begin or audit returned")
    return Segment(**cast("dict[str, Any]", members))


def _published(result: Result) -> dict[str, Any]:
    """Log the result of a nightly audit, publish its numbers as metrics, and return it."""
    numbers = {"CountersAudited": result.counters, "EntriesAudited": result.entries}
    # AuditFindingAlarm is over when this metric is 0. So 0 must mean that all counters are audited.
    if result.finished or result.findings:
        numbers |= {"AuditFindings": result.findings}
    metrics.publish(numbers)
    return _logged(f"nightly audit: {result.counters} counters", asdict(result), result.findings)


def _logged(what: str, answer: dict[str, Any], findings: int) -> dict[str, Any]:
    """Log what was audited and the answer of the invocation, and return the answer."""
    logger.info(
        "%s, %d entries, %d findings",
        what,
        answer["entries"],
        findings,
        extra={"answer": answer},
    )
    return answer


def _parameters(event: object) -> tuple[str, int | None]:
    """Return the fields `counter_id` and `after` of the event. If `after` is missing, it is None.

    Raises:
        InvalidRequestError: if the event is malformed.
    """
    fields = rules.fields("event", event)
    rules.only(["counter_id", "after"], fields)
    if "counter_id" not in fields:
        rules.invalid("counter_id", "is missing. To audit all counters, start NightlyAudit.")
    counter_id = rules.counter_id(fields["counter_id"])
    if "after" not in fields:
        return counter_id, None
    after = rules.integer("after", fields["after"])
    if after < 0:
        rules.invalid("after", "must be 0 or greater")
    return counter_id, after


init_phase.end(clients.dynamodb)
