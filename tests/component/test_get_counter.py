import itertools
import re

import pytest
from tests.component.output import metrics
from tests.stack import Stack
from tests.wire import Fault, Wire, denied, reply_lost, throttled


def test_a_counter_that_was_never_written_has_value_0(stack: Stack) -> None:
    reply = stack.request("GET", "/counters/orders")

    assert reply.status == 200
    assert reply.body == {
        "counter_id": "orders",
        "value": 0,
        "version": 0,
        "created_at": None,
        "updated_at": None,
    }


def test_reading_a_counter_does_not_create_it(stack: Stack) -> None:
    stack.request("GET", "/counters/orders")

    assert stack.items("CounterTable") == []


def test_a_read_returns_the_counter_as_the_last_change_left_it(stack: Stack) -> None:
    changed = stack.request("POST", "/counters/orders", body={"by": 5})

    assert stack.request("GET", "/counters/orders").body == changed.body


def test_the_path_without_a_name_is_the_counter_named_default(stack: Stack) -> None:
    stack.request("PUT", "/counter", body={"value": 3})

    assert stack.request("GET", "/counters/default").body["value"] == 3
    assert stack.request("GET", "/counter").body["counter_id"] == "default"


def test_an_encoded_name_is_the_same_counter(stack: Stack) -> None:
    stack.request("PUT", "/counters/orders:eu", body={"value": 3})

    reply = stack.request("GET", "/counters/orders%3Aeu")

    assert reply.body["counter_id"] == "orders:eu"
    assert reply.body["value"] == 3


def test_names_differ_by_case(stack: Stack) -> None:
    stack.request("PUT", "/counters/Orders", body={"value": 3})

    assert stack.request("GET", "/counters/orders").body["version"] == 0


def test_the_answer_is_json_that_must_not_be_cached(stack: Stack) -> None:
    headers = stack.request("GET", "/counter").headers

    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-cache"


def test_a_read_is_one_strongly_consistent_request(stack: Stack, wire: Wire) -> None:
    stack.request("GET", "/counter")

    assert wire.operations() == ["GetItem"]
    assert wire.sent[0].parameters["ConsistentRead"] is True


def test_a_read_is_retried_if_its_reply_is_lost(stack: Stack, wire: Wire) -> None:
    stack.request("PUT", "/counter", body={"value": 3})
    wire.fail("GetItem", [reply_lost])

    assert stack.request("GET", "/counter").body["value"] == 3


@pytest.mark.parametrize("fault", [reply_lost, throttled])
def test_a_read_that_gets_no_reply_from_dynamodb_gets_throttled(
    stack: Stack, wire: Wire, fault: Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    wire.fail("GetItem", itertools.repeat(fault))

    reply = stack.request("GET", "/counter")

    assert reply.status == 503
    assert reply.body["type"].endswith("throttled")
    assert reply.headers["Retry-After"] == "1"
    assert "InternalErrors" not in capsys.readouterr().out


def test_an_unexpected_error_is_a_problem_without_internal_details(
    stack: Stack,
    wire: Wire,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wire.fail("GetItem", [denied])
    caplog.clear()

    reply = stack.request("GET", "/counter")

    assert reply.status == 500
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.body["type"].endswith("internal-error")
    assert "Access" not in reply.body["detail"]
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", reply.body["instance"])
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "GET /counter 500")
    assert "AccessDenied" in str(record.exc_info)
    # InternalErrorsAlarm watches this metric.
    published = metrics(capsys.readouterr().out)
    assert published["InternalErrors"] == [1.0]
    assert (published["service"], published["stack"]) == ("tally", "tally-test")
