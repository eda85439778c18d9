"""Other applications can reuse Tally as docs/reusing.md says.

These tests need no AWS account. They do not deploy the examples on the page.
"""

import ast
import re
from typing import Any

import pytest
from tests import aws_template
from tests.aws_template import ROOT, TEMPLATE
from tests.documents import read, rows

METADATA: dict[str, Any] = TEMPLATE["Metadata"]["AWS::ServerlessRepo::Application"]
# The rules of the AWS Serverless Application Repository for its metadata:
# https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/serverless-sam-template-publishing-applications-metadata-properties.html
PATTERNS = {
    "Name": r"[a-zA-Z0-9\-]{1,140}",
    "Description": r".{1,256}",
    "Author": r"(?=.{1,127}$)[a-z0-9](([a-z0-9]|-(?!-))*[a-z0-9])?",
    "SemanticVersion": r"\d+\.\d+\.\d+",
}
LABEL = r"[a-zA-Z0-9+\-_:/@]{1,127}"
LABELS = 10
# Types that the repository supports. docs/reusing.md says where the list is.
SUPPORTED = {
    "AWS::ApiGateway::Account",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::Cognito::UserPool",
    "AWS::Cognito::UserPoolClient",
    "AWS::Cognito::UserPoolDomain",
    "AWS::Cognito::UserPoolGroup",
    "AWS::Cognito::UserPoolResourceServer",
    "AWS::DynamoDB::Table",
    "AWS::Events::Rule",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::Lambda::Permission",
    "AWS::Logs::LogGroup",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
    "AWS::SQS::QueuePolicy",
    "AWS::SSM::Parameter",
    "AWS::Serverless::Api",
    "AWS::Serverless::Function",
    "AWS::Serverless::StateMachine",
}


def examples(language: str) -> list[str]:
    """Return the code blocks in a language on the page."""
    return re.findall(rf"```{language}\n(.*?)```", read("reusing.md"), re.DOTALL)


def parameters(example: str) -> dict[str, str]:
    """Return the parameters of Tally that an example sets, with their values."""
    block = re.search(r"arameters(?:=| = ){(.*?)}", example, re.DOTALL)
    return dict(re.findall(r'"?(\w+)"?(?:: | += )"(.*?)"', block[1])) if block else {}


def test_the_repository_accepts_the_metadata() -> None:
    # It loads boto3, which takes a fifth of a second.
    from samcli.vendor.serverlessrepo.parser import get_app_metadata  # noqa: PLC0415

    assert get_app_metadata(TEMPLATE).validate(["author", "description", "name"])
    for name, pattern in PATTERNS.items():
        assert re.fullmatch(pattern, METADATA[name]), name
    assert 0 < len(METADATA["Labels"]) <= LABELS
    assert all(re.fullmatch(LABEL, label) for label in METADATA["Labels"])
    assert (ROOT / METADATA["ReadmeUrl"]).is_file()
    assert (ROOT / METADATA["LicenseUrl"]).read_text().startswith(METADATA["SpdxLicenseId"])


def test_the_metadata_has_the_version_of_the_last_release() -> None:
    releases = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert METADATA["SemanticVersion"] == releases[0]


def test_the_page_names_the_types_that_the_repository_may_refuse() -> None:
    types = {resource["Type"] for resource in TEMPLATE["Resources"].values()}

    assert rows(read("reusing.md"), "type").keys() == types - SUPPORTED


def test_the_page_names_outputs_that_exist() -> None:
    used = set(re.findall(r'[Oo]utputs(?:\.|\[")(\w+)', read("reusing.md")))

    assert "IncrementQueueArn" in used
    assert used <= TEMPLATE["Outputs"].keys()


@pytest.mark.parametrize("language", ["yaml", "python", "hcl"])
def test_the_examples_set_parameters_that_exist(language: str) -> None:
    for example in examples(language):
        if language == "yaml":
            tally = aws_template.parse(example)["Resources"]["Tally"]
            values = tally["Properties"]["Parameters"]
        else:
            values = parameters(example)

        assert values
        for name, value in values.items():
            assert value in TEMPLATE["Parameters"][name]["AllowedValues"]


def test_the_example_for_cdk_is_valid_python() -> None:
    (example,) = examples("python")

    assert ast.parse(example).body
