"""Measures the time to a first response: starts a process as Lambda does, and invokes it once."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import urllib3
from tests.component.samples import load

from bench import artifacts, flask_server, ladder, runtime
from bench.artifacts import FLASK, Artifact
from bench.report import Section, bars, median, table
from bench.rounds import interleaved, shown_ratio
from bench.runtime import Runtime

ROUNDS = 9
ROUNDS_OF_ALL = 3
ROUNDS_OF_SPLIT = 3
ROUNDS_OF_LADDER = 15

OURS = "increment_counter"
USUAL = "powertools"
FLOOR = "floor"

NAMES = {
    OURS: "Tally",
    "powertools": "the usual stack (Powertools)",
    "fastapi_mangum": "FastAPI, Mangum",
    "bare_boto3": "a bare handler with boto3",
    "floor": "the floor (no SDK)",
    FLASK: "Flask, SQLite (no Lambda)",
}

START_SECONDS = 60  # the longest that Flask may take to start

# The parts of a start: their names in bench/probe.py, and in the tables.
_PARTS = {
    "runtime": "the runtime",
    "import": "imports",
    "client": "clients",
    "call": "the first call",
}
_POLL_SECONDS = 0.002

Measured = Mapping[str, Sequence[float]]
Parts = Mapping[str, Sequence[Mapping[str, float]]]


def measure() -> Section:
    """Measure for about three minutes, and return the section."""
    ours, peers = artifacts.ours(), artifacts.peers()
    lambdas = {name: artifact for name, artifact in peers.items() if name != FLASK}
    compared = {OURS: ours[OURS], **lambdas}
    with runtime.running() as running:
        started = {name: _answered(running, artifact) for name, artifact in compared.items()}
        started[FLASK] = partial(_flask, peers[FLASK])
        first = interleaved(started, ROUNDS)
        parts = interleaved(
            {name: partial(_parts, running, artifact) for name, artifact in compared.items()},
            ROUNDS_OF_SPLIT,
        )
        every = interleaved(
            {name: _answered(running, artifact, name) for name, artifact in ours.items()},
            ROUNDS_OF_ALL,
        )
        every_parts = interleaved(
            {name: partial(_parts, running, artifact, name) for name, artifact in ours.items()},
            ROUNDS_OF_ALL,
        )
        steps = _ladder(running, ours[OURS])
    texts = (
        _compared(first, {OURS: ours[OURS], **peers}),
        _split(parts),
        _climbed(steps),
        _every(every, every_parts, ours),
    )
    return Section("Cold start", "python -m bench.cold_start", "\n\n".join(texts))


def _answered(running: Runtime, artifact: Artifact, event: str = OURS) -> Callable[[], float]:
    """Return a callable that starts a function and returns the seconds to its first response.

    Args:
        running: the runtime around the function.
        artifact: the function.
        event: the name of the sample event that it is invoked with.
    """
    sample = load(event)
    return lambda: runtime.first_answer(running, artifact, sample)[0]


def _flask(artifact: Artifact) -> float:
    """Start Flask and return the seconds to its first HTTP response.

    Raises:
        RuntimeError: it did not respond within START_SECONDS.
    """
    body = load(OURS)["body"].encode()
    headers = {"Content-Type": "application/json"}
    http = urllib3.PoolManager(retries=False)
    start = time.perf_counter()
    with flask_server.serving(artifact) as address:
        while time.perf_counter() < start + START_SECONDS:
            with suppress(urllib3.exceptions.HTTPError):  # it is not listening yet
                http.request("POST", f"{address}/counters/orders%3Aeu", body=body, headers=headers)
                return time.perf_counter() - start
            time.sleep(_POLL_SECONDS)
    message = "Flask did not respond"
    raise RuntimeError(message)


def _parts(running: Runtime, artifact: Artifact, event: str = OURS) -> dict[str, float]:
    """Start a function with the probe around it, and return the seconds that each part took."""
    probed = replace(artifact, handler="bench_probe.handler")
    wanted = {"BENCH_HANDLER": artifact.handler}
    parts: dict[str, float]
    _, parts = runtime.first_answer(running, probed, load(event), wanted)
    return parts


def _ladder(running: Runtime, artifact: Artifact) -> Measured:
    """Return the seconds to the first response of Tally, and of copies with one step undone."""
    with ladder.undone(artifact, ladder.COLD) as copies:
        variants = {NAMES[OURS]: artifact, **copies}
        return interleaved(
            {name: _answered(running, variant) for name, variant in variants.items()},
            ROUNDS_OF_LADDER,
        )


def _compared(first: Measured, built: Mapping[str, Artifact]) -> str:
    introduction = (
        "The time from the start of a fresh process to its first response to an increment.\n\n"
        "- Functions run under AWS's own runtime client. Their database responds at once. As on"
        " Lambda, they cannot write to the artifact.\n"
        f"- Times are medians of {ROUNDS} rounds. Each round starts one process of every program.\n"
        "- Ratios compare programs within a round: the median, and the lowest to the highest.\n"
        "- Peers are built as their users build them, with a plain `sam build`.\n"
        "- Flask runs in waitress. Its first response is to an HTTP request."
    )
    rows = [
        (
            NAMES[name],
            _milliseconds(first[name]),
            shown_ratio(first[name], first[USUAL]),
            shown_ratio(first[name], first[FLOOR]),
            _megabytes(artifact.zipped),
            _megabytes(artifact.unzipped),
        )
        for name, artifact in built.items()
    ]
    columns = (
        *("program", "ms", "ratio to the usual stack", "ratio to the floor"),
        *("MB zipped", "MB unzipped"),
    )
    drawn = {NAMES[name]: 1000 * median(first[name]) for name in built}
    chart = bars("First response of a fresh process", "ms", drawn)
    return "\n\n".join([introduction, table(columns, rows), chart])


def _split(parts: Parts) -> str:
    introduction = (
        f"Where the time goes. A probe measured this in {ROUNDS_OF_SPLIT} separate rounds."
        " `clients` is the time in botocore's `create_client`, wherever it is called. The other"
        " columns do not include it. Opening a connection before the first event counts as"
        " `imports`."
    )
    rows = [(NAMES[name], *_each_part(runs)) for name, runs in parts.items()]
    return "\n\n".join([introduction, table(("ms", *_PARTS.values()), rows)])


def _climbed(steps: Measured) -> str:
    introduction = (
        "What each step of Tally's build saves. Every row but the first undoes one step in a copy"
        f" of the artifact ({ROUNDS_OF_LADDER} rounds)."
    )
    rows = [
        (name, _milliseconds(seconds), shown_ratio(seconds, steps[NAMES[OURS]]))
        for name, seconds in steps.items()
    ]
    return "\n\n".join([introduction, table(("build", "ms", "ratio to Tally"), rows)])


def _every(every: Measured, parts: Parts, built: Mapping[str, Artifact]) -> str:
    introduction = (
        "All functions of Tally, each with its event from `events/`. The total and its parts were"
        f" measured in separate rounds ({ROUNDS_OF_ALL} of each), so they do not add up exactly."
    )
    rows = [
        (
            f"`{name}`",
            _milliseconds(seconds),
            *_each_part(parts[name]),
            _megabytes(built[name].zipped),
        )
        for name, seconds in every.items()
    ]
    return "\n\n".join(
        [introduction, table(("function", "ms", *_PARTS.values(), "MB zipped"), rows)]
    )


def _each_part(runs: Sequence[Mapping[str, float]]) -> list[str]:
    return [_milliseconds([run[part] for run in runs]) for part in _PARTS]


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1000 * median(seconds):.0f}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"


if __name__ == "__main__":
    print(measure().markdown())
