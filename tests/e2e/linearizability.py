"""Checks the answers that callers got against the history that resulted.

A counter's history lists its changes in the order in which they were applied. Every answer must be
consistent with that order:

- A change is in the history as often as its answer says: once, not at all, or at most once.
- What was over before something else began comes before it (linearizability).
- Every read, of the present or the past, shows what the history has.

The checks know the HTTP contract and nothing about how the service keeps it.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

HOUR, MINUTE = "YYYY-MM-DDThh", "YYYY-MM-DDThh:mm"

# Statuses and problems that say: not applied.
_NOT_APPLIED_STATUSES = {400, 404, 412, 422, 429}
_NOT_APPLIED_PROBLEMS = {"bound-exceeded", "throttled"}


class Entry(NamedTuple):
    """An item of the history."""

    version: int
    value: int
    previous_value: int
    by: int
    operation: str
    actor: str
    created_at: str
    counter_created_at: str
    request_id: str


class Standing(NamedTuple):
    """The state of a counter, and the request that made it."""

    value: int
    version: int
    request_id: str


class Wish(NamedTuple):
    """What a request does to one counter: add `by` within bounds, or set it to `value`."""

    by: int | None = None
    value: int | None = None
    low: float = -math.inf
    high: float = math.inf
    expected: int | None = None  # the version that the counter must have


class Answer(NamedTuple):
    """The response to a request."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = {}

    @property
    def problem(self) -> str | None:
        """The last part of the problem's `type`; None if the answer is not a problem."""
        if self.status < 400 or not isinstance(self.body, dict):
            return None
        return str(self.body["type"]).rpartition(":")[2]

    @property
    def says_not_applied(self) -> bool:
        return self.status in _NOT_APPLIED_STATUSES or self.problem in _NOT_APPLIED_PROBLEMS


@dataclass(frozen=True, repr=False)
class Call:
    """A request and its answer. Times are in seconds, by the same clock for all calls."""

    kind: str  # "increment", "increments", "set", "get", "version", "at", "page" or "trend"
    counter_ids: tuple[str, ...]
    invoked: float
    returned: float  # when the answer came, or the function was killed
    answer: Answer | None  # None: the function was killed
    request_id: str = ""  # the history has it with the change
    key: str | None = None
    wishes: tuple[Wish, ...] = ()  # one for each counter; none if the call is a read
    query: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        asked = f"{self.kind} {self.counter_ids} {self.wishes or dict(self.query)}"
        under = f" under the key {self.key}" if self.key else ""
        told = f"{self.answer.status} {self.answer.body}" if self.answer else "no answer"
        span = f"{self.invoked:.3f} to {self.returned:.3f}"
        return f"<{asked}{under}, id {self.request_id}, {span}: {told}>"

    @property
    def status(self) -> int | None:
        return self.answer.status if self.answer else None

    @property
    def problem(self) -> str | None:
        return self.answer.problem if self.answer else None


class Violation(NamedTuple):
    """A contradiction."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Run:
    """All calls, and what the database has afterwards.

    `told` has the ids of the changes whose success the database has reported to the function.
    """

    calls: Sequence[Call]
    histories: Mapping[str, Sequence[Entry]]
    standing: Mapping[str, Standing]
    told: frozenset[str] = frozenset()

    def changes(self) -> list[Call]:
        return [call for call in self.calls if call.wishes]

    def reads(self, kind: str) -> list[Call]:
        """Return the calls of a kind that were answered with 200."""
        return [call for call in self.calls if call.kind == kind and call.status == 200]

    def made(self) -> dict[str, list[tuple[str, Entry]]]:
        """Return the entries of each request, each with its counter."""
        made: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
        for counter_id, entries in self.histories.items():
            for entry in entries:
                made[entry.request_id].append((counter_id, entry))
        return made


def check(run: Run) -> list[Violation]:
    """Return all contradictions between the calls and the database."""
    return [
        *_histories(run),
        *_effects(run),
        *_answers(run),
        *_keys(run),
        *_order(run),
        *_past(run),
        *_pages(run),
        *_trends(run),
    ]


def _histories(run: Run) -> Iterator[Violation]:
    """Each history has no gap, adds up, and ends with the counter's state."""
    for counter_id in run.histories.keys() | run.standing.keys():
        entries = run.histories.get(counter_id, [])
        if [entry.version for entry in entries] != list(range(1, len(entries) + 1)):
            yield Violation("gap in a history", counter_id)
        previous = 0
        for entry in entries:
            fits = entry.previous_value == previous
            if not fits or entry.previous_value + entry.by != entry.value:
                yield Violation("history does not add up", f"{counter_id} {entry}")
            previous = entry.value
        last = entries[-1] if entries else None
        end = Standing(last.value, last.version, last.request_id) if last else None
        if run.standing.get(counter_id) != end:
            detail = f"{counter_id}: {run.standing.get(counter_id)}, history {end}"
            yield Violation("history does not end at the counter", detail)


def _effects(run: Run) -> Iterator[Violation]:
    """Each entry is what a request asked for. A request changes all of its counters or none."""
    asked = {call.request_id: call for call in run.changes()}
    for request_id, entries in run.made().items():
        call = asked.get(request_id)
        if call is None:
            yield Violation("change that nobody asked for", f"{entries}")
            continue
        times = Counter(counter_id for counter_id, _ in entries)
        if max(times.values()) > 1:
            yield Violation("change applied twice", f"{call} made {entries}")
        if times.keys() != set(call.counter_ids):
            yield Violation("transaction torn apart", f"{call} made {entries}")
        wishes = dict(zip(call.counter_ids, call.wishes, strict=True))
        for counter_id, entry in entries:
            wish = wishes.get(counter_id, Wish())
            if wish.by not in {None, entry.by} or wish.value not in {None, entry.value}:
                yield Violation("another change than asked for", f"{call} made {entry}")
            if not wish.low <= entry.value <= wish.high:
                yield Violation("bound violated", f"{call} made {entry}")
            if wish.expected not in {None, entry.version - 1}:
                yield Violation("condition violated", f"{call} made {entry}")


def _answers(run: Run) -> Iterator[Violation]:
    """Each answer to a change is true. There are no internal errors."""
    made = run.made()
    for call in run.changes():
        is_made = call.request_id in made
        if call.status == 200 and call.key is None:
            if not is_made:
                yield Violation("change lost", f"{call}")
            yield from _told_rightly(call, dict(made.get(call.request_id, [])))
        if call.answer and call.answer.says_not_applied and is_made:
            yield Violation("applied, though told not", f"{call} made {made[call.request_id]}")
        if call.answer and call.status != 200 and call.request_id in run.told:
            yield Violation("known to be applied, but not told so", f"{call}")
        yield from _groundless(call)
    for call in run.calls:
        if call.status == 500:
            yield Violation("internal error", f"{call}")


def _groundless(call: Call) -> Iterator[Violation]:
    """A refusal shows a value or a version that does not allow the change."""
    if call.problem == "bound-exceeded" and call.answer:
        value = call.answer.body["value"]
        if all(wish.low <= value + (wish.by or 0) <= wish.high for wish in call.wishes):
            yield Violation("refused without a reason", f"{call}")
    if call.status == 412 and _entity_tag(call) == call.wishes[0].expected:
        yield Violation("refused without a reason", f"{call}")


def _told_rightly(call: Call, made: Mapping[str, Entry]) -> Iterator[Violation]:
    """An answer with 200 shows each counter as the change left it.

    The answer to `increments` may have a counter without value and version.
    """
    assert call.answer
    shown = call.answer.body if call.kind == "increments" else [call.answer.body]
    if [each["counter_id"] for each in shown] != list(call.counter_ids):
        yield Violation("wrong answer", f"{call}")
        return
    for each in shown:
        entry = made.get(each["counter_id"])
        if entry is None:
            continue  # the change is lost, which is another violation
        if call.kind == "increments" and each["value"] is None and each["version"] is None:
            continue
        if each != _counter(each["counter_id"], entry):
            yield Violation("wrong answer", f"{call} made {entry}")


def _keys(run: Run) -> Iterator[Violation]:
    """A key is applied at most once, and every answer with 200 shows that change."""
    made = run.made()
    calls: dict[str, list[Call]] = defaultdict(list)
    for call in run.changes():
        if call.key is not None:
            calls[call.key].append(call)
    for key, attempts in calls.items():
        applied = [call for call in attempts if call.request_id in made]
        if len(applied) > 1:
            yield Violation("key applied twice", f"{key}: {applied}")
        entries = dict(made[applied[0].request_id]) if applied else {}
        for call in attempts:
            if call.status == 200:
                if not applied:
                    yield Violation("change lost", f"{call}")
                yield from _told_rightly(call, entries)
            if call.problem in {"bound-exceeded", "throttled"} and any(
                other.returned < call.invoked for other in applied
            ):
                # The answer frees the key, so no earlier attempt may have made the change.
                yield Violation("applied, though told not", f"{call}, but {applied}")


class _Moment(NamedTuple):
    """A position in a counter's order that was reached between two times.

    The change that made version v has the position 2 * v. A read of version v has 2 * v + 1.
    """

    invoked: float
    returned: float
    position: int
    call: Call


def _order(run: Run) -> Iterator[Violation]:
    """What was over before something else began comes before it in the counter's order."""
    moments = _moments(run)
    for counter_id, listed in moments.items():
        yield from _in_real_time(counter_id, listed)
    for call in run.calls:
        if call.kind == "version" and call.status == 404:
            (counter_id,) = call.counter_ids
            for moment in moments[counter_id]:
                over = moment.returned < call.invoked
                if over and moment.position >= 2 * call.query["version"]:
                    yield Violation("version denied", f"{call}, but {moment}")
                    break


def _moments(run: Run) -> dict[str, list[_Moment]]:
    """Return the changes and the strongly consistent reads of each counter."""
    moments: dict[str, list[_Moment]] = defaultdict(list)
    known = _known(run.changes())
    made = run.made()
    for call in run.changes():
        returned = known.get(call.key or call.request_id, math.inf)
        for counter_id, entry in made.get(call.request_id, []):
            moments[counter_id].append(_Moment(call.invoked, returned, 2 * entry.version, call))
    for call in run.calls:
        version = None
        if call.kind == "get" and call.answer and call.status == 200:
            version = int(call.answer.body["version"])
        if call.status == 412:
            version = _entity_tag(call)
        if version is not None:
            (counter_id,) = call.counter_ids
            moments[counter_id].append(_Moment(call.invoked, call.returned, 2 * version + 1, call))
    return moments


def _known(changes: Sequence[Call]) -> dict[str, float]:
    """Return when the first answer with 200 came, by key, or by request id without a key."""
    known: dict[str, float] = {}
    for call in changes:
        if call.status == 200:
            name = call.key or call.request_id
            known[name] = min(known.get(name, math.inf), call.returned)
    return known


def _in_real_time(counter_id: str, moments: Sequence[_Moment]) -> Iterator[Violation]:
    by_return = sorted(moments, key=lambda moment: moment.returned)
    over, latest = 0, _Moment(0, 0, -1, moments[0].call)
    for moment in sorted(moments, key=lambda moment: moment.invoked):
        while over < len(by_return) and by_return[over].returned < moment.invoked:
            latest = max(latest, by_return[over], key=lambda each: each.position)
            over += 1
        if latest.position > moment.position:
            detail = f"{counter_id}: {latest}, but later {moment}"
            yield Violation("order against real time", detail)


def _past(run: Run) -> Iterator[Violation]:
    """A read shows the counter as the history has it, now, at a version or at a time."""
    for call in run.reads("get"):
        assert call.answer
        if call.answer.body != _as_of(run, call, call.answer.body["version"]):
            yield Violation("wrong counter", f"{call}")
    for call in run.reads("version"):
        assert call.answer
        if call.answer.body != _as_of(run, call, call.query["version"]):
            yield Violation("wrong counter at a version", f"{call}")
    for call in run.reads("at"):
        assert call.answer
        (counter_id,) = call.counter_ids
        entries = run.histories.get(counter_id, [])
        until = [entry.version for entry in entries if entry.created_at <= call.query["at"]]
        expected = _as_of(run, call, max(until, default=0))
        if call.answer.body != expected:
            yield Violation("wrong counter at a time", f"{call}, not {expected}")


def _pages(run: Run) -> Iterator[Violation]:
    """A page has the entries of the history and leaves none out between them.

    So a reader who follows the pages sees each version once.
    """
    for call in run.reads("page"):
        assert call.answer
        (counter_id,) = call.counter_ids
        shown, goes_on = call.answer.body, "Link" in call.answer.headers
        entries = run.histories.get(counter_id, [])
        versions = [each["version"] for each in shown]
        after = call.query.get("after")
        if call.query.get("order") == "desc":
            first = versions[0] if after is None and versions else (after or 1) - 1
            last = versions[-1] if goes_on else 1
            expected = list(range(first, last - 1, -1))
        else:
            first = (after or 0) + 1
            expected = list(range(first, first + len(versions)))
        if versions != expected or (goes_on and not versions):
            yield Violation("page with a hole", f"{counter_id} {call.query}: {versions}")
        for each in shown:
            version = each["version"]
            if version > len(entries) or not _shows(each, entries[version - 1]):
                yield Violation("wrong entry on a page", f"{counter_id} {call.query}: {each}")


def _shows(each: Mapping[str, Any], entry: Entry) -> bool:
    """Tell whether an entry on a page is this entry of the history."""
    names = ("version", "value", "previous_value", "by", "operation", "actor", "created_at")
    parts = (each["increase"], each["decrease"])
    return parts == (max(entry.by, 0), max(-entry.by, 0)) and all(
        each[name] == getattr(entry, name) for name in names
    )


def _trends(run: Run) -> Iterator[Violation]:
    """A bucket is the sum of the entries in its interval up to its last version."""
    by_time: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for counter_id, listed in run.histories.items():
        for entry in listed:
            for step in (len(HOUR), len(MINUTE)):
                by_time[counter_id, entry.created_at[:step]].append(entry)
    for call in run.reads("trend"):
        assert call.answer
        (counter_id,) = call.counter_ids
        step = len(HOUR if call.query["interval"] == "hour" else MINUTE)
        for bucket in call.answer.body:
            found = by_time.get((counter_id, bucket["start"][:step]), [])
            entries = [entry for entry in found if entry.version <= (bucket["last_version"] or 0)]
            if not _adds_up(bucket, entries):
                name = f"wrong trend by the {call.query['interval']}"
                yield Violation(name, f"{counter_id}: {bucket} of {len(entries)} entries")


def _adds_up(bucket: Mapping[str, Any], entries: Sequence[Entry]) -> bool:
    versions = [entry.version for entry in entries]
    sums = {
        "changes": len(entries),
        "increase": sum(max(entry.by, 0) for entry in entries),
        "decrease": sum(max(-entry.by, 0) for entry in entries),
        "first_version": min(versions, default=None),
        "last_version": max(versions, default=None),
    }
    return all(bucket[name] == value for name, value in sums.items())


def _counter(counter_id: str, entry: Entry) -> dict[str, Any]:
    """Return the API's view of a counter as a change left it."""
    return {
        "counter_id": counter_id,
        "value": entry.value,
        "version": entry.version,
        "created_at": entry.counter_created_at,
        "updated_at": entry.created_at,
    }


def _as_of(run: Run, call: Call, version: int) -> dict[str, Any] | None:
    """Return the call's counter at a version; None if there is no such version."""
    (counter_id,) = call.counter_ids
    entries = run.histories.get(counter_id, [])
    if version > len(entries):
        return None
    if version:
        return _counter(counter_id, entries[version - 1])
    nothing = {"value": 0, "version": 0, "created_at": None, "updated_at": None}
    return {"counter_id": counter_id, **nothing}


def _entity_tag(call: Call) -> int:
    assert call.answer
    return int(call.answer.headers["ETag"].strip('"'))
