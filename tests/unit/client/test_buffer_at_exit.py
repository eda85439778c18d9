"""A program that ends sends what is in its buffer, or logs it."""

import os
import subprocess
import sys

import pytest
from tests.unit.client.fake_service import FakeService

PROGRAM = """
import os, sys
from tally_client import Tally
tally = Tally(sys.argv[1], token_url=sys.argv[2], client_id="client", client_secret="s", deadline=1)
if sys.argv[3] == "modules":
    loaded = set(sys.modules)
    tally.increment("a", 5)
    print(*sorted(set(sys.modules) - loaded))
    sys.exit()
counts = tally.buffer(interval=60)
counts.increment("a", 5)
if sys.argv[3] == "fork":
    if os.fork():
        os.wait()
    else:
        counts.increment("a", 7)
if sys.argv[3].startswith("interrupt"):
    flush = counts.flush
    def interrupt(timeout=None):
        if sys.argv[3] == "interrupt once":
            counts.flush = flush
        raise KeyboardInterrupt
    counts.flush = interrupt
    try:
        counts.close()
    except KeyboardInterrupt:
        pass
if sys.argv[3] == "fail":
    raise ZeroDivisionError
"""


def run_program(service: FakeService, what: str) -> subprocess.CompletedProcess[str]:
    token_url = service.url.replace("/v1", "/oauth2/token")
    command = [sys.executable, "-c", PROGRAM, service.url, token_url, what]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("what", "value"), [("", 5), ("fail", 5), ("fork", 12), ("interrupt once", 5)]
)
def test_a_program_that_ends_sends_what_is_in_its_buffer(
    service: FakeService, what: str, value: int
) -> None:
    done = run_program(service, what)
    assert service.value("a") == value, done.stderr
    assert done.returncode == (what == "fail")


def test_a_request_loads_no_module(service: FakeService) -> None:
    # If it did, a process that is forked during a request could wait for ever for this module.
    assert run_program(service, "modules").stdout == "\n"


def test_a_program_that_ends_during_an_outage_logs_what_is_lost(service: FakeService) -> None:
    service.faults = lambda: "500"
    done = run_program(service, "")
    assert '"increments": [{"counter_id": "a", "by": 5}]' in done.stderr
    assert service.seen[0].headers["idempotency-key"] in done.stderr


def test_a_program_that_is_interrupted_at_its_end_logs_what_is_lost(service: FakeService) -> None:
    done = run_program(service, "interrupt twice")
    assert "Not applied: Increment(counter_id='a', by=5" in done.stderr
    assert "KeyboardInterrupt" in done.stderr
    assert service.seen == []
