"""Audits: check that a counter's history adds up to its value, and report every mismatch.

The versions must have no gap, each change must add up and continue the one before it, the last one
must be the counter's last change, and the trend must be the sum of all. What is missing is no
finding as long as the stream may still bring it. AuditTable keeps how far each counter was found
good, and the next audit continues there.
"""

import copy
import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from counters import clock, history, store, timeline, trend
from counters.clients import answered, dynamodb, reading
from counters.history import STREAM_SECONDS
from counters.model import Entry, Period, Sums

# What an audit may take after its time to stop, in seconds: for what it has begun, and to save.
_FINISH_SECONDS = 45

MOST_FINDINGS = 100  # of one counter; the rest is not looked for

_HOUR = trend.HOUR
_SWEEP = "*"  # no counter's name


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


@dataclass(slots=True)
class _Progress:
    """How far a counter is known to be good.

    That is up to the entry of `version`, which left `value` (None: it could not be read) and was
    made at `created_at` by `request_id`. The trend is compared up to `compared`, in seconds since
    the epoch. `hours` are the sums of what is after that. An audit at `seen_at` (RFC 3339) saw the
    counter at `seen_version`, which the history did not have yet.
    """

    version: int = 0
    value: int | None = 0
    created_at: str | None = None
    request_id: str | None = None  # None: not known
    compared: float = 0
    hours: dict[float, Sums] = field(default_factory=dict)
    seen_version: int = 0
    seen_at: str = ""

    def add(self, entry: Entry) -> None:
        self.version, self.value, self.created_at = entry.version, entry.value, entry.created_at
        self.request_id = entry.request_id
        hour = trend.hour_of(entry.created_at)
        if hour >= self.compared:
            self.hours.setdefault(hour, Sums()).add(entry)

    def skip(self, hour: float) -> None:
        """Leave the trend up to an hour, and of it, uncompared."""
        self.compared = max(self.compared, hour + _HOUR)
        self.hours = {each: sums for each, sums in self.hours.items() if each >= self.compared}


def audit_changed(until: float) -> Report:
    """Audit the counters that have changed since the last time, and those that were too new then.

    Args:
        until: when the audit is to stop, in seconds since the epoch; the next goes on from there.

    Raises:
        ThrottledError: the database did not answer.
    """
    report = Report()
    finish = until + _FINISH_SECONDS
    sweep = _load(_SWEEP, finish)
    if "position" not in sweep:
        # Of those that had changed just before the last time, the history could be incomplete.
        since = max(0.0, sweep.get("started_at", 0.0) - STREAM_SECONDS - _HOUR)
        sweep = {"since": since, "started_at": clock.now(), "position": ""}
    while sweep["position"] is not None:
        changed_since = clock.timestamp(sweep["since"])
        counter_ids, position = store.changed_since(changed_since, sweep["position"], finish)
        for counter_id in counter_ids:
            try:
                _audit(counter_id, _progress(_load(counter_id, finish)), until, report)
            except (
                KeyError,
                TypeError,
                ValueError,
            ) as error:  # the others are audited all the same
                detail = f"an item of the counter is not as Tally writes it: {error!r}"
                report.findings.append(Finding(counter_id, detail))
            report.counters += 1
            if clock.now() > until:
                report.finished = False
                return report
        sweep["position"] = position
        _save(_SWEEP, sweep, finish)
    _save(_SWEEP, {"started_at": sweep["started_at"]}, finish)
    return report


def audit_counter(counter_id: str, after: int | None, until: float) -> Report:
    """Audit one counter.

    Args:
        counter_id: the counter.
        after: take it as good up to this version; None to go on from where it was found good.
        until: when the audit is to stop, in seconds since the epoch; the next goes on from there.

    Raises:
        NotFoundError: the history has no such version to begin after.
        ThrottledError: the database did not answer.
    """
    report = Report(counters=1)
    if after is None:
        progress = _progress(_load(counter_id, until))
    else:
        counter = timeline.at_version(store.get(counter_id, until), after, until)
        progress = _Progress(after, counter.value, counter.updated_at)
        if counter.updated_at:
            progress.skip(trend.hour_of(counter.updated_at))
    _audit(counter_id, progress, until, report)
    return report


def _audit(counter_id: str, progress: _Progress, until: float, report: Report) -> None:
    """Audit a counter from where it was found good, and keep how far it is good by now."""
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
    report.finished = report.finished and (finished or bool(audit.findings))
    report.findings += audit.findings[:MOST_FINDINGS]
    audit.note_version(good)
    if good.seen_version:
        _save(counter_id, asdict(good), finish)


class _Audit:
    """One audit of one counter: how far it is, and what it has found.

    It `waits` if the stream may still bring the next version. The next audit continues there.
    """

    def __init__(self, counter_id: str, progress: _Progress, until: float) -> None:
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

    def note_version(self, good: _Progress) -> None:
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
        progress.skip(trend.hour_of(entry.created_at))

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
        detail = f"the trend of the hour {start} is {folded}, but its changes make {recorded}"
        version = recorded.first_version or folded.first_version
        self.findings.append(Finding(self.counter_id, detail, version, start))

    def _find(self, detail: str, version: int | None = None) -> None:
        self.findings.append(Finding(self.counter_id, detail, version))


def _progress(saved: dict[str, Any]) -> _Progress:
    if not saved:
        return _Progress()
    hours = {float(hour): Sums(**sums) for hour, sums in saved.pop("hours").items()}
    return _Progress(**saved, hours=hours)


def _load(key: str, until: float) -> dict[str, Any]:
    """Return what was saved under a key, which is a counter or _SWEEP; nothing, if nothing was."""
    with reading():
        reply = answered(
            until,
            lambda: dynamodb().get_item(
                TableName=os.environ["AUDIT_TABLE"],
                Key={"counter_id": {"S": key}},
                ConsistentRead=True,
            ),
        )
    saved: dict[str, Any] = json.loads(reply["Item"]["state"]["S"]) if "Item" in reply else {}
    return saved


def _save(key: str, state: dict[str, Any], until: float) -> None:
    item: Any = {"counter_id": {"S": key}, "state": {"S": json.dumps(state)}}
    with reading():
        answered(until, lambda: dynamodb().put_item(TableName=os.environ["AUDIT_TABLE"], Item=item))
