"""Nightly, or by hand for one counter: does the history prove the counter?"""

from dataclasses import asdict
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import audit, clients, clock, errors, init_phase, metrics, rules

logger = Logger(service="tally")

_MARGIN = 60  # seconds before the timeout: for a page of the history, and to save how far it came


def handler(event: object, context: LambdaContext) -> dict[str, Any]:
    """Audit the counter of the event, or those that have changed since the last run.

    Args:
        event: `counter_id`, and `after`, a version up to which that counter is taken as good; both
            may be missing.
        context: tells how much time there is.

    Returns:
        How many counters and entries were audited, whether it was through when its time was up, and
        what does not fit (the first hundred findings).

    Raises:
        InvalidRequestError: the event is malformed.
        NotFoundError: the history does not have that version.
        ThrottledError: if DynamoDB did not answer in time.
    """
    try:
        counter_id, after = _asked(event)
        until = clock.deadline(context, _MARGIN)
        if counter_id is None:
            report = audit.audit_changed(until)
        else:
            report = audit.audit_counter(counter_id, after, until)
    except errors.CounterError as error:
        # Whoever invoked it by hand reads the text, and needs no stack trace.
        raise error.with_traceback(None) from None
    findings = len(report.findings)
    report.findings = report.findings[: audit.MOST_FINDINGS]
    for finding in report.findings:
        logger.error("audit finding: %s", finding.detail, extra={"finding": asdict(finding)})
    answer = asdict(report)
    logger.info(
        "audited %d counters, %d entries, %d findings",
        report.counters,
        report.entries,
        findings,
        extra={"answer": answer},
    )
    metrics.publish(
        {
            "CountersAudited": report.counters,
            "EntriesAudited": report.entries,
            "AuditFindings": findings,
        }
    )
    return answer


def _asked(event: object) -> tuple[str | None, int | None]:
    """Return the event's counter_id and after; None for what it does not have.

    Raises:
        InvalidRequestError: it is malformed.
    """
    fields = rules.fields("event", event)
    rules.only(["counter_id", "after"], fields)
    if "counter_id" not in fields:
        if "after" in fields:
            rules.invalid("after", "needs counter_id")
        return None, None
    counter_id = rules.counter_id(fields["counter_id"])
    if "after" not in fields:
        return counter_id, None
    after = rules.integer("after", fields["after"])
    if after < 0:
        rules.invalid("after", "must be 0 or greater")
    return counter_id, after


init_phase.end(clients.dynamodb)
