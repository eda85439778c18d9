"""Audits counters: checks that a counter's history adds up to its value.

The state machine NightlyAudit invokes this function every night for all counters that changed. An
operator invokes it by hand to audit one counter.
"""

from dataclasses import asdict
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import audit, clients, clock, errors, init_phase, metrics, nightly_audit, rules
from counters.nightly_audit import NightlyAudit, Segment

logger = Logger(service="tally")

# An audit stops this many seconds before the function's timeout. In these seconds, it finishes the
# page of the history that it is checking, and saves its progress.
_MARGIN = 60


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
        or updates.

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
            case {"step": "audit", "segment": fields}:
                segment = Segment(**fields)
                nightly_audit.audit_segment(segment, until)
                return _logged(asdict(segment))
            case {"step": "end", "nightly": {"began_at": began_at, "segments": segments}}:
                nightly = NightlyAudit(began_at, [Segment(**fields) for fields in segments])
                return _published({**nightly_audit.end(nightly, until)})
        counter_id, after = _parameters(event)
        report = audit.audit_counter(counter_id, after, until)
    except errors.CounterError as error:
        # The person who invoked the function needs the text, not the stack trace.
        raise error.with_traceback(None) from None
    return _published({"counters": 1, **asdict(report)})


def _published(answer: dict[str, Any]) -> dict[str, Any]:
    """Log an answer, publish its numbers as metrics, and return it."""
    _logged(answer)
    found = answer["findings"]
    metrics.publish(
        {
            "CountersAudited": answer["counters"],
            "EntriesAudited": answer["entries"],
            "AuditFindings": found if isinstance(found, int) else len(found),
        }
    )
    return answer


def _logged(answer: dict[str, Any]) -> dict[str, Any]:
    logger.info(
        "audited %d counters, %d entries",
        answer["counters"],
        answer["entries"],
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
