"""How long a first answer takes: a process is started as Lambda starts it, and asked once."""

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

START_SECONDS = 60  # that Flask has

# Of a start, as bench/probe.py tells them, and in the words of the tables.
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
    """Measure, for about three minutes, and return what there is to say."""
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
    """Return what starts a function and returns the seconds to its answer to a sample event."""
    sample = load(event)
    return lambda: runtime.first_answer(running, artifact, sample)[0]


def _flask(artifact: Artifact) -> float:
    """Start Flask and return the seconds to its first HTTP answer.

    Raises:
        RuntimeError: there was none, in time.
    """
    body = load(OURS)["body"].encode()
    headers = {"Content-Type": "application/json"}
    http = urllib3.PoolManager(retries=False)
    start = time.perf_counter()
    with flask_server.serving(artifact) as address:
        while time.perf_counter() < start + START_SECONDS:
            with suppress(urllib3.exceptions.HTTPError):  # it does not listen yet
                http.request("POST", f"{address}/counters/orders%3Aeu", body=body, headers=headers)
                return time.perf_counter() - start
            time.sleep(_POLL_SECONDS)
    message = "Flask did not answer"
    raise RuntimeError(message)


def _parts(running: Runtime, artifact: Artifact, event: str = OURS) -> dict[str, float]:
    """Start a function with the probe around it, and return the seconds of each part."""
    probed = replace(artifact, handler="bench_probe.handler")
    wanted = {"BENCH_HANDLER": artifact.handler}
    parts: dict[str, float]
    _, parts = runtime.first_answer(running, probed, load(event), wanted)
    return parts


def _ladder(running: Runtime, artifact: Artifact) -> Measured:
    """Return the seconds to the first answer of our artifact, and with each step undone."""
    with ladder.undone(artifact, ladder.COLD) as copies:
        variants = {NAMES[OURS]: artifact, **copies}
        return interleaved(
            {name: _answered(running, variant) for name, variant in variants.items()},
            ROUNDS_OF_LADDER,
        )


def _compared(first: Measured, built: Mapping[str, Artifact]) -> str:
    told = (
        "From the start of a fresh process to its first answer, under AWS's own runtime client and"
        " with a database that answers at once; as on Lambda, nothing can be written to the"
        f" artifact. The median of {ROUNDS} rounds, each with a process of every program; the"
        " ratios are those of the rounds: median, least and greatest. The peers are built as their"
        " users do, by a plain `sam build`. Flask is served by waitress, and answers its first"
        " HTTP request."
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
    columns = ("an increment", "ms", "to the usual stack", "to the floor", "MB zipped", "MB")
    drawn = {NAMES[name]: 1000 * median(first[name]) for name in built}
    chart = bars("First answer of a fresh process", "ms", drawn)
    return "\n\n".join([told, table(columns, rows), chart])


def _split(parts: Parts) -> str:
    told = (
        f"Where it goes, by a probe in {ROUNDS_OF_SPLIT} other rounds. `clients` is botocore's"
        " `create_client`, wherever it is called; it is in no other column."
        " A connection that is opened before the first event is in `imports`."
    )
    rows = [(NAMES[name], *_each_part(runs)) for name, runs in parts.items()]
    return "\n\n".join([told, table(("ms of it", *_PARTS.values()), rows)])


def _climbed(steps: Measured) -> str:
    told = (
        "What each step of our build bought: one of them undone in a copy of the artifact"
        f" ({ROUNDS_OF_LADDER} rounds)."
    )
    rows = [
        (name, _milliseconds(seconds), shown_ratio(seconds, steps[NAMES[OURS]]))
        for name, seconds in steps.items()
    ]
    return "\n\n".join([told, table(("an increment", "ms", "to Tally"), rows)])


def _every(every: Measured, parts: Parts, built: Mapping[str, Artifact]) -> str:
    told = (
        "All our functions, each with its event of `events/`; where it goes is again told by other"
        f" rounds ({ROUNDS_OF_ALL} of each)."
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
    return "\n\n".join([told, table(("function", "ms", *_PARTS.values(), "MB zipped"), rows)])


def _each_part(runs: Sequence[Mapping[str, float]]) -> list[str]:
    return [_milliseconds([run[part] for run in runs]) for part in _PARTS]


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1000 * median(seconds):.0f}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"


if __name__ == "__main__":
    print(measure().markdown())
