"""AuditHistory reports every mismatch between a counter, its history and its trend."""

from typing import Any

import pytest
from tests.component.auditing import LATER, audit, change_hour, findings, nightly, versions
from tests.contents import delete_entries
from tests.past import Past
from tests.stack import Stack
from tests.times import BEGINNING, DAY, HOUR

from counters import clock


def change_entry(stack: Stack, version: int | str, **attributes: Any) -> None:  # noqa: ANN401
    key: Any = {"counter_id": {"S": "orders"}, "version": {"N": str(version)}}
    table = stack.refs["HistoryTable"]
    item = stack.dynamodb.get_item(TableName=table, Key=key).get("Item", {})
    stack.dynamodb.put_item(TableName=table, Item={**item, **key, **attributes})


def copy_entry(stack: Stack, version: int, to_version: int) -> None:
    table = stack.refs["HistoryTable"]
    key: Any = {"counter_id": {"S": "orders"}, "version": {"N": str(version)}}
    item = stack.dynamodb.get_item(TableName=table, Key=key)["Item"]
    stack.dynamodb.put_item(TableName=table, Item={**item, "version": {"N": str(to_version)}})


@pytest.mark.usefixtures("audited_orders", "later")
@pytest.mark.parametrize("version", [1, 2, 30, 59])
def test_a_missing_entry_is_found(stack: Stack, version: int) -> None:
    delete_entries(stack, version)

    assert [(each["counter_id"], each["version"]) for each in findings(stack)] == [
        ("orders", version)
    ]


@pytest.mark.usefixtures("audited_orders", "later")
def test_a_missing_last_entry_is_found_after_the_streams_retention(
    stack: Stack,
) -> None:
    delete_entries(stack, 60)

    assert versions(findings(stack)) == [60]


@pytest.mark.usefixtures("audited_orders", "later")
def test_consecutive_missing_entries_are_one_finding(stack: Stack) -> None:
    delete_entries(stack, 20, 21, 22)

    (finding,) = findings(stack)

    assert finding["version"] == 20
    assert "from 20 to 22" in finding["detail"]


@pytest.mark.usefixtures("audited_orders", "later")
def test_a_changed_value_is_found_at_its_version(stack: Stack) -> None:
    change_entry(stack, 28, value={"N": "1000"})

    found = findings(stack)

    assert versions(found) == [28, 29]
    assert "does not add up" in found[0]["detail"]


@pytest.mark.usefixtures("audited_orders", "later")
def test_an_entry_that_does_not_start_from_the_previous_value_is_found(stack: Stack) -> None:
    change_entry(stack, 30, value={"N": "1000"}, previous_value={"N": "990"}, by={"N": "10"})

    found = findings(stack)

    assert [each["version"] for each in found if not each["hour"]] == [30, 31]
    assert [each["hour"] for each in found if each["hour"]] == ["2026-11-22T14:00:00.000Z"]


@pytest.mark.usefixtures("audited_orders", "later")
def test_a_last_entry_with_another_value_than_the_counter_is_found(stack: Stack) -> None:
    change_entry(stack, 60, value={"N": "1000"}, by={"N": "1000"}, previous_value={"N": "0"})

    assert versions([each for each in findings(stack) if not each["hour"]]) == [60, 60]


@pytest.mark.usefixtures("audited_orders", "later")
@pytest.mark.parametrize("version", [61, 1000])
def test_an_extra_entry_after_the_last_version_is_found(stack: Stack, version: int) -> None:
    copy_entry(stack, 60, version)

    assert versions(findings(stack)) == [version]


@pytest.mark.usefixtures("audited_orders", "later")
@pytest.mark.parametrize("version", [0, -1])
def test_an_extra_entry_before_the_first_version_is_found(stack: Stack, version: int) -> None:
    copy_entry(stack, 1, version)

    assert versions(findings(stack)) == [version]


@pytest.mark.usefixtures("audited_orders", "later")
@pytest.mark.parametrize("version", ["7", "7.5"])
def test_a_malformed_entry_is_found(stack: Stack, version: str) -> None:
    change_entry(stack, version, operation={"N": "1"}, created_at={"S": "yesterday"})

    details = [each["detail"] for each in findings(stack) if not each["hour"]]

    assert details == [f"the entry of version {version} is malformed"]


@pytest.mark.usefixtures("audited_orders", "later")
@pytest.mark.parametrize(
    ("sums", "by"),
    [((3, 0), 2), ((2, 1), 2), ((0, 0), 2), ((-1, -3), 2), ((2, 5), 2), ((0, 2), 2)],
    ids=str,
)
def test_an_entry_whose_increase_and_decrease_do_not_add_up_is_found(
    stack: Stack, sums: tuple[int, int], by: int
) -> None:
    increase, decrease = ({"N": str(number)} for number in sums)
    change_entry(stack, 28, increase=increase, decrease=decrease)

    (finding,) = [each for each in findings(stack) if not each["hour"]]

    assert finding["version"] == 28
    assert finding["detail"] == (
        f"version 28 does not add up: an increase of {sums[0]} and a decrease of {sums[1]}"
        f" do not make {by}"
    )


@pytest.mark.usefixtures("audited_orders", "later")
def test_the_increase_and_decrease_of_an_hour_are_compared_separately(
    stack: Stack, audited_orders: Past
) -> None:
    start = BEGINNING + 20 * HOUR
    audited_orders.fold(start, 7, 9, events=5)
    audited_orders.fold(start + 1, 3, 3)
    audited_orders.record(stack)
    assert findings(stack) == []

    change_hour(stack, start, increase={"N": "9"}, decrease={"N": "11"})

    # `increase` and `decrease` are wrong now, but their difference is still right.
    assert [each["hour"] for each in findings(stack, after=0)] == [clock.timestamp(start)]


def test_a_missing_entry_of_a_counter_that_keeps_changing_is_found(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Past("orders")
    past.record(stack, [past.change(BEGINNING + HOUR * number, 1) for number in range(10)])
    for night in range(1, 5):
        now = BEGINNING + DAY * night
        monkeypatch.setattr(clock, "now", lambda now=now: now)
        for hour in range(24):
            # The history never gets this change.
            past.change(now - DAY + HOUR * (11 + hour), 1)
        past.store(stack)

        assert nightly(stack)["findings"] == (0 if night < 3 else 1), night
        assert versions(findings(stack)) == ([] if night < 3 else [11]), night


def test_a_malformed_counter_does_not_stop_the_audit_of_other_counters(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now", lambda: LATER)
    for name in ("orders", "stock"):
        past = Past(name)
        past.record(stack, [past.change(BEGINNING + number, 1) for number in range(3)])
    stack.dynamodb.update_item(
        TableName=stack.refs["CounterTable"],
        Key={"counter_id": {"S": "stock"}},
        UpdateExpression="REMOVE change",
    )
    delete_entries(stack, 2)

    assert nightly(stack) == {"counters": 2, "entries": 2, "findings": 2, "finished": True}
    (of_stock,) = findings(stack, "stock")
    assert of_stock["detail"] == "an item of this counter is malformed: change is missing"


@pytest.mark.parametrize("later_changes", [0, 1, 3])
@pytest.mark.parametrize("seconds", [0, 60])
def test_the_history_of_a_deleted_counter_is_found(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, later_changes: int, seconds: int
) -> None:
    monkeypatch.setattr(clock, "now", lambda: BEGINNING)
    stack.request("POST", "/counters/orders")
    stack.dynamodb.delete_item(
        TableName=stack.refs["CounterTable"], Key={"counter_id": {"S": "orders"}}
    )
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + seconds)
    for _ in range(1 + later_changes):
        stack.request("POST", "/counters/orders")
    changes = stack.changes()
    assert stack.record(changes) == len(changes)
    assert len(stack.items("HistoryTable")) == 1 + later_changes
    (counter,) = stack.items("CounterTable")
    assert counter["version"] == {"N": str(1 + later_changes)}

    found = findings(stack, after=0)

    # The history has version 1 of the deleted counter. The audit recognizes this entry in two
    # cases:
    # - the deleted counter and the new counter have different creation times;
    # - version 1 is the last version of the new counter, too.
    if seconds or not later_changes:
        assert 1 in versions(found)
        assert all(
            "different change" in each["detail"] or "created" in each["detail"] for each in found
        )


WRONG_SUMS = [
    pytest.param({"changes": {"N": "7"}}, id="changes"),
    pytest.param({"increase": {"N": "7"}}, id="increase"),
    pytest.param({"decrease": {"N": "7"}}, id="decrease"),
    pytest.param({"close": {"N": "7"}}, id="close"),
    pytest.param({"first_version": {"N": "1"}}, id="first_version"),
    pytest.param({"last_version": {"N": "1"}}, id="last_version"),
]


@pytest.mark.usefixtures("audited_orders", "later")
@pytest.mark.parametrize("wrong_sums", WRONG_SUMS)
def test_a_wrong_sum_in_an_hour_of_the_trend_is_found(
    stack: Stack, wrong_sums: dict[str, Any]
) -> None:
    change_hour(stack, BEGINNING + 3 * HOUR, **wrong_sums)

    (finding,) = findings(stack)

    assert finding["hour"] == "2026-11-22T13:00:00.000Z"
    assert finding["version"] == 19
    ((name, value),) = wrong_sums.items()
    stored, adds_up_to = finding["detail"].split(", but the history adds up to ")
    assert stored.startswith("the trend of the hour 2026-11-22T13:00:00.000Z has changes ")
    assert f"{name} {value['N']}" in stored
    assert adds_up_to == (
        "changes 6, increase 10, decrease 3, first_version 19, last_version 24, close 28"
    )


@pytest.mark.usefixtures("audited_orders", "later")
def test_a_missing_hour_of_the_trend_is_found(stack: Stack) -> None:
    stack.dynamodb.delete_item(
        TableName=stack.refs["TrendTable"],
        Key={
            "counter_id": {"S": "orders"},
            "hour": {"S": clock.timestamp(BEGINNING + 9 * HOUR)},
        },
    )

    (finding,) = findings(stack)
    assert finding["hour"] == "2026-11-22T19:00:00.000Z"
    assert finding["detail"].startswith(
        "the trend lacks the hour 2026-11-22T19:00:00.000Z: the history adds up to changes 6, "
    )


@pytest.mark.usefixtures("audited_orders", "later")
@pytest.mark.parametrize("hours", [-5, 12, 100])
def test_an_extra_hour_of_the_trend_is_found(stack: Stack, hours: int) -> None:
    sums: dict[str, Any] = {
        name: {"N": "1"}
        for name in ("changes", "increase", "decrease", "first_version", "last_version", "close")
    }
    change_hour(stack, BEGINNING + hours * HOUR, **sums)

    start = clock.timestamp(BEGINNING + hours * HOUR)
    (finding,) = findings(stack)
    assert finding["hour"] == start
    assert finding["detail"] == (
        f"the trend of the hour {start} has changes 1, increase 1, decrease 1, first_version 1,"
        " last_version 1, close 1, but the history has nothing"
    )


def test_a_wrong_sum_is_found_before_the_hour_is_over(
    stack: Stack, audited_orders: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = BEGINNING + 9 * HOUR + 3001
    monkeypatch.setattr(clock, "now", lambda: now)
    assert findings(stack) == []

    change_hour(stack, BEGINNING + 9 * HOUR, increase={"N": "7"})

    assert audited_orders.item["version"]["N"] == "60"
    assert [each["hour"] for each in findings(stack)] == ["2026-11-22T19:00:00.000Z"]


@pytest.mark.usefixtures("audited_orders", "later")
def test_a_counter_whose_value_was_edited_by_hand_is_found(
    stack: Stack, audited_orders: Past
) -> None:
    audited_orders.item = {**audited_orders.item, "value": {"N": "1"}}
    audited_orders.store(stack)

    assert versions(findings(stack)) == [60]


@pytest.mark.usefixtures("audited_orders", "later")
def test_a_counter_with_a_lower_version_than_its_history_is_found(
    stack: Stack, audited_orders: Past
) -> None:
    audit(stack, counter_id="orders")
    again = Past("orders")
    again.change(BEGINNING + 20 * HOUR, int(audited_orders.item["value"]["N"]))
    again.store(stack)

    assert versions(findings(stack)) == [60]


@pytest.mark.usefixtures("audited_orders", "later")
def test_several_faults_are_all_found(stack: Stack) -> None:
    delete_entries(stack, 10)
    change_entry(stack, 40, value={"N": "1000"})
    change_hour(stack, BEGINNING + 4 * HOUR, changes={"N": "99"})
    extra: dict[str, Any] = {"counter_id": {"S": "orders"}, "version": {"N": "61"}}
    stack.dynamodb.put_item(TableName=stack.refs["HistoryTable"], Item=extra)

    found = findings(stack)

    reported = {(each["version"], each["hour"]) for each in found}
    assert {(10, None), (40, None), (25, "2026-11-22T14:00:00.000Z")} <= reported
    assert any("61" in each["detail"] for each in found)
