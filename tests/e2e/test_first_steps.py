"""docs/first-steps.mjs makes the first steps in JavaScript, also if replies are lost."""

import json
import re
import subprocess
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
from tests.e2e.api_proxy import planned, serving
from tests.e2e.javascript import PROGRAM, node
from tests.e2e.service import Caller

from deployment import Stack
from local_settings import HOST

COUNTER = "/counters/visits"
SECONDS = 90
MAY_BE_APPLIED = "an earlier attempt may have been applied"


def run(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [node(), str(PROGRAM), *arguments],
        cwd=directory,
        env=variables,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )


def steps(version: int, value: int) -> str:
    """Return what the program prints if the counter has this version and value before."""
    return (
        f"visits: {value + 1} (version {version + 1})\n"
        f"visits: 10 (version {version + 2})\n"
        f"version {version + 1}: increment {value} → {value + 1}\n"
        f"version {version + 2}: set {value + 1} → 10\n"
    )


def shown(stderr: str) -> str:
    """Return the message of an error, without the source line that Node prints above it."""
    (message,) = re.findall(r"^Error: (.*)$", stderr, re.MULTILINE)
    return str(message)


def settings(stack: Stack) -> dict[str, str]:
    return {
        "TALLY_URL": stack.url,
        "TALLY_TOKEN_URL": stack.token_url,
        "TALLY_CLIENT_ID": stack.client_id,
        "TALLY_CLIENT_SECRET": stack.client_secret,
    }


def before(caller: Caller) -> tuple[int, int]:
    body = caller.get(COUNTER).body
    return body["version"], body["value"]


def test_first_steps_in_javascript_use_stack_json_or_the_environment(
    stack: Stack, caller: Caller, tmp_path: Path
) -> None:
    file = tmp_path / ".local" / "stack.json"
    file.parent.mkdir()
    file.write_text(json.dumps(asdict(stack)))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for directory, arguments, variables in (
        (elsewhere, [str(file)], {}),
        (elsewhere, [], settings(stack)),
        (tmp_path, [], {}),
    ):
        version, value = before(caller)
        done = run(directory, *arguments, **variables)
        assert (done.stdout, done.stderr) == (steps(version, value), "")
        assert before(caller) == (version + 2, 10)


def test_first_steps_in_javascript_count_once_if_replies_are_lost(
    stack: Stack, caller: Caller, tmp_path: Path
) -> None:
    version, value = before(caller)
    faults = {
        "token": ["lost", "unavailable"],
        "POST": ["lost", "cut", "unavailable", "throttled", "lost"],
        "PUT": ["unavailable"],
        "GET": ["lost", "cut"],
    }
    with serving(stack, planned(faults)) as proxy:
        done = run(tmp_path, **settings(proxy.stack))

    assert (done.stdout, done.stderr) == (steps(version, value), "")
    assert before(caller) == (version + 2, 10)
    assert not any(faults.values())
    keys = [key for method, key in proxy.seen if method == "POST"]
    assert len(keys) == 6
    assert len(set(keys)) == 1
    assert keys[0]


def test_first_steps_in_javascript_repeat_a_request_whose_key_is_in_use(
    stack: Stack, caller: Caller, tmp_path: Path
) -> None:
    version, value = before(caller)
    with serving(stack, planned({"POST": ["in progress", "in progress"]})) as proxy:
        done = run(tmp_path, **settings(proxy.stack))

    assert (done.stdout, done.stderr) == (steps(version, value), "")
    assert len({key for method, key in proxy.seen if method == "POST"}) == 1


def test_first_steps_in_javascript_repeat_a_request_whose_answer_is_not_the_expected_one(
    stack: Stack, caller: Caller, tmp_path: Path
) -> None:
    version, value = before(caller)
    faults = {method: ["empty"] for method in ("token", "POST", "PUT", "GET")}
    with serving(stack, planned(faults)) as proxy:
        done = run(tmp_path, **settings(proxy.stack))

    assert (done.stdout, done.stderr) == (steps(version, value), "")
    assert not any(faults.values())


@pytest.mark.parametrize("fault", ["throttled", "in progress"])
def test_first_steps_in_javascript_wait_as_long_as_retry_after_says(
    stack: Stack, tmp_path: Path, fault: str
) -> None:
    choose, times = planned({"POST": [fault, fault]}), list[float]()

    def timed(method: str) -> str:
        if method == "POST":
            times.append(time.monotonic())
        return choose(method)

    with serving(stack, timed) as proxy:
        assert run(tmp_path, **settings(proxy.stack)).returncode == 0

    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert len(pauses) == 2
    assert min(pauses) > 0.99  # a timer of Node can be a millisecond early


def test_first_steps_in_javascript_report_a_refusal_after_a_lost_reply(
    stack: Stack, caller: Caller, tmp_path: Path
) -> None:
    version, value = before(caller)
    with serving(stack, planned({"PUT": ["lost"]})) as proxy:
        done = run(tmp_path, **settings(proxy.stack))

    assert done.returncode == 1
    assert done.stdout == f"visits: {value + 1} (version {version + 1})\n"
    assert "412 " in done.stderr
    assert MAY_BE_APPLIED in done.stderr
    assert before(caller) == (version + 2, 10)


def test_first_steps_in_javascript_report_the_key_of_an_increment_that_may_have_been_applied(
    stack: Stack, caller: Caller, tmp_path: Path
) -> None:
    version, value = before(caller)
    with serving(stack, planned({"POST": ["lost", "denied"]})) as proxy:
        done = run(tmp_path, **settings(proxy.stack))

    assert (done.returncode, done.stdout) == (1, "")
    assert MAY_BE_APPLIED in done.stderr
    (key,) = re.findall(r"Idempotency-Key: (\S+?)\)", done.stderr)
    again = caller.request("POST", COUNTER, '{"by": 1}', {"Idempotency-Key": key})
    assert again.headers["Idempotent-Replayed"] == "true"
    assert before(caller) == (version + 1, value + 1)


@pytest.mark.parametrize("fault", ["in progress", "empty", "unavailable"])
def test_first_steps_in_javascript_report_the_key_after_an_answer_that_does_not_say_what_happened(
    stack: Stack, tmp_path: Path, fault: str
) -> None:
    with serving(stack, planned({"POST": [fault, "denied"]})) as proxy:
        done = run(tmp_path, **settings(proxy.stack))

    assert done.returncode == 1
    assert MAY_BE_APPLIED in shown(done.stderr)
    assert f"Idempotency-Key: {proxy.seen[-1][1]})" in shown(done.stderr)


@pytest.mark.parametrize(
    "faults",
    [
        {"token": ["lost", "denied"]},
        {"GET": ["lost", "denied"]},
        {"POST": ["denied"]},
        {"POST": ["throttled", "denied"]},
    ],
    ids=str,
)
def test_first_steps_in_javascript_do_not_call_a_request_applied_that_cannot_have_been(
    stack: Stack, tmp_path: Path, faults: dict[str, list[str]]
) -> None:
    with serving(stack, planned(faults)) as proxy:
        done = run(tmp_path, **settings(proxy.stack))

    assert done.returncode == 1
    assert "403" in done.stderr
    assert "applied" not in shown(done.stderr)
    assert "Idempotency-Key" not in shown(done.stderr)


@pytest.mark.parametrize("name", ["TALLY_URL", "TALLY_TOKEN_URL"])
def test_first_steps_in_javascript_send_the_secret_only_over_https_or_to_this_machine(
    stack: Stack, tmp_path: Path, name: str
) -> None:
    with serving(stack, planned({})) as proxy:
        variables = settings(proxy.stack)
        # This address leads to this machine, too, but does not say so.
        variables[name] = variables[name].replace(HOST, "0.0.0.0")  # noqa: S104  nothing listens there
        done = run(tmp_path, **variables)

    assert (done.returncode, done.stdout) == (1, "")
    assert "must begin with https://" in done.stderr
    assert not proxy.seen
