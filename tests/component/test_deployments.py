"""What a deployment does: gradually in prod, at once in dev and on the local stack.

The tests check the CloudFormation template that SAM generates from Tally's template.
"""

import json
import re
import tomllib
from typing import Any

import pytest
from tests import aws_template, sam_transform
from tests.aws_template import ROOT, Function
from tests.documents import read, rows
from tests.sizes import FULL

FUNCTIONS = aws_template.functions()
HTTP_FUNCTIONS = {name: function for name, function in FUNCTIONS.items() if function.routes}
# The page of the dashboard and its files must come from one version.
GRADUAL = [name for name in HTTP_FUNCTIONS if name != "ShowDashboard"]
ALARMS = list(rows(read("deploying.md"), "alarm"))
PROD: dict[str, dict[str, Any]] = sam_transform.template("prod")["Resources"]
PARAMETERS: dict[str, dict[str, Any]] = sam_transform.template()["Parameters"]
CANARY_SECONDS = 600
# https://docs.aws.amazon.com/lambda/latest/api/API_PublishVersion.html
LONGEST_DESCRIPTION = 256


def version(name: str) -> dict[str, Any]:
    """Return the version of a function to which its alias points."""
    logical_id, attribute = PROD[f"{name}Aliaslive"]["Properties"]["FunctionVersion"]["Fn::GetAtt"]
    assert attribute == "Version"
    resource: dict[str, Any] = PROD[logical_id]
    return resource


@pytest.mark.parametrize("name", GRADUAL)
def test_prod_shifts_the_traffic_of_an_http_function_gradually(name: str) -> None:
    group = PROD[f"{name}DeploymentGroup"]["Properties"]

    assert PROD[f"{name}Aliaslive"]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"] == {
        "ApplicationName": {"Ref": "ServerlessDeploymentApplication"},
        "DeploymentGroupName": {"Ref": f"{name}DeploymentGroup"},
    }
    assert group["DeploymentConfigName"]["Fn::Sub"][1] == {"ConfigName": "Canary10Percent10Minutes"}
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    assert group["AlarmConfiguration"] == {
        "Enabled": True,
        "Alarms": [{"Name": {"Ref": alarm}} for alarm in ALARMS],
    }


def test_the_alarms_that_bring_the_old_versions_back_fire_early_enough() -> None:
    # https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_AlarmConfiguration.html
    assert 0 < len(ALARMS) <= 10
    for alarm in ALARMS:
        properties = PROD[alarm]["Properties"]
        periods = [each["MetricStat"]["Period"] for each in properties.get("Metrics", [])[1:]]
        period = properties.get("Period") or max(periods)
        # Metrics are some minutes late.
        assert period * properties["EvaluationPeriods"] <= CANARY_SECONDS / 2


@pytest.mark.parametrize("stage", ["dev", "prod"])
def test_api_gateway_calls_the_aliases_and_may_do_so(stage: str) -> None:
    resources = sam_transform.template(stage)["Resources"]
    called = {
        integration["uri"]["Fn::Sub"].split("/functions/")[1]
        for path in resources["Api"]["Properties"]["Body"]["paths"].values()
        for method in path.values()
        if (integration := method["x-amazon-apigateway-integration"])["type"] == "aws_proxy"
    }
    permitted = {
        permission["Properties"]["FunctionName"]["Ref"]
        for permission in sam_transform.resources("AWS::Lambda::Permission", stage).values()
        if permission["Properties"]["Principal"] == "apigateway.amazonaws.com"
    }

    assert called == {f"${{{name}Aliaslive}}/invocations" for name in HTTP_FUNCTIONS}
    assert permitted == {f"{name}Aliaslive" for name in HTTP_FUNCTIONS}


def test_all_other_functions_change_at_once() -> None:
    documented = rows(read("deploying.md"), "function")

    assert documented.keys() == FUNCTIONS.keys() - set(GRADUAL)
    for name in documented:
        assert "UpdatePolicy" not in PROD.get(f"{name}Aliaslive", {})
    for source in sam_transform.resources("AWS::Lambda::EventSourceMapping", "prod").values():
        assert source["Properties"]["FunctionName"]["Ref"] in FUNCTIONS


def test_a_deployment_in_prod_names_the_parameter_that_an_operator_changes_for_a_repair() -> None:
    # SAM keeps the last value of a parameter that samconfig.toml does not name.
    deploy = tomllib.loads((ROOT / "samconfig.toml").read_text())["prod"]["deploy"]["parameters"]

    assert deploy["parameter_overrides"].split() == ["Stage=prod", "TrafficShift=gradual"]


def test_the_commands_of_the_page_name_resources_that_exist_in_prod() -> None:
    page = read("deploying.md")
    named = set(re.findall(r"\$\(name_of (\w+)\)", page))

    assert page.index("name_of()") < page.index("$(name_of")
    assert "ServerlessDeploymentApplication" in named
    assert named <= PROD.keys()


@pytest.mark.parametrize(
    ("stage", "shift"), [("dev", "gradual"), ("dev", "immediate"), ("prod", "immediate")]
)
def test_without_a_gradual_shift_there_is_no_codedeploy(stage: str, shift: str) -> None:
    resources = sam_transform.template(stage, shift)["Resources"]

    assert "CodeDeploy" not in json.dumps(resources)
    assert PROD.keys() - resources.keys() == {
        "CodeDeployServiceRole",
        "ServerlessDeploymentApplication",
        *(f"{name}DeploymentGroup" for name in GRADUAL),
    }


@pytest.mark.parametrize("function", HTTP_FUNCTIONS.values(), ids=HTTP_FUNCTIONS)
def test_a_new_value_of_any_parameter_of_a_function_publishes_a_version(
    function: Function,
) -> None:
    properties = PROD[function.name]["Properties"]
    description = version(function.name)["Properties"]["Description"]
    used = re.findall(r'{"Ref": "(\w+)"}|\${(\w+)}', json.dumps(properties))

    names = {name for pair in used for name in pair if name in PARAMETERS}

    assert names | {"Revision"} <= set(re.findall(r"\${(\w+)}", description["Fn::Sub"]))
    # Lambda publishes no version of a function that is still the same.
    assert properties["Description"] == description


def test_the_description_of_a_function_is_never_too_long() -> None:
    text = str(PROD["GetCounter"]["Properties"]["Description"]["Fn::Sub"])

    longest = re.sub(r"\${(\w+)}", lambda match: "x" * max_length(match[1]), text)

    assert len(longest) <= LONGEST_DESCRIPTION


def max_length(parameter: str) -> int:
    """Return the largest number of characters that the value of a parameter can have."""
    rules = PARAMETERS[parameter]
    values = [str(each) for each in rules.get("AllowedValues", [rules.get("MaxValue", "")])]
    if any(values):
        return max(map(len, values))
    if "MaxLength" in rules:
        return int(rules["MaxLength"])
    pattern = re.compile(rules["AllowedPattern"])
    return max(length for length in range(1000) if pattern.fullmatch("1" * length))


@pytest.mark.skipif(not FULL, reason="takes 8 s of CPU time; sam validate --lint checks dev")
def test_cfn_lint_accepts_the_template_for_prod() -> None:
    from cfnlint import api, config  # noqa: PLC0415  loading it takes four seconds

    text = json.dumps(sam_transform.template("prod"))

    # SAM replaces TrafficShift by its effect, so the parameter seems unused (W2001).
    options = config.ManualArgs(regions=["eu-west-1"], ignore_checks=["W2001"])
    assert api.lint(text, config=options) == []
