"""Nightly, or by hand for one counter: does the history prove the counter?"""

from dataclasses import asdict
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import audit, clients, clock, init_phase, metrics, model

logger = Logger(service="tally")

_MARGIN = 60  # seconds before the timeout: for a page of the history, and to save how far it came


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
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
        ThrottledError: the database did not answer.
    """
    unknown = event.keys() - {"counter_id", "after"}
    if unknown or ("after" in event and "counter_id" not in event):
        detail = "the event may have a counter_id and, with it, after"
        raise model.InvalidRequestError(detail)
    until = clock.deadline(context, _MARGIN)
    if "counter_id" in event:
        after = _after(event["after"]) if "after" in event else None
        report = audit.audit_counter(model.counter_id(event["counter_id"]), after, until)
    else:
        report = audit.audit_changed(until)
    findings = len(report.findings)
    report.findings = report.findings[: audit.MOST_FINDINGS]
    for finding in report.findings:
        logger.error("audit finding: %s", finding.detail, extra={"finding": asdict(finding)})
    logger.info(
        "audited %d counters, %d entries, %d findings",
        report.counters,
        report.entries,
        findings,
        extra={"finished": report.finished},
    )
    metrics.publish(
        {
            "CountersAudited": report.counters,
            "EntriesAudited": report.entries,
            "AuditFindings": findings,
        }
    )
    return asdict(report)


def _after(value: object) -> int:
    after = model.integer("after", value)
    if after < 0:
        model.invalid("after", "must be a version")
    return after


init_phase.end(clients.dynamodb)
