"""Verifies one counter: checks that its history adds up to its value, and finds every mismatch.

It checks that:
- the history has every version;
- in each entry, `previous_value` plus `by` is `value`, and `increase` minus `decrease` is `by`;
- each entry starts from the value that the previous entry ended with;
- the last entry is the counter's last change;
- the trend (TrendTable) has the sums of the entries in each hour.

Each mismatch is a finding. If an entry is missing from the history, or a change from the trend,
this is a finding only if record_history can no longer add it.
"""

from dataclasses import asdict, dataclass

from counters import clock, history, store, trend
from counters.history import STREAM_SECONDS
from counters.model import Entry, Period, Sums
from counters.progress import Progress

MOST_FINDINGS = 100  # the verification of a counter stops after this many findings

_HOUR = trend.HOUR


@dataclass(frozen=True, slots=True)
class Finding:
    """A mismatch.

    Attributes:
        counter_id: the counter.
        detail: what is wrong, for a person to read.
        version: the version that does not match; None if the mismatch has no version.
        hour: when the hour begins whose sums do not match (RFC 3339); None if the mismatch is not
            in the trend.
    """

    counter_id: str
    detail: str
    version: int | None = None
    hour: str | None = None


@dataclass(slots=True)
class Result:
    """The result of a verification.

    Attributes:
        progress: how far the counter is verified now.
        entries: the number of history entries that were read.
        finished: False if the time was up before all entries were checked.
        findings: the mismatches, at most MOST_FINDINGS.
    """

    progress: Progress
    entries: int
    finished: bool
    findings: list[Finding]


def verify(counter_id: str, progress: Progress, until: float, finish: float) -> Result:
    """Verify a counter from the given progress on.

    Args:
        counter_id: the counter.
        progress: how far the counter is verified already. This function modifies the object.
        until: when to stop, in seconds since the epoch. The page of the history that is being
            checked then is finished first.
        finish: latest time to start a read, in seconds since the epoch.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
        ArithmeticError: if an item of the counter is malformed.
        KeyError: if an item of the counter lacks an attribute.
        TypeError: if an item of the counter is malformed.
        ValueError: if an item of the counter is malformed.
    """
    verification = _Verification(counter_id, progress, finish)
    verified = progress.copy()
    entries = 0
    finished = False
    for page in history.pages(counter_id, progress.version, finish):
        for version, entry in page:
            if not verification.waiting:
                verification.check_entry(version, entry)
        entries += len(page)
        if verification.progress.created_at:
            # No later version has a time before `complete_to`. So all hours before it are complete.
            complete_to = clock.seconds(verification.progress.created_at) - clock.APPLY_WINDOW
            verification.compare_trend(complete_to)
        if not verification.findings:
            verified = verification.progress.copy()
        if verification.waiting:
            finished = True
            break
        if len(verification.findings) >= MOST_FINDINGS or clock.now() > until:
            break
    else:
        finished = True
        verification.check_end()
        if not verification.findings:
            verified = verification.progress
    verification.note_version(verified)
    found = verification.findings
    return Result(verified, entries, finished or bool(found), found[:MOST_FINDINGS])


class _Verification:
    """One verification of one counter.

    Attributes:
        progress: how far the verification is.
        findings: the mismatches so far.
        waiting: whether the verification must stop, because the next version is missing but
            record_history may still write it. The next audit continues there.
        current: the counter, as it was last read.
        last_change: the id of the attempt that made the counter's last change.
        read_at: when the counter was last read, in seconds since the epoch.
    """

    def __init__(self, counter_id: str, progress: Progress, until: float) -> None:
        self.counter_id = counter_id
        self.progress = progress
        self.findings: list[Finding] = []
        self.waiting = False
        self._until = until
        self._read_counter()

    def check_entry(self, version: str, entry: Entry | None) -> None:
        """Check the next item of the history.

        Args:
            version: the version in the item's key.
            entry: the entry in the item; None if the item is malformed.
        """
        progress = self.progress
        if entry is None:
            self._find(f"the entry of version {version} is malformed")
            if version == str(progress.version + 1):
                progress.version += 1
                progress.value = progress.request_id = None
            return
        if entry.version > self.current.version:
            self._read_counter()
        if progress.version + 1 < entry.version <= self.current.version:
            self.waiting = not history.is_settled(entry.created_at, self.read_at)
            if self.waiting:
                return
        if entry.version < 1 or entry.version > self.current.version:
            detail = f"version {version} is in the history, but is not a version of the counter"
            self._find(detail, entry.version)
            return
        if entry.version != progress.version + 1:
            self._check_gap(entry)
        elif progress.value is not None and entry.previous_value != progress.value:
            detail = (
                f"version {version} starts from the value {entry.previous_value}, but the version"
                f" before it ended with {progress.value}"
            )
            self._find(detail, entry.version)
        if entry.counter_created_at != self.current.created_at:
            detail = f"version {version} belongs to a counter that was created at"
            detail += f" {entry.counter_created_at}, not at {self.current.created_at}"
            self._find(detail, entry.version)
        self._check_sums(entry)
        progress.add(entry)

    def _check_sums(self, entry: Entry) -> None:
        """Check that the numbers of an entry add up: values, `by`, increase and decrease."""
        detail = f"version {entry.version} does not add up: "
        if entry.previous_value + entry.by != entry.value:
            detail += f"{entry.previous_value} plus {entry.by} is not {entry.value}"
            self._find(detail, entry.version)
        elif min(entry.increase, entry.decrease) < 0 or (
            entry.increase - entry.decrease != entry.by
        ):
            detail += f"an increase of {entry.increase} and a decrease of {entry.decrease}"
            self._find(f"{detail} do not make {entry.by}", entry.version)

    def check_end(self) -> None:
        """Compare the last entry with the counter. Compare the remaining hours with the trend."""
        progress, current = self.progress, self.current
        if progress.version < current.version:
            if history.is_settled(current.updated_at or "", self.read_at):
                self._find_missing(progress.version + 1, current.version)
            elif progress.version < progress.seen_version and (
                history.is_settled(progress.seen_at, self.read_at)
            ):
                self._find_missing(progress.version + 1, progress.seen_version)
            return
        if progress.version > current.version:
            detail = f"the counter has version {current.version}, but the history once had"
            self._find(f"{detail} version {progress.version}", progress.version)
            return
        if progress.value is not None and progress.value != current.value:
            detail = f"version {progress.version} ended with the value {progress.value}, but the"
            self._find(f"{detail} counter's value is {current.value}", progress.version)
        elif progress.request_id is not None and (progress.request_id, progress.created_at) != (
            self.last_change,
            current.updated_at,
        ):
            detail = f"version {progress.version} in the history is a different change from the"
            self._find(f"{detail} counter's last change", progress.version)
        # If a change is made after `read_at`, its attempt began at most one apply window before
        # `read_at`. So all hours before that time are complete.
        self.compare_trend(self.read_at - clock.APPLY_WINDOW)
        self._compare_last_hours()

    def note_version(self, verified: Progress) -> None:
        """Set `seen_version` to the counter's version, if the old `seen_version` is verified."""
        if verified.version >= verified.seen_version:
            verified.seen_version = self.current.version
            verified.seen_at = clock.timestamp(self.read_at)

    def compare_trend(self, time: float) -> None:
        """Compare the sums of all hours that end before a time with the entries.

        All entries before that time must already be checked.
        """
        progress = self.progress
        end = trend.hour_of(time)
        if end <= progress.compared:
            return
        period = Period(progress.compared, end)
        hours = dict(trend.hours(self.counter_id, period, self._until, consistent=True))
        for hour in sorted(hours.keys() | {each for each in progress.hours if each < end}):
            in_trend, in_history = hours.get(hour, Sums()), progress.hours.get(hour, Sums())
            if in_trend != in_history:
                if self._may_be_late(in_trend, in_history, hour):
                    progress.compared = hour
                    return
                self._find_wrong_hour(hour, in_trend, in_history)
            progress.hours.pop(hour, None)
        progress.compared = end

    def _compare_last_hours(self) -> None:
        """Compare the hours to which changes may still be added.

        An hour is compared only if its last version is the same in the trend and in the history.
        """
        for hour, in_history in self.progress.hours.items():
            period = Period(hour, hour + _HOUR)
            for _, in_trend in trend.hours(self.counter_id, period, self._until, consistent=True):
                if in_trend.last_version == in_history.last_version and in_trend != in_history:
                    self._find_wrong_hour(hour, in_trend, in_history)

    def _may_be_late(self, in_trend: Sums, in_history: Sums, hour: float) -> bool:
        """Return whether the trend lacks changes of an hour that record_history may still add."""
        behind = (in_trend.last_version or 0) < (in_history.last_version or 0)
        return behind and self.read_at < hour + _HOUR + STREAM_SECONDS

    def _check_gap(self, entry: Entry) -> None:
        """Report the versions that are missing before an entry, unless they may have expired."""
        progress = self.progress
        if not history.expired(progress.created_at or entry.counter_created_at):
            self._find_missing(progress.version + 1, entry.version - 1)
        if progress.created_at:
            self.compare_trend(clock.seconds(progress.created_at) - clock.APPLY_WINDOW)
        # The trend may include the missing versions. So no hour up to the hour of this entry is
        # compared with the trend.
        progress.skip(trend.hour_of(entry.time))

    def _read_counter(self) -> None:
        self.read_at = clock.now()
        self.current, self.last_change = store.read(self.counter_id, self._until)

    def _find_missing(self, first: int, last: int) -> None:
        if first == last:
            self._find(f"version {first} is missing", first)
        else:
            self._find(f"the versions from {first} to {last} are missing", first)

    def _find_wrong_hour(self, hour: float, in_trend: Sums, in_history: Sums) -> None:
        start = clock.timestamp(hour)
        stored = f"the trend of the hour {start} has {_text(in_trend)}"
        if not in_trend.changes:
            detail = f"the trend lacks the hour {start}: the history adds up to {_text(in_history)}"
        elif not in_history.changes:
            detail = f"{stored}, but the history has nothing"
        else:
            detail = f"{stored}, but the history adds up to {_text(in_history)}"
        version = in_history.first_version or in_trend.first_version
        self.findings.append(Finding(self.counter_id, detail, version, start))

    def _find(self, detail: str, version: int | None = None) -> None:
        self.findings.append(Finding(self.counter_id, detail, version))


def _text(sums: Sums) -> str:
    """Return sums as text, such as `changes 2, increase 7, …`, with the names of the API."""
    return ", ".join(f"{name} {value}" for name, value in asdict(sums).items())
