"""How much CPU a call takes when all is warm: the handler is called in a loop, and nothing else."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.component.samples import EVENTS

from bench import artifacts, ladder, loop, runtime
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

_PEERS = {
    USUAL: "powertools",
    "FastAPI, Mangum": "fastapi_mangum",
    BARE: "bare_boto3",
    "the floor (no SDK)": "floor",
    "Flask, SQLite (no Lambda)": FLASK,
}


def measure() -> Section:
    """Measure, for about three minutes, and return what there is to say."""
    ours, peers = artifacts.ours(), artifacts.peers()
    increment, get = ours["increment_counter"], ours["get_counter"]
    with (
        runtime.running() as running,
        ladder.undone(increment, ladder.WARM) as copies,
    ):
        programs = {name: peers[peer] for name, peer in _PEERS.items()} | copies
        seconds = interleaved(
            {
                OURS: partial(_call, running, increment),
                KEYED: partial(_call, running, increment, header="Idempotency-Key"),
                READ: partial(_call, running, get, "get_counter"),
                USUAL_KEYED: partial(
                    _call, running, peers[_PEERS[USUAL]], header="Idempotency-Key"
                ),
                **{name: partial(_call, running, program) for name, program in programs.items()},
            },
            ROUNDS,
        )
    return Section("Warm path", "python -m bench.warm_path", _text(seconds))


def _call(
    running: Runtime, artifact: Artifact, event: str = "increment_counter", header: str = ""
) -> float:
    """Return the CPU of a call in seconds, from a fresh process.

    Args:
        running: what is there beside it.
        artifact: the program.
        event: the sample that it is called with.
        header: one that each call has with a value of its own; empty for none.

    Raises:
        subprocess.CalledProcessError: a call failed; what was said of it is on stderr.
    """
    with tempfile.TemporaryDirectory() as scratch:
        environment = running.environment(artifact) | {
            "DATABASE": str(Path(scratch) / "counters.sqlite"),
            # As the runtime client hands it on.
            "_X_AMZN_TRACE_ID": (
                "Root=1-6b02bd20-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0"
            ),
        }
        log = Path(scratch) / "log"
        with log.open("w") as output:
            subprocess.run(
                # -S: what is installed for development is out of reach.
                # -u: a log line is written at once, as under the runtime client.
                [
                    *(sys.executable, "-S", "-u", "-m", "bench_loop", artifact.handler),
                    *(str(EVENTS / f"{event}.json"), header),
                ],
                cwd=artifact.directory,
                env=environment,
                stdout=output,
                check=True,
            )
        return float(log.read_text(encoding="utf-8").splitlines()[-1])


def _text(seconds: Mapping[str, Sequence[float]]) -> str:
    told = (
        "User and system time of a call of the handler, in a loop, with API Gateway's event; the"
        " database is another process, and answers at once. The runtime client, which fetches the"
        " event and sends the answer, is the same for all, and left out; of Flask the HTTP server"
        f" is. The median of {ROUNDS} rounds, each with a fresh process of every program, which"
        f" is called {loop.WARM_UP} times and then {loop.BATCHES} times {loop.CALLS}, of which the"
        " median is taken; the ratios are those of the rounds: median, least and greatest."
    )
    compared = {name: each for name, each in seconds.items() if name not in ladder.WARM}
    rows = [
        (*_figures(name, each), shown_ratio(each, seconds[USUAL]), shown_ratio(each, seconds[BARE]))
        for name, each in compared.items()
    ]
    columns = ("a call", "ms of CPU", "a second a core", "to the usual stack", "to bare boto3")
    drawn = {name: 1000 * median(each) for name, each in compared.items()}
    steps = [
        (*_figures(name, seconds[name]), shown_ratio(seconds[name], seconds[OURS]))
        for name in (OURS, *ladder.WARM)
    ]
    return "\n\n".join(
        [
            told,
            table(columns, rows),
            bars("CPU of a call", "ms", drawn),
            "What each step bought: one of them undone in a copy, in the same rounds.",
            table((*columns[:3], "to Tally"), steps),
        ]
    )


def _figures(name: str, seconds: Sequence[float]) -> tuple[str, str, str]:
    return name, f"{1000 * median(seconds):.3f}", f"{1 / median(seconds):.0f}"


if __name__ == "__main__":
    print(measure().markdown())
