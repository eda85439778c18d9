"""Checks that all answers that callers got are consistent with the histories of the counters.

A counter's history lists the counter's changes in the order in which they were applied. An answer
is consistent with the history if these conditions hold:

- The history has a change as often as the answer to the change says: once, not at all, or at most
  once.
- If one request was answered before another request was sent, the first request comes first in the
  history, too (linearizability).
- Every read of the present or the past shows what the history says.

The checks use only what the HTTP API promises. They do not depend on the implementation.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tests.e2e.recorded_run import Call, CounterState, Entry, Run, Update, Violation

HOUR, MINUTE = "YYYY-MM-DDThh", "YYYY-MM-DDThh:mm"


def check(run: Run) -> list[Violation]:
    """Return all violations in a run."""
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
    """Check each history: it has no gap, its amounts add up, and it ends in the counter's state."""
    for counter_id in run.histories.keys() | run.states.keys():
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
        end = CounterState(last.value, last.version, last.request_id) if last else None
        if run.states.get(counter_id) != end:
            detail = f"{counter_id}: {run.states.get(counter_id)}, history {end}"
            yield Violation("history does not match the counter", detail)


def _effects(run: Run) -> Iterator[Violation]:
    """Check that each history entry is a change that a caller requested.


    Also check that each request changed all of its counters or none.
    """
    requests = {call.request_id: call for call in run.changes()}
    for request_id, entries in run.entries_by_request().items():
        call = requests.get(request_id)
        if call is None:
            yield Violation("change without a request", f"{entries}")
            continue
        times = Counter(counter_id for counter_id, _ in entries)
        if max(times.values()) > 1:
            yield Violation("change applied twice", f"{call} made {entries}")
        if times.keys() != set(call.counter_ids):
            yield Violation("incomplete transaction", f"{call} made {entries}")
        updates = dict(zip(call.counter_ids, call.updates, strict=True))
        for counter_id, entry in entries:
            update = updates.get(counter_id, Update())
            if update.by not in {None, entry.by} or update.value not in {None, entry.value}:
                yield Violation("wrong change", f"{call} made {entry}")
            if not update.low <= entry.value <= update.high:
                yield Violation("bound violated", f"{call} made {entry}")
            if update.expected not in {None, entry.version - 1}:
                yield Violation("condition violated", f"{call} made {entry}")


def _answers(run: Run) -> Iterator[Violation]:
    """Check that each answer to a change is true, and that no answer is an internal error."""
    applied_entries = run.entries_by_request()
    for call in run.changes():
        is_applied = call.request_id in applied_entries
        if call.status == 200 and call.key is None:
            if not is_applied:
                yield Violation("change lost", f"{call}")
            yield from _shows_change(call, dict(applied_entries.get(call.request_id, [])))
        if call.answer and call.answer.says_not_applied and is_applied:
            yield Violation(
                "applied, but reported as not applied",
                f"{call} made {applied_entries[call.request_id]}",
            )
        if call.answer and call.status != 200 and call.request_id in run.confirmed:
            yield Violation("applied, but not reported to the caller", f"{call}")
        yield from _unjustified_refusal(call)
    for call in run.calls:
        if call.status == 500:
            yield Violation("internal error", f"{call}")


def _unjustified_refusal(call: Call) -> Iterator[Violation]:
    """Check that each refusal is justified.

    A refusal contains the counter's value or version. With this value or version, the change must
    not be allowed.
    """
    if call.problem == "bound-exceeded" and call.answer:
        value = call.answer.body["value"]
        if all(update.low <= value + (update.by or 0) <= update.high for update in call.updates):
            yield Violation("refused without a reason", f"{call}")
    if call.status == 412 and _entity_tag(call) == call.updates[0].expected:
        yield Violation("refused without a reason", f"{call}")


def _shows_change(call: Call, entries: Mapping[str, Entry]) -> Iterator[Violation]:
    """Check that a successful answer shows each counter as the change left it.

    In the answer to `increments`, the value and version of a counter may both be None.
    """
    assert call.answer
    shown = call.answer.body if call.operation == "increments" else [call.answer.body]
    if [each["counter_id"] for each in shown] != list(call.counter_ids):
        yield Violation("wrong answer", f"{call}")
        return
    for each in shown:
        entry = entries.get(each["counter_id"])
        if entry is None:
            continue  # the change is lost: the code that calls this function reports that
        if call.operation == "increments" and each["value"] is None and each["version"] is None:
            continue
        if each != _counter(each["counter_id"], entry):
            yield Violation("wrong answer", f"{call} made {entry}")


def _keys(run: Run) -> Iterator[Violation]:
    """Check that the requests with one Idempotency-Key made at most one change.

    Also check that each successful answer to these requests shows that change.
    """
    applied_entries = run.entries_by_request()
    calls: dict[str, list[Call]] = defaultdict(list)
    for call in run.changes():
        if call.key is not None:
            calls[call.key].append(call)
    for key, attempts in calls.items():
        applied = [call for call in attempts if call.request_id in applied_entries]
        if len(applied) > 1:
            yield Violation("key applied twice", f"{key}: {applied}")
        entries = dict(applied_entries[applied[0].request_id]) if applied else {}
        for call in attempts:
            if call.status == 200:
                if not applied:
                    yield Violation("change lost", f"{call}")
                yield from _shows_change(call, entries)
            if call.problem in {"bound-exceeded", "throttled"} and any(
                other.returned < call.invoked for other in applied
            ):
                # This answer says that nothing was applied with this key so far. So no call that
                # ended before this call began may have made the change.
                yield Violation("applied, but reported as not applied", f"{call}, but {applied}")


class _Position(NamedTuple):
    """The position of a call in the order of a counter's changes and reads.


    Attributes:
        invoked: when the call began.
        returned: the latest time at which the call can have taken effect.
        rank: the position. The change that made version v has 2 * v. A read of version v has
            2 * v + 1.
        call: the call.
    """

    invoked: float
    returned: float
    rank: int
    call: Call


def _order(run: Run) -> Iterator[Violation]:
    """Check that requests that did not overlap have positions in the order of their sending.

    Also check each read that did not find a version: the version must not have existed when the
    read began.
    """
    positions = _positions(run)
    for counter_id, listed in positions.items():
        yield from _check_real_time_order(counter_id, listed)
    for call in run.calls:
        if call.operation == "version" and call.status == 404:
            (counter_id,) = call.counter_ids
            for position in positions[counter_id]:
                finished = position.returned < call.invoked
                if finished and position.rank >= 2 * call.query["version"]:
                    yield Violation("existing version not found", f"{call}, but {position}")
                    break


def _positions(run: Run) -> dict[str, list[_Position]]:
    """Return the positions of each counter's changes and strongly consistent reads."""
    positions: dict[str, list[_Position]] = defaultdict(list)
    first_confirmations = _first_confirmations(run.changes())
    applied_entries = run.entries_by_request()
    for call in run.changes():
        returned = first_confirmations.get(call.key or call.request_id, math.inf)
        for counter_id, entry in applied_entries.get(call.request_id, []):
            positions[counter_id].append(_Position(call.invoked, returned, 2 * entry.version, call))
    for call in run.calls:
        version = None
        if call.operation == "get" and call.answer and call.status == 200:
            version = int(call.answer.body["version"])
        if call.status == 412:
            version = _entity_tag(call)
        if version is not None:
            (counter_id,) = call.counter_ids
            positions[counter_id].append(
                _Position(call.invoked, call.returned, 2 * version + 1, call)
            )
    return positions


def _first_confirmations(changes: Sequence[Call]) -> dict[str, float]:
    """Return the time of the first successful answer to each change.

    All requests with the same Idempotency-Key are one change. In the returned dictionary, the key
    of this change is the Idempotency-Key. For a request without an Idempotency-Key, it is the
    request id.
    """
    first_confirmations: dict[str, float] = {}
    for call in changes:
        if call.status == 200:
            name = call.key or call.request_id
            first_confirmations[name] = min(first_confirmations.get(name, math.inf), call.returned)
    return first_confirmations


def _check_real_time_order(counter_id: str, positions: Sequence[_Position]) -> Iterator[Violation]:
    by_return = sorted(positions, key=lambda position: position.returned)
    finished, latest = 0, _Position(0, 0, -1, positions[0].call)
    for position in sorted(positions, key=lambda position: position.invoked):
        while finished < len(by_return) and by_return[finished].returned < position.invoked:
            latest = max(latest, by_return[finished], key=lambda each: each.rank)
            finished += 1
        if latest.rank > position.rank:
            detail = f"{counter_id}: {latest}, but later {position}"
            yield Violation("order contradicts real time", detail)


def _past(run: Run) -> Iterator[Violation]:
    """Check that reads of a counter (now, at a version or at a time) match the history."""
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
    """Check that each page shows consecutive entries of the history.

    If all pages do, a client that follows the links from page to page sees each version once.
    """
    for call in run.reads("page"):
        assert call.answer
        (counter_id,) = call.counter_ids
        shown, has_next = call.answer.body, "Link" in call.answer.headers
        entries = run.histories.get(counter_id, [])
        versions = [each["version"] for each in shown]
        after = call.query.get("after")
        if call.query.get("order") == "desc":
            first = versions[0] if after is None and versions else (after or 1) - 1
            last = versions[-1] if has_next else 1
            expected = list(range(first, last - 1, -1))
        else:
            first = (after or 0) + 1
            expected = list(range(first, first + len(versions)))
        if versions != expected or (has_next and not versions):
            yield Violation("page skips an entry", f"{counter_id} {call.query}: {versions}")
        for each in shown:
            version = each["version"]
            if version > len(entries) or not _matches(each, entries[version - 1]):
                yield Violation("wrong entry on a page", f"{counter_id} {call.query}: {each}")


def _matches(each: Mapping[str, Any], entry: Entry) -> bool:
    """Return whether `each`, an entry on a page, shows this entry of the history."""
    names = ("version", "value", "previous_value", "by", "operation", "actor", "created_at")
    parts = (each["increase"], each["decrease"])
    return parts == (max(entry.by, 0), max(-entry.by, 0)) and all(
        each[name] == getattr(entry, name) for name in names
    )


def _trends(run: Run) -> Iterator[Violation]:
    """Check that each bucket (an hour or a minute) has the sums of the entries in its interval.

    The trend may not include the latest entries yet. So the check ignores entries with a higher
    version than the bucket's last version.
    """
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
                name = f"wrong trend by {call.query['interval']}"
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
    """Return what the API shows of a counter after the change of this entry."""
    return {
        "counter_id": counter_id,
        "value": entry.value,
        "version": entry.version,
        "created_at": entry.counter_created_at,
        "updated_at": entry.created_at,
    }


def _as_of(run: Run, call: Call, version: int) -> dict[str, Any] | None:
    """Return the state at this version of the counter that a call reads; None if it has none."""
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
