"""Audits: verify counters from where the last audit stopped, and report every mismatch.

The module `verification` checks one counter. AuditTable stores how far each counter is verified
(see `progress`). The next audit of the counter continues there.

Several audits of a counter may run at the same time. An audit saves its progress only if no other
audit has saved progress since this audit started. If another audit has, this audit starts again,
from the progress that the other audit saved.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from aws_lambda_powertools import Logger

from counters import clock, history, progress, store, trend
from counters.clients import must_answer
from counters.errors import NotFoundError, ThrottledError
from counters.history import STREAM_SECONDS
from counters.progress import Progress
from counters.verification import Finding, verify

# When the time for an audit is up, the audit finishes the page of the history that it is checking,
# and saves its progress. It may take this many seconds for that.
_FINISH_SECONDS = 45

# An audit of a counter starts at most this many times. It starts again if another audit of the same
# counter has saved progress since this audit started.
_MOST_ATTEMPTS = 5

logger = Logger(service="tally")


@dataclass(slots=True)
class Report:
    """The result of an audit.

    Attributes:
        counters: the number of audited counters.
        entries: the number of history entries that were read.
        finished: False if the time was up before all counters were audited completely.
        findings: the mismatches. Each is also logged at once, because a later error can end the
            audit.
    """

    counters: int = 0
    entries: int = 0
    finished: bool = True
    findings: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Add a finding, and log it."""
        self.findings.append(finding)
        logger.error("audit finding: %s", finding.detail, extra={"finding": asdict(finding)})


def audit_changed(report: Report, until: float) -> None:
    """Do a sweep: audit all counters that changed since the last sweep.

    If the time is up before all of them are audited, the next call continues the same sweep.

    Args:
        report: the result is added to this report. If an error ends the audit, the report has what
            was found before.
        until: when the time is up, in seconds since the epoch.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    finish = until + _FINISH_SECONDS
    saved = progress.load(progress.SWEEP, finish)
    sweep = _sweep(saved)
    if "position" not in sweep:
        # When the last sweep began, the history may have lacked changes of the 25 hours before. So
        # this sweep also audits the counters that changed in those 25 hours.
        since = max(0.0, sweep.get("started_at", 0.0) - STREAM_SECONDS - trend.HOUR)
        sweep = {"since": since, "started_at": clock.now(), "position": ""}
    while sweep["position"] is not None:
        changed_since = clock.timestamp(sweep["since"])
        counter_ids, position = store.changed_since(changed_since, sweep["position"], finish)
        for counter_id in counter_ids:
            _audit(counter_id, None, until, report)
            report.counters += 1
            if clock.now() > until:
                report.finished = False
                return
        sweep["position"] = position
        state = json.dumps(sweep)
        if progress.save(progress.SWEEP, state, saved, finish):
            saved = state
        else:
            # Another sweep runs at the same time. Continue from its position.
            saved = progress.load(progress.SWEEP, finish)
            sweep = _sweep(saved)
            if "position" not in sweep:
                return  # the other sweep has finished
    # If this save is refused, another sweep has already saved that the sweep is finished.
    progress.save(progress.SWEEP, json.dumps({"started_at": sweep["started_at"]}), saved, finish)


def _sweep(saved: str | None) -> dict[str, Any]:
    """Return the saved state of the sweep. If it is malformed, the sweep begins again."""
    try:
        return progress.parsed(saved)
    except ValueError:
        return {}


def audit_counter(report: Report, counter_id: str, after: int | None, until: float) -> None:
    """Audit one counter.

    Args:
        report: the result is added to this report.
        counter_id: the counter.
        after: begin after this version, and assume that all versions up to it are correct. None to
            continue from the saved progress.
        until: when to stop, in seconds since the epoch. The next audit continues from there.

    Raises:
        NotFoundError: if the history does not have the version `after`.
        ThrottledError: if DynamoDB did not answer in time. Also if `after` is given, and this audit
            could not save its progress, because other audits saved their progress first.
    """
    _audit(counter_id, after, until, report)
    report.counters += 1


def _audit(counter_id: str, after: int | None, until: float, report: Report) -> None:
    """Audit a counter, save its new progress, and add the result to `report`.

    `audit_counter` describes `after`, `until` and the errors.
    """
    finish = until + _FINISH_SECONDS
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        try:
            saved = progress.load(counter_id, finish)
            begin = (
                progress.from_json(saved)
                if after is None
                else _progress_after(counter_id, after, finish)
            )
            result = verify(counter_id, begin, until, finish)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # do not stop the sweep
            why = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            detail = f"an item of this counter is malformed: {why}"
            report.add(Finding(counter_id, detail))
            return
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
    report.entries += result.entries
    report.finished = report.finished and result.finished
    for finding in result.findings:
        report.add(finding)


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
