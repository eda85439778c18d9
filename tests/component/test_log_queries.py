"""The saved queries find what they promise in the log lines of the functions and of API Gateway.

The functions' lines are those that the handlers write. API Gateway's lines have the format in the
template, with sample values.
"""

import gc
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests import aws_template, insights, operations_screen
from tests.aws_template import TEMPLATE
from tests.component.auditing import findings
from tests.component.stream_records import make_changes, without_field
from tests.fifo_queue import FifoQueue, deliver
from tests.insights import Line
from tests.proxy import ALL_RIGHTS, Reply, proxy_event, reply
from tests.stack import Stack
from tests.wire import Wire, denied

from counters import init_phase

QUERIES = aws_template.resources("AWS::Logs::QueryDefinition")
ACCESS_LOG = "ApiAccessLogGroup"
ACCESS_LOG_FORMAT: str = TEMPLATE["Resources"]["Api"]["Properties"]["AccessLogSetting"]["Format"]
MINUTE = 60_000  # milliseconds

# Lambda's own lines about invocations that ended with these statuses:
# https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html#platform-report
SUCCESS, ERROR, TIMEOUT = (
    json.dumps(
        {
            "time": "2026-11-26T10:00:00.000Z",
            "type": "platform.report",
            "record": {"requestId": "6d67b385", "status": status, "metrics": {"durationMs": 10}},
        }
    )
    for status in ("success", "error", "timeout")
)
# The line of Lambda's runtime client about an exception of a handler:
# https://github.com/aws/aws-lambda-python-runtime-interface-client/blob/main/awslambdaric/bootstrap.py
RAISED = json.dumps(
    {
        "timestamp": "2026-11-26T10:00:00Z",
        "level": "ERROR",
        "errorMessage": "orders: malformed",
        "errorType": "MalformedGrantError",
        "requestId": "6d67b385",
        "stackTrace": [],
    }
)


class Logs(logging.Handler):
    """The log groups of a stack. Each line is a second later than the line before."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        logger = logging.getLogger("tally")
        self.setFormatter(logger.handlers[0].formatter)
        self.lines: list[Line] = []
        self._stack = stack
        self._group = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.write(self._group, self.format(record))

    def write(self, group: str, text: str) -> None:
        self.lines.append(Line(group, len(self.lines) * 1000, text))

    def run_function(self, name: str) -> None:
        """Write the lines that follow into the log group of a function."""
        self._group = f"{name}LogGroup"

    def request(self, method: str, path: str, latency: int = 9, **more: Any) -> Reply:  # noqa: ANN401
        """Send a request, and write the lines of its function and of API Gateway."""
        function, route, parameters = self._stack.route(method, path)
        caller = more.get("caller", "ann")
        event = proxy_event(
            route,
            path,
            parameters,
            "",
            more.get("headers", {}),
            json.dumps(more.get("body", {})).encode() if method != "GET" else b"",
            ALL_RIGHTS | {"sub": caller, "client_id": "app"},
        )
        self.run_function(function.name)
        answer = reply(self._stack.invoke(function.name, event))
        request_id = event["requestContext"]["requestId"]
        self.access(request_id, method, path, answer.status, caller=caller, latency=latency)
        return answer

    def access(self, request_id: str, method: str, path: str, status: int, **more: object) -> None:
        """Write API Gateway's line of a request. It has `-` for what has no value."""
        values = {
            "requestId": request_id,
            "httpMethod": method,
            "path": f"/v1{path}",
            "status": status,
            "authorizer.claims.sub": more.get("caller"),
            "responseLatency": more.get("latency"),
            "error.responseType": more.get("error"),
        }
        text = re.sub(
            r"\$context\.([\w.]+)", lambda name: str(values.get(name[1]) or "-"), ACCESS_LOG_FORMAT
        )
        self.write(ACCESS_LOG, text)

    def run(self, query: str, **replaced: str) -> list[dict[str, Any]]:
        """Run a saved query on its log groups, after replacing its placeholders."""
        properties = QUERIES[query]["Properties"]
        groups = {group["Ref"] for group in properties["LogGroupNames"]}
        text = properties["QueryString"]
        for placeholder, value in replaced.items():
            assert placeholder in text
            text = text.replace(placeholder, value)
        return insights.run(text, [line for line in self.lines if line.group in groups])


@pytest.fixture
def logs(stack: Stack) -> Iterator[Logs]:
    logs = Logs(stack)
    logging.getLogger("tally").addHandler(logs)
    yield logs
    logging.getLogger("tally").removeHandler(logs)


def test_a_query_says_who_changed_a_counter_and_whose_change_was_refused(logs: Logs) -> None:
    logs.request("POST", "/counters/visits", caller="ann")
    logs.request("GET", "/counters/visits", caller="bob")
    logs.request("POST", "/counters/others", caller="bob")
    body = {"value": 7}
    logs.request("PUT", "/counters/visits", caller="eve", body=body, headers={"If-Match": '"5"'})

    rows = logs.run("WhoChangedACounter", orders="visits")

    assert [(row["caller"], row["method"], row["status"]) for row in rows] == [
        ("eve", "PUT", "412"),
        ("ann", "POST", "200"),
    ]
    assert all(row["request_id"] and row["invocation_id"] for row in rows)


def test_a_query_finds_all_lines_of_a_request_by_the_id_that_its_caller_got(logs: Logs) -> None:
    body = {"by": 1, "max": 0}
    problem = logs.request("POST", "/counters/visits", body=body).body
    logs.request("POST", "/counters/visits", body=body)

    rows = logs.run(
        "EverythingAboutARequest", REQUEST=problem["instance"].removeprefix("urn:uuid:")
    )

    assert [row["@log"] for row in rows] == ["IncrementCounterLogGroup", ACCESS_LOG]
    assert "bound-exceeded" in rows[0]["@message"]


def test_a_query_counts_refusals_by_status_and_reason_also_those_of_api_gateway(
    logs: Logs, wire: Wire
) -> None:
    logs.request("POST", "/counter")
    for most in (0, -1):
        logs.request("POST", "/counter", body={"max": most})
    logs.request("PUT", "/counter", body={"value": "7"})
    wire.fail("GetItem", [denied])
    logs.request("GET", "/counter")
    logs.access("id", "GET", "/counter", 401, error="UNAUTHORIZED")
    logs.access("id", "GET", "/counter", 503, error="INTEGRATION_FAILURE")

    first, *others = logs.run("RefusalsByReason")

    assert first.keys() == {"status", "reason", "refusals", "latest_detail"}
    assert (first["status"], first["reason"], first["refusals"]) == (409, "bound-exceeded", 2)
    assert "-1" in first["latest_detail"]
    assert {(str(row["status"]), row["reason"]): row["refusals"] for row in others} == {
        ("400", "invalid-request"): 1,
        ("500", "internal-error"): 1,
        ("401", "UNAUTHORIZED"): 1,
        ("503", "INTEGRATION_FAILURE"): 1,
    }


def test_a_query_lists_the_slowest_requests_first(logs: Logs) -> None:
    for latency, path in ((80, "/counters/a"), (1200, "/counters/b"), (9, "/counters/c")):
        logs.request("GET", path, latency=latency)

    rows = logs.run("SlowestRequests")

    assert [(row["latency_ms"], row["path"]) for row in rows] == [
        ("1200", "/v1/counters/b"),
        ("80", "/v1/counters/a"),
        ("9", "/v1/counters/c"),
    ]
    assert all(row.keys() >= {"method", "status", "request_id", "@timestamp"} for row in rows)


def test_a_query_names_the_functions_that_failed_and_why(logs: Logs, wire: Wire) -> None:
    logs.request("GET", "/counter")
    logs.write("RecordHistoryLogGroup", SUCCESS)
    wire.fail("GetItem", [denied])
    logs.request("GET", "/counter")
    for line in (RAISED, ERROR):
        logs.write("IssueTokenLogGroup", line)
    for _ in range(2):
        logs.write("RecordHistoryLogGroup", TIMEOUT)

    rows = logs.run("FailuresByFunction")

    assert [(row["@log"], row["failure"], row["times"]) for row in rows] == [
        ("RecordHistoryLogGroup", "timeout", 2),
        ("IssueTokenLogGroup", "MalformedGrantError", 1),
        ("GetCounterLogGroup", "GET /counter 500", 1),
    ]
    assert rows[1]["latest_cause"] == "orders: malformed"
    assert "Traceback" in rows[2]["latest_cause"]


@pytest.mark.usefixtures("later")
def test_a_finding_and_what_is_parked_are_not_failures_of_a_function(
    logs: Logs, stack: Stack
) -> None:
    record = make_changes(stack, 1)[0]
    logs.run_function("AuditHistory")
    assert findings(stack)
    logs.run_function("RecordHistory")
    stack.record([without_field(record, "dynamodb", "NewImage", "value")])
    logs.run_function("IngestIncrements")
    deliver(stack, FifoQueue().send(""))

    assert {line.group for line in logs.lines} == {
        "AuditHistoryLogGroup",
        "RecordHistoryLogGroup",
        "IngestIncrementsLogGroup",
    }
    assert not logs.run("FailuresByFunction")


def test_a_query_may_not_ask_for_the_latest_value_of_a_field_that_some_lines_lack() -> None:
    lines = [
        Line("group", time, text) for time, text in enumerate(('{"a": 1, "b": 2}', '{"a": 1}'))
    ]

    with pytest.raises(AssertionError, match="b is missing"):
        insights.run("stats latest(b) as newest by a", lines)


def test_the_screen_counts_cold_starts_in_periods_of_five_minutes(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (graph,) = [each for each in operations_screen.WIDGETS if each.type == "log"]
    logs.request("GET", "/counter")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "GetCounter")
    for _ in range(2):
        init_phase.end()
    gc.unfreeze()
    last = logs.lines[-1]
    later = Line(last.group, last.time + 5 * MINUTE, last.text)

    rows = insights.run(graph.properties["query"], [*logs.lines, later])

    assert [row["cold_starts"] for row in rows] == [2, 1]
