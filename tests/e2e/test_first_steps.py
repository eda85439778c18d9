"""docs/first-steps.mjs makes the first steps in JavaScript, also if replies are lost."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
from tests.aws_template import ROOT
from tests.e2e.service import Caller

from deployment import Stack
from local_settings import HOST

PROGRAM = ROOT / "docs" / "first-steps.mjs"
COUNTER = "/counters/visits"
NODE = 18  # the first version of Node with `fetch`
SECONDS = 90


def node() -> str:
    """Return the path of Node. Skip the test if there is none that can run the program."""
    path = shutil.which("node")
    if path:
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
        if int(version.stdout.removeprefix("v").partition(".")[0]) >= NODE:
            return path
    pytest.skip(f"docs/first-steps.mjs was not run: Node {NODE} or later is not installed")


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


def settings(stack: Stack) -> dict[str, str]:
    return {
        "TALLY_URL": stack.url,
        "TALLY_TOKEN_URL": stack.token_url,
        "TALLY_CLIENT_ID": stack.client_id,
        "TALLY_CLIENT_SECRET": stack.client_secret,
    }


def problem(kind: str) -> bytes:
    return json.dumps({"type": f"urn:tally:problem:{kind}", "detail": "a fault"}).encode()


# The status, the headers and the body of replies that the proxy makes itself. It does not forward
# the request then.
REPLIES: dict[str, tuple[int, dict[str, str], bytes]] = {
    "unavailable": (503, {}, b"<h1>Service Unavailable</h1>"),
    "throttled": (429, {"Retry-After": "2"}, problem("throttled")),
    "throttled for long": (429, {"Retry-After": "60"}, problem("throttled")),
    "in progress": (409, {"Retry-After": "0"}, problem("in-progress")),
    "bound exceeded": (409, {}, problem("bound-exceeded")),
    "no counter": (200, {}, b"{}"),
}


@dataclass(frozen=True)
class Seen:
    """A request that reached the proxy. `at` is that of time.monotonic()."""

    method: str  # "token" for the request for a token
    key: str | None
    fault: str
    at: float


class LosingProxy(ThreadingHTTPServer):
    """Forwards requests to the service, and loses, cuts or replaces some of the replies.

    Attributes:
        faults: the faults of the next requests with a method, by method: a key of REPLIES, `lost`
            or `cut`.
        seen: all requests.
    """

    daemon_threads = True

    def __init__(self, stack: Stack, **faults: list[str]) -> None:
        super().__init__((HOST, 0), _Handler)
        self.endpoint_url = stack.endpoint_url
        self.faults = faults
        self.seen: list[Seen] = []
        moved = f"http://{HOST}:{self.server_port}"
        self.stack = replace(
            stack,
            url=moved + urlsplit(stack.url).path,
            token_url=moved + urlsplit(stack.token_url).path,
        )

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  as in socketserver
        """Print the traceback, unless the client has closed its connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: LosingProxy

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        method = "token" if self.path.endswith("/token") else self.command
        faults = self.server.faults.get(method, [])
        fault = faults.pop(0) if faults else ""
        key = self.headers["Idempotency-Key"]
        self.server.seen.append(Seen(method, key, fault, time.monotonic()))
        status, headers, reply = REPLIES.get(fault) or self.forward(body)
        if fault == "lost":
            return
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(reply))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply[: len(reply) // 2] if fault == "cut" else reply)

    def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        dropped = {"host", "connection", "accept-encoding"}
        headers = {name: self.headers[name] for name in self.headers if name.lower() not in dropped}
        url = self.server.endpoint_url + self.path
        with urllib3.PoolManager(retries=False, timeout=SECONDS) as http:
            response = http.request(self.command, url, body=body, headers=headers)
        return response.status, {}, response.data

    do_GET = do_POST = do_PUT = handle_any  # noqa: N815


@contextmanager
def losing(stack: Stack, **faults: list[str]) -> Iterator[LosingProxy]:
    with LosingProxy(stack, **faults) as proxy:
        thread = Thread(target=proxy.serve_forever, args=[0.05])
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


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
        "POST": ["lost", "cut", "no counter", "unavailable", "in progress", "throttled", "lost"],
        "PUT": ["unavailable"],
        "GET": ["lost", "cut"],
    }
    with losing(stack, **faults) as proxy:
        done = run(tmp_path, **settings(proxy.stack))

    assert (done.stdout, done.stderr) == (steps(version, value), "")
    assert before(caller) == (version + 2, 10)
    assert not any(faults.values())
    posts = [each for each in proxy.seen if each.method == "POST"]
    assert len(posts) == 8
    assert len({each.key for each in posts}) == 1
    assert posts[0].key
    # The program waits for at least `Retry-After`.
    (throttled,) = [number for number, each in enumerate(posts) if each.fault == "throttled"]
    assert posts[throttled + 1].at - posts[throttled].at >= 2


@pytest.mark.parametrize(
    ("fault", "reported"),
    [("bound exceeded", ": 409 a fault"), ("throttled for long", ": 429 a fault")],
)
def test_first_steps_in_javascript_end_if_an_increment_is_refused_or_is_not_answered_in_time(
    stack: Stack, caller: Caller, tmp_path: Path, fault: str, reported: str
) -> None:
    counter = before(caller)
    with losing(stack, POST=[fault]) as proxy:
        done = run(tmp_path, **settings(proxy.stack))

    assert (done.returncode, done.stdout) == (1, "")
    assert f"{reported}\n" in done.stderr
    assert [each.method for each in proxy.seen] == ["token", "POST"]
    assert before(caller) == counter


def test_first_steps_in_javascript_report_a_refusal_after_a_lost_reply(
    stack: Stack, caller: Caller, tmp_path: Path
) -> None:
    version, value = before(caller)
    with losing(stack, PUT=["lost"]) as proxy:
        done = run(tmp_path, **settings(proxy.stack))

    assert done.returncode == 1
    assert done.stdout == f"visits: {value + 1} (version {version + 1})\n"
    # Node prints the source line, too, so look for the message only.
    (message,) = re.findall(r"^Error: PUT .*", done.stderr, re.MULTILINE)
    assert re.search(r": 412 .+ \(an earlier attempt may have been applied\)$", message)
    assert before(caller) == (version + 2, 10)
