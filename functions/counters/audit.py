"""Audits: check that a counter's history adds up to its value, and report every mismatch.

The versions must have no gap, each change must add up and continue the one before it, the last one
must be the counter's last change, and the trend must be the sum of all. What is missing is no
finding as long as the stream may still bring it. AuditTable keeps how far each counter was found
good, and the next audit continues there.

Audits may run at the same time. An audit saves its progress only if no other audit has saved since
it began. Otherwise it begins again from the progress that the other has saved.
"""

import copy
import json
from dataclasses import asdict, dataclass, field

from counters import audits, clock, history, store, trend
from counters.audits import Progress
from counters.clients import reading
from counters.errors import NotFoundError, ThrottledError
from counters.history import STREAM_SECONDS
from counters.model import Entry, Period, Sums

# What an audit may take after its time to stop, in seconds: for what it has begun, and to save.
_FINISH_SECONDS = 45

MOST_FINDINGS = 100  # of one counter; the rest is not looked for

# How often an audit of a counter begins again because another has saved something meanwhile.
_MOST_ATTEMPTS = 5

_HOUR = trend.HOUR


@dataclass(frozen=True, slots=True)
class Finding:
    """What does not fit: at a version, or in the trend's hour that begins then (RFC 3339)."""

    counter_id: str
    detail: str
    version: int | None = None
    hour: str | None = None


@dataclass(slots=True)
class Report:
    """What an audit did: `finished` unless its time was up before it was through."""

    counters: int = 0
    entries: int = 0
    finished: bool = True
    findings: list[Finding] = field(default_factory=list)


def audit_changed(until: float) -> Report:
    """Audit the counters that have changed since the last time, and those that were too new then.

    Args:
        until: when the audit is to stop, in seconds since the epoch; the next goes on from there.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    report = Report()
    finish = until + _FINISH_SECONDS
    saved = audits.load(audits.SWEEP, finish)
    sweep = audits.parsed(saved)
    if "position" not in sweep:
        # Of those that had changed just before the last time, the history could be incomplete.
        since = max(0.0, sweep.get("started_at", 0.0) - STREAM_SECONDS - _HOUR)
        sweep = {"since": since, "started_at": clock.now(), "position": ""}
    while sweep["position"] is not None:
        changed_since = clock.timestamp(sweep["since"])
        counter_ids, position = store.changed_since(changed_since, sweep["position"], finish)
        for counter_id in counter_ids:
            _audit(counter_id, None, until, report)
            report.counters += 1
            if clock.now() > until:
                report.finished = False
                return report
        sweep["position"] = position
        here = json.dumps(sweep)
        if audits.save(audits.SWEEP, here, saved, finish):
            saved = here
        else:
            # Another audit goes through the counters as well. Go on from where it is.
            saved = audits.load(audits.SWEEP, finish)
            sweep = audits.parsed(saved)
            if "position" not in sweep:
                return report  # it has come to the end
    # If this is refused, another audit has done it.
    audits.save(audits.SWEEP, json.dumps({"started_at": sweep["started_at"]}), saved, finish)
    return report


def audit_counter(counter_id: str, after: int | None, until: float) -> Report:
    """Audit one counter.

    Args:
        counter_id: the counter.
        after: take it as good up to this version; None to go on from where it was found good.
        until: when the audit is to stop, in seconds since the epoch; the next goes on from there.

    Raises:
        NotFoundError: the history has no such version to begin after.
        ThrottledError: the database did not answer, or `after` was not saved, due to other audits.
    """
    report = Report(counters=1)
    _audit(counter_id, after, until, report)
    return report


def _audit(counter_id: str, after: int | None, until: float, report: Report) -> None:
    """Audit a counter from where it was found good, or `after`; save how far it is good by now.

    Raises:
        NotFoundError: there is no such version to begin after.
        ThrottledError: `after` was not saved, because other audits of the counter saved meanwhile.
    """
    finish = until + _FINISH_SECONDS
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        found = Report()
        try:
            saved = audits.load(counter_id, finish)
            begin = (
                audits.from_json(saved)
                if after is None
                else _progress_after(counter_id, after, finish)
            )
            good = _audit_from(counter_id, begin, until, found)
        except (KeyError, TypeError, ValueError) as error:  # the others are audited all the same
            why = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            detail = f"an item of the counter is not as Tally writes it: {why}"
            found.findings.append(Finding(counter_id, detail))
            break
        if not good.seen_version or audits.save(counter_id, good.to_json(), saved, finish):
            break
        if attempt == _MOST_ATTEMPTS or clock.now() > until:
            if after is not None:
                detail = "after: other audits of this counter saved meanwhile. Retry."
                raise ThrottledError(detail)
            break  # the next audit goes on from what the others have saved
    report.entries += found.entries
    report.finished = report.finished and found.finished
    report.findings += found.findings


def _progress_after(counter_id: str, after: int, until: float) -> Progress:
    """Return the progress of a counter that is taken as good up to the version `after`.

    Raises:
        NotFoundError: neither the counter nor its history has that version.
        ThrottledError: if DynamoDB did not answer in time.
    """
    if not after:
        return Progress()
    standing = store.get(counter_id, until)
    if after > standing.version:
        detail = f"after: must be at most {standing.version}, the counter's version"
        raise NotFoundError(detail)
    value, created_at = standing.value, standing.updated_at
    if after < standing.version:
        with reading():
            entries = history.read(counter_id, after, after, until)
        if not entries or entries[0].counter_created_at != standing.created_at:
            detail = f"after: version {after} is not in the history. Use a version that is."
            raise NotFoundError(detail)
        value, created_at = entries[0].value, entries[0].created_at
    progress = Progress(after, value, created_at)
    if created_at:
        progress.skip(trend.hour_of(clock.seconds(created_at)))
    return progress


def _audit_from(counter_id: str, progress: Progress, until: float, report: Report) -> Progress:
    """Audit a counter from where it was found good; return how far it is good by now."""
    finish = until + _FINISH_SECONDS
    audit = _Audit(counter_id, progress, finish)
    good = copy.deepcopy(progress)
    finished = False
    for page in history.pages(counter_id, progress.version, finish):
        for version, entry in page:
            if not audit.waits:
                audit.look_at(version, entry)
        report.entries += len(page)
        if audit.progress.created_at:
            # No change behind it can have begun before.
            begun = clock.seconds(audit.progress.created_at) - clock.APPLY_WINDOW
            audit.compare_trend(begun)
        if not audit.findings:
            good = copy.deepcopy(audit.progress)
        if audit.waits:
            finished = True
            break
        if len(audit.findings) >= MOST_FINDINGS or clock.now() > until:
            break
    else:
        finished = True
        audit.look_at_the_end()
        if not audit.findings:
            good = audit.progress
    report.finished = finished or bool(audit.findings)
    report.findings = audit.findings[:MOST_FINDINGS]
    audit.note_version(good)
    return good


class _Audit:
    """One audit of one counter: how far it is, and what it has found.

    It `waits` if the stream may still bring the next version. The next audit continues there.
    """

    def __init__(self, counter_id: str, progress: Progress, until: float) -> None:
        self.counter_id = counter_id
        self.progress = progress
        self.findings: list[Finding] = []
        self.waits = False
        self._until = until
        self._read_counter()

    def look_at(self, version: str, entry: Entry | None) -> None:
        """Look at the next entry; None if it cannot be read, `version` being its key."""
        progress = self.progress
        if entry is None:
            self._find(f"the entry of version {version} is none of the service's")
            if version == str(progress.version + 1):
                progress.version += 1
                progress.value = progress.request_id = None
            return
        if entry.version > self.standing.version:
            self._read_counter()
        if progress.version + 1 < entry.version <= self.standing.version:
            self.waits = not history.is_settled(entry.created_at, self.read_at)
            if self.waits:
                return
        if entry.version < 1 or entry.version > self.standing.version:
            self._find(
                f"version {version} is in the history, but not of the counter", entry.version
            )
            return
        if entry.version != progress.version + 1:
            self._look_at_gap(entry)
        elif progress.value is not None and entry.previous_value != progress.value:
            detail = (
                f"version {version} goes on from {entry.previous_value}, but the version before it"
                f" left {progress.value}"
            )
            self._find(detail, entry.version)
        if entry.counter_created_at != self.standing.created_at:
            detail = f"version {version} is of a counter that was created at"
            detail += f" {entry.counter_created_at}, and not at {self.standing.created_at}"
            self._find(detail, entry.version)
        self._check_sums(entry)
        progress.add(entry)

    def _check_sums(self, entry: Entry) -> None:
        """Check that an entry adds up in itself."""
        detail = f"version {entry.version} does not add up: "
        if entry.previous_value + entry.by != entry.value:
            detail += f"{entry.previous_value} and {entry.by} are not {entry.value}"
            self._find(detail, entry.version)
        elif min(entry.increase, entry.decrease) < 0 or (
            entry.increase - entry.decrease != entry.by
        ):
            detail += f"an increase of {entry.increase} and a decrease of {entry.decrease}"
            self._find(f"{detail} are not {entry.by}", entry.version)

    def look_at_the_end(self) -> None:
        """Look whether what was audited is all that the counter went through."""
        progress, standing = self.progress, self.standing
        if progress.version < standing.version:
            if history.is_settled(standing.updated_at or "", self.read_at):
                self._find_missing(progress.version + 1, standing.version)
            elif progress.version < progress.seen_version and (
                history.is_settled(progress.seen_at, self.read_at)
            ):
                self._find_missing(progress.version + 1, progress.seen_version)
            return
        if progress.version > standing.version:
            detail = f"the counter has version {standing.version}, but {progress.version} was there"
            self._find(detail, progress.version)
            return
        if progress.value is not None and progress.value != standing.value:
            detail = f"version {progress.version} left {progress.value}, but the counter stands at"
            self._find(f"{detail} {standing.value}", progress.version)
        elif progress.request_id is not None and (progress.request_id, progress.created_at) != (
            self.last_change,
            standing.updated_at,
        ):
            detail = (
                f"version {progress.version} of the history is another change than the counter's"
            )
            self._find(detail, progress.version)
        # All that is missing was not made, or not begun, when the counter was read.
        self.compare_trend(self.read_at - clock.APPLY_WINDOW)
        self._compare_last_hours()

    def note_version(self, good: Progress) -> None:
        """Note which version the counter has, if the last noted one is in the history."""
        if good.version >= good.seen_version:
            good.seen_version, good.seen_at = self.standing.version, clock.timestamp(self.read_at)

    def compare_trend(self, time: float) -> None:
        """Compare the trend's hours that end before a time, to which the history is complete."""
        progress = self.progress
        end = time // _HOUR * _HOUR
        if end <= progress.compared:
            return
        period = Period(progress.compared, end)
        hours = dict(trend.hours(self.counter_id, period, self._until, consistent=True))
        for hour in sorted(hours.keys() | {each for each in progress.hours if each < end}):
            folded, recorded = hours.get(hour, Sums()), progress.hours.get(hour, Sums())
            if folded != recorded:
                if self._may_come(folded, recorded, hour):
                    progress.compared = hour
                    return
                self._find_wrong_hour(hour, folded, recorded)
            progress.hours.pop(hour, None)
        progress.compared = end

    def _compare_last_hours(self) -> None:
        """Compare those of the trend's last hours into which the same is folded."""
        for hour, recorded in self.progress.hours.items():
            period = Period(hour, hour + _HOUR)
            for _, folded in trend.hours(self.counter_id, period, self._until, consistent=True):
                if folded.last_version == recorded.last_version and folded != recorded:
                    self._find_wrong_hour(hour, folded, recorded)

    def _may_come(self, folded: Sums, recorded: Sums, hour: float) -> bool:
        """Return whether the stream may still bring what an hour of the trend lacks."""
        behind = (folded.last_version or 0) < (recorded.last_version or 0)
        return behind and self.read_at < hour + _HOUR + STREAM_SECONDS

    def _look_at_gap(self, entry: Entry) -> None:
        """Find what is missing before an entry, unless it can have expired."""
        progress = self.progress
        if not history.expired(progress.created_at or entry.counter_created_at):
            self._find_missing(progress.version + 1, entry.version - 1)
        if progress.created_at:
            self.compare_trend(clock.seconds(progress.created_at) - clock.APPLY_WINDOW)
        # What is missing may be in the trend.
        progress.skip(trend.hour_of(entry.time))

    def _read_counter(self) -> None:
        self.read_at = clock.now()
        self.standing, self.last_change = store.read(self.counter_id, self._until)

    def _find_missing(self, first: int, last: int) -> None:
        if first == last:
            self._find(f"version {first} is missing", first)
        else:
            self._find(f"the versions from {first} to {last} are missing", first)

    def _find_wrong_hour(self, hour: float, folded: Sums, recorded: Sums) -> None:
        start = clock.timestamp(hour)
        if not folded.changes:
            detail = f"the trend lacks the hour {start}: the history adds up to {_words(recorded)}"
        elif not recorded.changes:
            detail = f"the trend of the hour {start} has {_words(folded)}"
            detail += ", but the history has nothing"
        else:
            detail = f"the trend of the hour {start} has {_words(folded)}"
            detail += f", but the history adds up to {_words(recorded)}"
        version = recorded.first_version or folded.first_version
        self.findings.append(Finding(self.counter_id, detail, version, start))

    def _find(self, detail: str, version: int | None = None) -> None:
        self.findings.append(Finding(self.counter_id, detail, version))


def _words(sums: Sums) -> str:
    """Return sums as text, by the names that the trend's JSON has for them."""
    return ", ".join(f"{name} {value}" for name, value in asdict(sums).items())
