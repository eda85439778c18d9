"""Loads the HTTP path at fixed rates, and finds the highest rate with a steady response time.

`python -m bench.http_load` prints the section. It needs the load generator loadtest on the PATH.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import artifacts, flask_server
from bench.artifacts import FLASK
from bench.report import Section, table
from deployment import access_token
from emulator_process import free_port
from local_stack import local_stack

TITLE = "HTTP under load"
COMMAND = "python -m bench.http_load"
TOOL = "loadtest"

SECONDS = 5  # that each rate lasts
LOWEST = 5  # requests per second
FACTOR = 10  # p99 must stay below this many medians
KEPT = 0.95  # the share of a rate that counts as the rate
PRECISION = 1.15  # the search ends when the lowest bad rate is this many times the best rate
TIMEOUT = 60  # seconds that loadtest may take in addition

_TEXT = f"""
The next table shows the highest rate of increments over HTTP at which the 99th percentile of the
response time stays below {FACTOR} times the median. It also shows the lowest rate that was too
high, and why.

- Requests are sent at a fixed rate, evenly, whether earlier requests are answered or not. That is
  how independent callers send them. A rate lasts {SECONDS} seconds, and is tried once. So another
  run can find another rate. Every request increments the same counter, without a key.
- A rate is too high if its p99 is {FACTOR} times the median or more, if a request fails, or if less
  than {KEPT:.0%} of the rate is answered. The median is that of {LOWEST} requests a second, when
  the program has hardly anything to do. A busy program has a higher median, so its own median
  would allow a higher p99.
- The load generator is [loadtest](https://www.npmjs.com/package/loadtest) (`npm install -g
  loadtest`), because it keeps a rate. wrk, ab and hey send a request only after an earlier one was
  answered. So they would send less to a slow program, and would not notice the time that callers
  wait. loadtest measures in whole milliseconds.
- Tally runs on the local stack. So the time is mostly that of the emulator, which does the work of
  API Gateway, Lambda and DynamoDB in Python, on the same cores as the load generator. The stack
  also checks the token, and writes the history. Flask is one process without tokens and history.
- These rates say nothing about AWS.
""".strip()

_FIGURES = {
    "rate": re.compile(r"Effective rps: +([\d.]+)"),
    "median": re.compile(r" 50% +([\d.]+) ms"),
    "p99": re.compile(r" 99% +([\d.]+) ms"),
    "failed": re.compile(r"Total errors: +(\d+)"),
}


@dataclass(frozen=True)
class Load:
    """What happened at one rate.

    Attributes:
        asked: the requests per second that were to be sent.
        rate: the requests per second that were answered.
        median: the median of the response times, in milliseconds.
        p99: the 99th percentile of the response times, in milliseconds.
        failed: the number of requests with an error, or with an answer other than 2xx.
    """

    asked: int
    rate: float
    median: float
    p99: float
    failed: float

    def too_high(self, limit: float) -> str:
        """Return all reasons why this rate is too high. The text is empty if it is not.

        Args:
            limit: the p99 in milliseconds that is too high.
        """
        reasons = {
            "requests failed": self.failed,
            f"less than {KEPT:.0%} answered": not self.rate >= KEPT * self.asked,
            f"p99 of {limit:.0f} ms or more": not self.p99 < limit,
        }
        return ", ".join(text for text, holds in reasons.items() if holds)


def measure() -> Section:
    """Measure, and return the section of docs/benchmarks.md. This takes about three minutes.

    If loadtest is missing, the section says only this.
    """
    if shutil.which(TOOL) is None:
        return Section(TITLE, COMMAND, f"Not measured: there is no {TOOL} on the PATH.")
    rows = []
    for name, running in (("Tally, on the local stack", _tally), ("Flask, SQLite", _flask)):
        with running() as (url, headers):
            idle, best, worst = highest(lambda rate: _load(url, headers, rate))
        times = (idle.median, idle.p99, best.rate, best.median, best.p99, worst.asked, worst.p99)
        answered = f"{worst.rate / worst.asked:.0%}"
        reason = worst.too_high(_limit(idle))
        rows.append((name, *(f"{each:.0f}" for each in times), answered, reason))
    columns = (
        *("program", f"median at {LOWEST}/s, ms", f"p99 at {LOWEST}/s, ms"),
        *("highest rate, requests/s", "its median, ms", "its p99, ms"),
        *("too high, requests/s", "its p99, ms", "answered", "why it is too high"),
    )
    return Section(TITLE, COMMAND, "\n\n".join([_TEXT, table(columns, rows)]))


def highest(load: Callable[[int], Load]) -> tuple[Load, Load, Load]:
    """Find the highest rate with a steady response time: double it, then halve the gap.

    Args:
        load: a function that sends requests at a rate per second, and returns what happened.

    Returns:
        What happened at the lowest rate, at the highest steady rate, and at the lowest rate that
        was too high.

    Raises:
        RuntimeError: if requests fail at the lowest rate.
    """
    load(LOWEST)  # the first requests of a process are slow
    idle = best = load(LOWEST)
    if idle.failed:
        raise RuntimeError(idle)
    worst = None
    while worst is None or worst.asked > max(PRECISION * best.asked, best.asked + 1):
        tried = load((best.asked + worst.asked) // 2 if worst else 2 * best.asked)
        if tried.too_high(_limit(idle)):
            worst = tried
        else:
            best = tried
    return idle, best, worst


def _limit(idle: Load) -> float:
    """Return the p99 that is too high, in milliseconds. loadtest rounds a short median to 0."""
    return FACTOR * max(1, idle.median)


def _load(url: str, headers: Mapping[str, str], rate: int) -> Load:
    """Send increments at a rate, and return what happened.

    Raises:
        subprocess.CalledProcessError, subprocess.TimeoutExpired: if loadtest failed.
    """
    options = [f"--headers={name}: {value}" for name, value in headers.items()]
    done = subprocess.run(
        [
            *(TOOL, "--keepalive", "--method=POST", *options),
            *(f"--rps={rate}", "--concurrency=1", f"--maxSeconds={SECONDS}", url),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS + TIMEOUT,
    )
    found = {name: pattern.search(done.stdout) for name, pattern in _FIGURES.items()}
    return Load(
        rate, **{name: float(match[1]) if match else float("nan") for name, match in found.items()}
    )


@contextmanager
def _tally() -> Iterator[tuple[str, dict[str, str]]]:
    with (
        tempfile.TemporaryDirectory() as directory,
        local_stack(Path(directory), free_port()) as stack,
    ):
        yield f"{stack.url}/counter", {"Authorization": f"Bearer {access_token(stack)}"}


@contextmanager
def _flask() -> Iterator[tuple[str, dict[str, str]]]:
    with flask_server.serving(artifacts.peers()[FLASK]) as address:
        yield f"{address}/counter", {}


if __name__ == "__main__":
    print(measure().markdown())
