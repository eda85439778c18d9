"""`make deploy` checks the endpoint, the credentials and the runtime before it builds."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.aws_template import ROOT

import account
from local_settings import CREDENTIALS


@pytest.mark.parametrize(
    "name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_CLOUDFORMATION"]
)
def test_a_deployment_to_an_endpoint_outside_aws_is_refused(
    name: str, config: Mapping[str, str]
) -> None:
    for url in ("http://127.0.0.1:4566", "http://localhost:4566", "https://amazonaws.com.example"):
        with pytest.raises(account.NotAnAccountError, match=f"unset {name}, and deploy again"):
            account.check({**config, name: url})
    account.check({**config, name: "https://vpce-1.s3.eu-west-1.vpce.amazonaws.com"})


@pytest.mark.parametrize("name", CREDENTIALS)
def test_a_deployment_with_the_local_stacks_credentials_is_refused(
    name: str, config: Mapping[str, str]
) -> None:
    with pytest.raises(account.NotAnAccountError, match=f"unset {name}"):
        account.check({**config, name: "test"})
    account.check({**config, name: "AKIAIOSFODNN7EXAMPLE"})


def test_a_profile_with_an_endpoint_outside_aws_is_refused(config: Mapping[str, str]) -> None:
    settings = Path(config["AWS_CONFIG_FILE"])
    settings.write_text("[default]\nendpoint_url = http://127.0.0.1:4566\n")
    with pytest.raises(account.NotAnAccountError, match="endpoint_url is http://127"):
        account.check(config)
    settings.write_text("[default]\nservices = s\n[services s]\ns3 =\n  endpoint_url = http://h\n")
    with pytest.raises(account.NotAnAccountError, match="endpoint_url is http://h"):
        account.check(config)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Environment variables for AWS. They name a configuration file that a test may write."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return {"AWS_CONFIG_FILE": str(tmp_path / "config")}


@pytest.mark.parametrize(
    ("override", "installed", "missing"),
    [
        ("", "python3.13", None),
        ("", "python3.12", "python3.13"),
        (" PythonRuntime=python3.12", "python3.12", None),
        (" PythonRuntime=python3.12", "python3.13", "python3.12"),
    ],
)
def test_a_stage_is_not_deployed_without_bytecode_for_its_runtime(
    tmp_path: Path, override: str, installed: str, missing: str | None
) -> None:
    project, path = tmp_path / "project", tmp_path / "path"
    (project / "scripts").mkdir(parents=True)
    scripts = ("artifact", "dashboard", "environment", "pip_install")
    for name in (*(f"scripts/{script}.py" for script in scripts), "template.yaml"):
        shutil.copy(ROOT / name, project / name)
    config = (ROOT / "samconfig.toml").read_text()
    assert "Stage=prod " in config
    changed = config.replace("Stage=prod ", f"Stage=prod{override} ")
    (project / "samconfig.toml").write_text(changed)
    path.mkdir()
    (path / installed).symlink_to(shutil.which("true") or "")

    checked = subprocess.run(
        [sys.executable, "scripts/artifact.py", "check", "prod"],
        cwd=project,
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == (1 if missing else 0), checked.stderr
    assert checked.stderr.startswith(missing or "")


def test_an_unknown_stage_is_not_deployed() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "artifact.py", "check", "moon"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 1
    assert checked.stderr == "samconfig.toml has no stage moon\n"
