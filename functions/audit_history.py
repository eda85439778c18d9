"""Audits counters: checks that a counter's history adds up to its value.

Lambda runs this function every night for all counters that changed. Run it by hand to audit one
counter.
"""

from dataclasses import asdict
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import audit, clients, clock, errors, init_phase, metrics, rules, verification

logger = Logger(service="tally")

# An audit stops this many seconds before the function's timeout. In these seconds, it finishes the
# page of the history that it is checking, and saves its progress.
_MARGIN = 60


def handler(event: object, context: LambdaContext) -> dict[str, Any]:
    """Audit one counter, or all counters that changed since the last audit of all counters.

    Args:
        event: a JSON object with two optional fields:
            - `counter_id`: audit only this counter;
            - `after`: begin after this version of the counter, and assume that all versions up to
              it are correct. Without this field, the audit begins after the last version that an
              earlier audit verified.
        context: the Lambda context. It tells how much time is left.

    Returns:
        The members of `audit.Report`, with at most 100 findings.

    Raises:
        InvalidRequestError: if the event is malformed.
        NotFoundError: if the history does not have the version `after`.
        ThrottledError: if DynamoDB did not answer in time.
    """
    report = audit.Report()
    succeeded = False
    try:
        counter_id, after = _parameters(event)
        until = clock.deadline(context, _MARGIN)
        if counter_id is None:
            audit.audit_changed(report, until)
        else:
            audit.audit_counter(report, counter_id, after, until)
        succeeded = True
    except errors.CounterError as error:
        # The person who invoked the function needs the text, not the stack trace.
        raise error.with_traceback(None) from None
    finally:
        if succeeded or report.findings:  # an audit that fails must not hide what it found
            _publish(report)
    answer = asdict(report)
    answer["findings"] = answer["findings"][: verification.MOST_FINDINGS]
    logger.info(
        "audited %d counters, %d entries, %d findings",
        report.counters,
        report.entries,
        len(report.findings),
        extra={"answer": answer},
    )
    return answer


def _publish(report: audit.Report) -> None:
    metrics.publish(
        {
            "CountersAudited": report.counters,
            "EntriesAudited": report.entries,
            "AuditFindings": len(report.findings),
        }
    )


def _parameters(event: object) -> tuple[str | None, int | None]:
    """Return the fields `counter_id` and `after` of the event. A missing field is None.

    Raises:
        InvalidRequestError: if the event is malformed.
    """
    fields = rules.fields("event", event)
    rules.only(["counter_id", "after"], fields)
    if "counter_id" not in fields:
        if "after" in fields:
            rules.invalid("after", "must be given together with counter_id")
        return None, None
    counter_id = rules.counter_id(fields["counter_id"])
    if "after" not in fields:
        return counter_id, None
    after = rules.integer("after", fields["after"])
    if after < 0:
        rules.invalid("after", "must be 0 or greater")
    return counter_id, after


init_phase.end(clients.dynamodb)
