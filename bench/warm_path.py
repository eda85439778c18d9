"""Measures the CPU time of one call to a warm handler. bench/loop.py calls it in a loop."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.component.samples import load

from bench import artifacts, build_steps, loop, runtime, token_events
from bench.artifacts import FLASK, Artifact
from bench.report import Section, bars, median, table
from bench.rounds import interleaved, shown_ratio
from bench.runtime import Runtime

ROUNDS = 9

OURS = "Tally"
USUAL = "the usual stack (Powertools)"
BARE = "a bare handler with boto3"
KEYED = "Tally, with an Idempotency-Key"
USUAL_KEYED = "the usual stack, with an Idempotency-Key"
READ = "Tally, GET"
PROGRAM = "Tally, a token for a program"
PERSON = "Tally, a token for a person"

_PEERS = {
    USUAL: "powertools",
    "FastAPI, Mangum": "fastapi_mangum",
    BARE: "bare_boto3",
    "the floor (no SDK)": "floor",
    "Flask, SQLite (no Lambda)": FLASK,
}

_COLUMNS = ("program", "ms of CPU time", "calls per second and core")


def measure() -> Section:
    """Measure, and return the section of docs/benchmarks.md. This takes about three minutes."""
    ours, peers = artifacts.ours(), artifacts.peers()
    increment, get, trigger = (
        ours[name] for name in ("increment_counter", "get_counter", "issue_token")
    )
    with (
        runtime.running() as running,
        build_steps.undone(increment, build_steps.WARM) as copies,
    ):
        programs = {name: peers[peer] for name, peer in _PEERS.items()} | copies
        seconds = interleaved(
            {
                OURS: partial(_call, running, increment),
                KEYED: partial(_call, running, increment, header="Idempotency-Key"),
                READ: partial(_call, running, get, load("get_counter")),
                PROGRAM: partial(_call, running, trigger, token_events.program()),
                PERSON: partial(_call, running, trigger, token_events.person()),
                USUAL_KEYED: partial(
                    _call, running, peers[_PEERS[USUAL]], header="Idempotency-Key"
                ),
                **{name: partial(_call, running, program) for name, program in programs.items()},
            },
            ROUNDS,
        )
    return Section("Warm path", "python -m bench.warm_path", _text(seconds))


def _call(
    running: Runtime,
    artifact: Artifact,
    event: Mapping[str, Any] | None = None,
    header: str = "",
) -> float:
    """Measure the CPU time of a call in a fresh process, in seconds.

    Args:
        running: what the program needs to run as on Lambda.
        artifact: the program.
        event: the event with which the program is called; None for the sample event of an
            increment.
        header: the name of a header that gets a new value in each call; empty for none.

    Raises:
        subprocess.CalledProcessError: if a call failed. The reason is on standard error.
    """
    with tempfile.TemporaryDirectory() as scratch:
        environment = running.environment(artifact) | {
            "DATABASE": str(Path(scratch) / "counters.sqlite"),
            # On Lambda, the runtime client sets this variable.
            "_X_AMZN_TRACE_ID": (
                "Root=1-6b02bd20-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0"
            ),
        }
        log, file = Path(scratch) / "log", Path(scratch) / "event.json"
        file.write_text(json.dumps(event or load("increment_counter")), encoding="utf-8")
        with log.open("w") as output:
            subprocess.run(
                # -S hides the packages that are installed for development.
                # -u writes each log line at once, as the runtime client does.
                [
                    *(sys.executable, "-S", "-u", "-m", "bench_loop", artifact.handler),
                    *(str(file), header),
                ],
                cwd=artifact.directory,
                env=environment,
                stdout=output,
                check=True,
            )
        return float(log.read_text(encoding="utf-8").splitlines()[-1])


def _text(seconds: Mapping[str, Sequence[float]]) -> str:
    introduction = (
        "The next table shows the CPU time (user and system) of one call to a warm handler.\n\n"
        "- The handler is called in a loop, with an event of API Gateway. Only `issue_token` is"
        " called with events of Cognito.\n"
        "- The database is a stand-in that responds at once. It runs in a process of its own, so"
        " the times do not include its CPU time.\n"
        "- The times do not include the CPU time of the runtime client, which fetches events and"
        " sends responses. The runtime client is the same for all functions. The times do not"
        " include Flask's HTTP server either.\n"
        f"- Times are medians of {ROUNDS} rounds. In each round, every program runs in a fresh"
        f" process. The program is called {loop.WARM_UP} times to warm it up, and then in"
        f" {loop.BATCHES} batches of {loop.CALLS} calls. The time of the round is the median of"
        " these batches.\n"
        "- A ratio compares two programs in the same round. The tables have the median of the"
        " ratios of all rounds, with the lowest and the highest ratio in parentheses."
    )
    apart = {PROGRAM, PERSON, *build_steps.WARM}  # these have tables of their own
    compared = {name: each for name, each in seconds.items() if name not in apart}
    rows = [
        (*_figures(name, each), shown_ratio(each, seconds[USUAL]), shown_ratio(each, seconds[BARE]))
        for name, each in compared.items()
    ]
    introduction_of_tokens = (
        "The next table shows the function `issue_token`, which Cognito calls for each access"
        " token. An increment runs no code of this function: it takes the caller's rights from the"
        " token. The caller has one grant: a program its own, a person that of their only group."
        " All rows were measured in the same rounds as those of the table above."
    )
    introduction_of_steps = (
        "The next table shows what Tally saves because it does not use three parts of botocore. The"
        " first row is Tally. Each other row is a copy of Tally that uses one of these parts. All"
        " rows were measured in the same rounds."
    )
    columns = (*_COLUMNS, "ratio to the usual stack", "ratio to bare boto3")
    drawn = {name: 1000 * median(each) for name, each in compared.items()}
    return "\n\n".join(
        [
            introduction,
            table(columns, rows),
            bars("CPU time of a call", "ms", drawn),
            introduction_of_tokens,
            _next_to_an_increment(seconds, [PROGRAM, PERSON], "ratio to an increment"),
            introduction_of_steps,
            _next_to_an_increment(seconds, list(build_steps.WARM), "ratio to Tally"),
        ]
    )


def _next_to_an_increment(
    seconds: Mapping[str, Sequence[float]], names: Sequence[str], column: str
) -> str:
    """Return a table of an increment of Tally and of other rows, with the ratio to the increment.

    Args:
        seconds: the CPU times of all rows.
        names: the other rows.
        column: the name of the column with the ratio.
    """
    rows = [
        (*_figures(name, seconds[name]), shown_ratio(seconds[name], seconds[OURS]))
        for name in (OURS, *names)
    ]
    return table((*_COLUMNS, column), rows)


def _figures(name: str, seconds: Sequence[float]) -> tuple[str, str, str]:
    return name, f"{1000 * median(seconds):.3f}", f"{1 / median(seconds):.0f}"


if __name__ == "__main__":
    print(measure().markdown())
