"""Audits: verify a counter from where its last audit stopped, and report every mismatch.

The module `verification` checks one counter. AuditTable stores how far each counter is verified
(see `progress`). The next audit of the counter continues there.

Several audits of a counter may run at the same time. An audit saves its progress only if no other
audit has saved progress since this audit started. If another audit has, this audit starts again,
from the progress that the other audit saved.
"""

from dataclasses import asdict, dataclass, field

from aws_lambda_powertools import Logger

from counters import clock, history, progress, store, trend
from counters.clients import must_answer
from counters.errors import InvalidRequestError, NotFoundError, ThrottledError
from counters.progress import Progress
from counters.verification import Finding, verify

# When the time for an audit is up, the audit finishes the page of the history that it is checking,
# and saves its progress. It may take this many seconds for that.
FINISH_SECONDS = 45

# An audit of a counter starts at most this many times. It starts again if another audit of the same
# counter has saved progress since this audit started.
_MOST_ATTEMPTS = 5

# A malformed item raises one of these errors.
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    InvalidRequestError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)

logger = Logger(service="tally")


@dataclass(frozen=True, slots=True)
class Report:
    """The result of the audit of a counter.

    Attributes:
        entries: the number of history entries that were read.
        finished: False if the time was up before the counter was audited completely.
        findings: the mismatches.
    """

    entries: int = 0
    finished: bool = True
    findings: list[Finding] = field(default_factory=list)


def audit_counter(counter_id: str, after: int | None, until: float) -> Report:
    """Audit a counter, save its new progress, and log each finding.

    Args:
        counter_id: the counter.
        after: begin after this version, and assume that all versions up to it are correct. None to
            continue from the saved progress.
        until: when to stop, in seconds since the epoch. The next audit continues from there.

    Raises:
        NotFoundError: if the history does not have the version `after`.
        ThrottledError: if DynamoDB did not answer in time. Also if `after` is given, and this audit
            could not save its progress, because other audits saved their progress first.
    """
    report = _audit(counter_id, after, until)
    for finding in report.findings:
        logger.error("audit finding: %s", finding.detail, extra={"finding": asdict(finding)})
    return report


def _audit(counter_id: str, after: int | None, until: float) -> Report:
    """Audit a counter and save its new progress, as `audit_counter` describes."""
    finish = until + FINISH_SECONDS
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        try:
            saved = progress.load(counter_id, finish)
            begin = (
                progress.from_json(saved)
                if after is None
                else _progress_after(counter_id, after, finish)
            )
            result = verify(counter_id, begin, until, finish)
        except _MALFORMED as error:
            # A malformed item must not stop the nightly audit.
            why = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            detail = f"an item of this counter is malformed: {why}"
            return Report(findings=[Finding(counter_id, detail)])
        verified = result.progress
        if not verified.seen_version or progress.save(
            counter_id, verified.to_json(), saved, finish
        ):
            break
        if attempt == _MOST_ATTEMPTS or clock.now() > until:
            if after is not None:
                detail = "after: other audits of this counter saved their progress first. Retry."
                raise ThrottledError(detail)
            break  # the next audit continues from the progress that other audits have saved
    return Report(result.entries, result.finished, result.findings)


def _progress_after(counter_id: str, after: int, until: float) -> Progress:
    """Return a progress from which an audit begins after the version `after`.

    Raises:
        NotFoundError: if neither the counter nor its history has the version `after`.
        ThrottledError: if DynamoDB did not answer in time.
    """
    if not after:
        return Progress()
    current = store.get(counter_id, until)
    if after > current.version:
        detail = f"after: must be at most {current.version}, the counter's version"
        raise NotFoundError(detail)
    value, created_at = current.value, current.updated_at
    if after < current.version:
        with must_answer():
            entries = history.read(counter_id, after, after, until)
        if not entries or entries[0].counter_created_at != current.created_at:
            detail = f"after: version {after} is not in the history. Use a version that is."
            raise NotFoundError(detail)
        value, created_at = entries[0].value, entries[0].created_at
    begin = Progress(after, value, created_at)
    if created_at:
        begin.skip(trend.hour_of(clock.seconds(created_at)))
    return begin
