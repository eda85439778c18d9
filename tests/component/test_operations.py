"""Each alarm has its section in docs/operations.md and its place on the screen."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests import aws_template
from tests.aws_template import TEMPLATE
from tests.documents import read, rows
from tests.operations_screen import BODY, VARIABLES, WIDGETS, Metric, Widget

ALARMS = aws_template.resources("AWS::CloudWatch::Alarm")
QUERIES = aws_template.resources("AWS::Logs::QueryDefinition")
PAGE = read("operations.md")
_BLOCKS = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = "".join(block for kind, block in _BLOCKS if kind in {"", "console"})

# What a section says: what the alarm means, who is affected, what to do, and how to see that it is
# over.
PARTS = ["Means", "Affected", "Do", "Over when"]

# The metrics of AWS that the screen may show, with their dimensions:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-metrics-and-dimensions.html
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/metrics-dimensions.html
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
AWS_METRICS = {
    ("AWS/ApiGateway", "ApiName", "Stage"): {"Count", "4XXError", "5XXError", "Latency"},
    ("AWS/Lambda", "FunctionName"): {"Invocations", "IteratorAge"},
    ("AWS/Lambda",): {"ConcurrentExecutions"},
    ("AWS/DynamoDB", "TableName"): {
        "ConsumedReadCapacityUnits",
        "ConsumedWriteCapacityUnits",
        "ReadThrottleEvents",
        "WriteThrottleEvents",
    },
    ("AWS/DynamoDB", "GlobalSecondaryIndexName", "TableName"): {
        "ReadThrottleEvents",
        "WriteThrottleEvents",
    },
    ("AWS/DynamoDB", "Operation", "TableName"): {"SuccessfulRequestLatency"},
    ("AWS/SQS", "QueueName"): {
        "ApproximateAgeOfOldestMessage",
        "ApproximateNumberOfMessagesVisible",
    },
}
# test_docs.py checks that this table has exactly the metrics that the functions publish.
TALLY_METRICS = {("Tally", "service", "stack"): rows(PAGE, "metric").keys()}

WIDTH = 24  # units
# A screen with 1080 lines shows about three graphs of 6 units above each other.
MOST_HEIGHT = 36  # units
MINUTE = 60  # seconds
# How long SQS hides a message after somebody reads it, unless the queue has another time:
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html
HIDDEN = 30  # seconds
# CloudWatch charges nothing for the first three dashboards that have at most so many metrics:
# https://aws.amazon.com/cloudwatch/pricing/
FREE_METRICS = 50

every_alarm = pytest.mark.parametrize("alarm", ALARMS)


def sections() -> dict[str, str]:
    """Return the sections about alarms, by their headings."""
    alarms = PAGE.partition("\n## Alarms\n")[2].partition("\n## ")[0]
    _, *found = re.split(r"^### (.+)\n", alarms, flags=re.MULTILINE)
    return dict(zip(found[::2], found[1::2], strict=True))


def test_exactly_the_alarms_that_exist_have_a_section() -> None:
    assert sections().keys() == ALARMS.keys()


def test_the_list_of_alarms_links_to_each_section_once() -> None:
    (summary,) = re.findall(r"\n## Alarms\n(.*?)\n### ", PAGE, re.DOTALL)

    listed = re.findall(r"\[`(\w+)`\]\(#(\w+)\)", summary)

    assert sorted(listed) == sorted((alarm, alarm.lower()) for alarm in ALARMS)


@every_alarm
def test_a_section_says_what_the_alarm_means_who_is_affected_what_to_do_and_when_it_is_over(
    alarm: str,
) -> None:
    found = re.findall(r"^- \*\*(.+?):\*\* +(\S.*)", sections()[alarm], re.MULTILINE)

    assert [part for part, _ in found] == PARTS


@every_alarm
def test_the_message_of_an_alarm_is_a_sentence_and_the_address_of_its_section(alarm: str) -> None:
    description = ALARMS[alarm]["Properties"]["AlarmDescription"]

    assert re.fullmatch(rf"[A-Z][^.]+\. See docs/operations\.md#{alarm.lower()}", description)
    assert f"\n### {alarm}\n" in PAGE  # GitHub makes this address from this heading


def in_substitution(value: Any) -> str:  # noqa: ANN401  any value of the template
    """Return a value of the template as `Fn::Sub` writes it."""
    match value:
        case {"Ref": name} | {"Fn::GetAtt": name}:
            return f"${{{name}}}"
    return str(value)


def watched(alarm: dict[str, Any]) -> Iterator[Metric]:
    stats = [
        each["MetricStat"]["Metric"] for each in alarm.get("Metrics", []) if "MetricStat" in each
    ]
    for metric in stats or [alarm]:
        dimensions = [
            (each["Name"], in_substitution(each["Value"])) for each in metric["Dimensions"]
        ]
        yield Metric(metric["Namespace"], metric["MetricName"], tuple(sorted(dimensions)))


def in_the_same_row(one: Widget, other: Widget) -> bool:
    return one.y < other.y + other.height and other.y < one.y + one.height


@every_alarm
def test_an_alarm_is_on_the_screen_next_to_a_graph_of_what_it_watches(alarm: str) -> None:
    properties = ALARMS[alarm]["Properties"]
    (state,) = [each for each in WIDGETS if each.type == "alarm" and alarm in each.alarms()]

    graphs = [each for each in WIDGETS if each.type == "metric" and in_the_same_row(each, state)]

    assert any(
        # CloudWatch shows the metric of the alarm, also if it is an expression.
        graph.alarms() == {alarm}
        or (
            graph.metrics().issuperset(watched(properties))
            and graph.thresholds().get(alarm) == properties["Threshold"]
        )
        for graph in graphs
    )


def test_the_screen_shows_only_alarms_and_metrics_that_exist() -> None:
    known = {(*of, name) for of, names in (AWS_METRICS | TALLY_METRICS).items() for name in names}

    for widget in WIDGETS:
        assert widget.alarms() | widget.thresholds().keys() <= ALARMS.keys()
        for metric in widget.metrics():
            assert (metric.namespace, *dict(metric.dimensions), metric.name) in known


def test_the_screen_shows_the_units_and_throttled_requests_of_every_table() -> None:
    shown = {metric for widget in WIDGETS for metric in widget.metrics()}

    for name in AWS_METRICS["AWS/DynamoDB", "TableName"]:
        of_tables = {
            Metric("AWS/DynamoDB", name, (("TableName", f"${{{table}}}"),))
            for table in aws_template.tables()
        }
        assert of_tables <= shown


def test_the_screen_shows_the_throttled_requests_of_every_index() -> None:
    shown = {metric for widget in WIDGETS for metric in widget.metrics()}
    # The metrics of a table do not include its indexes.
    indexes = [
        (("GlobalSecondaryIndexName", index["IndexName"]), ("TableName", f"${{{table}}}"))
        for table in aws_template.tables()
        for index in TEMPLATE["Resources"][table]["Properties"].get("GlobalSecondaryIndexes", [])
    ]
    assert indexes

    for name in ("ReadThrottleEvents", "WriteThrottleEvents"):
        assert {Metric("AWS/DynamoDB", name, index) for index in indexes} <= shown


def test_the_screen_shows_the_concurrency_of_the_account_which_the_runbook_asks_for() -> None:
    assert any(
        Metric("AWS/Lambda", "ConcurrentExecutions", ()) in widget.metrics() for widget in WIDGETS
    )


def test_cloudwatch_does_not_replace_the_periods_of_the_graphs() -> None:
    assert BODY["periodOverride"] == "inherit"


def test_the_screen_has_no_more_metrics_than_a_dashboard_may_have_for_free() -> None:
    assert len({metric for widget in WIDGETS for metric in widget.metrics()}) <= FREE_METRICS


def test_the_screen_fits_on_two_screens_and_no_widget_covers_another() -> None:
    covered = [cell for widget in WIDGETS for cell in widget.cells()]

    assert len(covered) == len(set(covered))
    assert all(x < WIDTH and y < MOST_HEIGHT for x, y in covered)


def groups(names: list[dict[str, str]]) -> set[str]:
    """Return the log groups in a list of references."""
    assert all(
        TEMPLATE["Resources"][name["Ref"]]["Type"] == "AWS::Logs::LogGroup" for name in names
    )
    return {name["Ref"] for name in names}


def test_a_query_reads_the_logs_of_all_functions_that_it_is_about() -> None:
    functions = aws_template.functions()
    http = {f"{name}LogGroup" for name, function in functions.items() if function.routes}
    http_and_access = http | {"ApiAccessLogGroup"}

    read_by = {
        query: groups(resource["Properties"]["LogGroupNames"])
        for query, resource in QUERIES.items()
    }

    assert read_by == {
        "WhoChangedACounter": {"ApiAccessLogGroup"},
        "EverythingAboutARequest": http_and_access,
        "RefusalsByReason": http_and_access,
        "SlowestRequests": {"ApiAccessLogGroup"},
        "FailuresByFunction": {f"{name}LogGroup" for name in functions},
    }
    assert groups(VARIABLES["HttpLogs"]["Fn::Join"][1]) == http


@pytest.mark.parametrize(
    ("updates", "transactions", "invocations", "stalled"),
    [
        pytest.param(5, None, None, 1, id="changes, and nothing reads them"),
        pytest.param(None, 5, 0, 1, id="changes of several counters, and nothing reads them"),
        pytest.param(5, 5, 2, 0, id="changes that are read"),
        pytest.param(None, None, 2, 0, id="earlier changes are read"),
        pytest.param(None, None, None, None, id="nothing happens"),
    ],
)
def test_nothing_but_a_run_of_record_history_ends_the_alarm_about_a_stalled_history(
    updates: int | None, transactions: int | None, invocations: int | None, stalled: int | None
) -> None:
    alarm = ALARMS["HistoryStalledAlarm"]["Properties"]
    expression = alarm["Metrics"][0]["Expression"]
    assert re.fullmatch(r"[\w (),>+]+", expression)  # so that Python computes what CloudWatch does
    values = {"updates": updates, "transactions": transactions, "invocations": invocations}

    def choose(condition: bool, then: int, otherwise: int | None = None) -> int | None:  # noqa: FBT001
        return then if condition else otherwise

    def fill(value: int | None, missing: int) -> int:
        return missing if value is None else value

    point = eval(expression, {"IF": choose, "FILL": fill, **values})  # noqa: S307  from the template

    assert point == stalled
    assert alarm["TreatMissingData"] == "ignore"


def test_a_change_that_is_read_in_the_next_period_does_not_mean_that_the_history_is_stalled() -> (
    None
):
    alarm = ALARMS["HistoryStalledAlarm"]["Properties"]

    assert alarm["EvaluationPeriods"] >= 2
    assert "DatapointsToAlarm" not in alarm  # so a point of 0 between two changes ends the alarm


def test_an_alarm_of_a_dead_letter_queue_stays_on_while_somebody_reads_the_queue() -> None:
    watched_queues = [
        (queue, alarm["Properties"])
        for alarm in ALARMS.values()
        for metric in watched(alarm["Properties"])
        for _, queue in metric.dimensions
        if metric.name == "ApproximateNumberOfMessagesVisible"
    ]
    assert len(watched_queues) == 3

    for queue, alarm in watched_queues:
        name = queue.removeprefix("${").removesuffix(".QueueName}")
        hidden = TEMPLATE["Resources"][name]["Properties"].get("VisibilityTimeout", HIDDEN)
        assert hidden == HIDDEN, "docs/operations.md has this time"
        # The queue reports the number of messages once a minute.
        assert alarm["Period"] > hidden + MINUTE
        assert alarm["Statistic"] == "Maximum"


def test_the_commands_use_the_name_and_the_outputs_of_the_stack() -> None:
    assigned = set(re.findall(r"^[ $]*(\w+)=", COMMANDS, re.MULTILINE))

    assert set(re.findall(r"\$(\w+)", COMMANDS)) <= assigned | TEMPLATE["Outputs"].keys()
    assert set(re.findall(r"--stack-name (\S+)", COMMANDS)) == {"$STACK"}


def test_a_command_is_not_part_of_another_command_so_that_it_can_be_sent_to_the_local_stack() -> (
    None
):

    begins = re.findall(r"^(.*)\$\((?:aws|\.venv)", COMMANDS, re.MULTILINE)

    assert begins
    assert all(re.fullmatch(r" *(\w+=|export )", begin) for begin in begins)


def test_every_query_is_documented_with_its_name() -> None:
    table = PAGE.partition("\n| query | resource |")[2].partition("\n\n")[0]

    documented = dict(re.findall(r"^\| (.+?) \| `(\w+)` \| \S", table, re.MULTILINE))

    assert documented == {
        query["Properties"]["Name"]["Fn::Sub"].removeprefix("${AWS::StackName}/"): name
        for name, query in QUERIES.items()
    }


def test_an_alarm_fires_if_no_nightly_audit_succeeds_for_two_days_even_if_none_begins() -> None:
    alarm = ALARMS["AuditMissingAlarm"]["Properties"]
    filled, succeeded = alarm["Metrics"]
    metric = succeeded["MetricStat"]["Metric"]

    assert filled == {"Id": "filled", "Expression": f"FILL({succeeded['Id']}, 0)"}
    assert (metric["Namespace"], metric["MetricName"]) == ("AWS/States", "ExecutionsSucceeded")
    assert metric["Dimensions"] == [{"Name": "StateMachineArn", "Value": {"Ref": "NightlyAudit"}}]
    assert succeeded["MetricStat"]["Period"] * alarm["EvaluationPeriods"] == 2 * 24 * 60 * 60
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("LessThanThreshold", 1)
    assert alarm["TreatMissingData"] == "breaching"
