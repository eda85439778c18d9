"""Measures cold starts: the time from the start of a process to its first response."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import urllib3
from tests.component.samples import load

from bench import artifacts, build_steps, flask_server, runtime
from bench.artifacts import FLASK, Artifact
from bench.report import Section, bars, median, table
from bench.rounds import interleaved, shown_ratio
from bench.runtime import Runtime

ROUNDS = 9
ROUNDS_OF_ALL = 3
ROUNDS_OF_PARTS = 3
ROUNDS_OF_STEPS = 15

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

START_SECONDS = 60  # the longest time that Flask may take to start

# The parts of a cold start. The keys are the names in bench/probe.py, and the values are the names
# in the tables.
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
    """Measure, and return the section of docs/benchmarks.md. This takes about three minutes."""
    ours, peers = artifacts.ours(), artifacts.peers()
    lambdas = {name: artifact for name, artifact in peers.items() if name != FLASK}
    compared = {OURS: ours[OURS], **lambdas}
    with runtime.running() as running:
        started = {name: _first_response(running, artifact) for name, artifact in compared.items()}
        started[FLASK] = partial(_flask, peers[FLASK])
        first = interleaved(started, ROUNDS)
        parts = interleaved(
            {name: partial(_parts, running, artifact) for name, artifact in compared.items()},
            ROUNDS_OF_PARTS,
        )
        every = interleaved(
            {name: _first_response(running, artifact, name) for name, artifact in ours.items()},
            ROUNDS_OF_ALL,
        )
        every_parts = interleaved(
            {name: partial(_parts, running, artifact, name) for name, artifact in ours.items()},
            ROUNDS_OF_ALL,
        )
        steps = _without_each_step(running, ours[OURS])
    texts = (
        _comparison_text(first, {OURS: ours[OURS], **peers}),
        _parts_text(parts),
        _steps_text(steps),
        _functions_text(every, every_parts, ours),
    )
    return Section("Cold start", "python -m bench.cold_start", "\n\n".join(texts))


def _first_response(running: Runtime, artifact: Artifact, event: str = OURS) -> Callable[[], float]:
    """Return a callable that starts a function and returns the seconds to its first response.

    Args:
        running: what the function needs to run as on Lambda.
        artifact: the function.
        event: the name of the sample event with which the function is invoked.
    """
    sample = load(event)
    return lambda: runtime.first_answer(running, artifact, sample)[0]


def _flask(artifact: Artifact) -> float:
    """Start Flask and return the seconds to its first HTTP response.

    Raises:
        RuntimeError: if Flask did not respond within START_SECONDS.
    """
    body = load(OURS)["body"].encode()
    headers = {"Content-Type": "application/json"}
    http = urllib3.PoolManager(retries=False)
    start = time.perf_counter()
    with flask_server.serving(artifact) as address:
        while time.perf_counter() < start + START_SECONDS:
            with suppress(urllib3.exceptions.HTTPError):  # Flask is not listening yet
                http.request("POST", f"{address}/counters/orders%3Aeu", body=body, headers=headers)
                return time.perf_counter() - start
            time.sleep(_POLL_SECONDS)
    message = "Flask did not respond"
    raise RuntimeError(message)


def _parts(running: Runtime, artifact: Artifact, event: str = OURS) -> dict[str, float]:
    """Start a function through bench/probe.py, and return how many seconds each part took."""
    probed = replace(artifact, handler="bench_probe.handler")
    wanted = {"BENCH_HANDLER": artifact.handler}
    parts: dict[str, float]
    _, parts = runtime.first_answer(running, probed, load(event), wanted)
    return parts


def _without_each_step(running: Runtime, artifact: Artifact) -> Measured:
    """Return the seconds to the first response: of Tally, and of copies with one step undone."""
    with build_steps.undone(artifact, build_steps.COLD) as copies:
        variants = {NAMES[OURS]: artifact, **copies}
        return interleaved(
            {name: _first_response(running, variant) for name, variant in variants.items()},
            ROUNDS_OF_STEPS,
        )


def _comparison_text(first: Measured, built: Mapping[str, Artifact]) -> str:
    introduction = (
        "The next table shows the time from the start of a fresh process to its first response to"
        " an increment. It compares Tally with other programs that count.\n\n"
        "- The usual stack is a function that uses Powertools and boto3's resource. The floor is a"
        " function that does only the least that an increment needs.\n"
        "- The programs other than Tally are built with a plain `sam build`, as their users would"
        " build them.\n"
        "- Functions run with AWS's own runtime client. Their database is a stand-in that responds"
        " at once. As on Lambda, functions cannot write to their artifact (the built files).\n"
        "- Flask does not run on Lambda, but in the HTTP server waitress. Its time ends with"
        " the first response over HTTP.\n"
        f"- Times are medians of {ROUNDS} rounds. Each round starts one process of every program.\n"
        "- A ratio compares two programs in the same round. The tables have the median of the"
        " ratios of all rounds, with the lowest and the highest ratio in parentheses."
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


def _parts_text(parts: Parts) -> str:
    introduction = (
        "The next table shows the parts of a cold start. They were measured in"
        f" {ROUNDS_OF_PARTS} rounds of their own, after the rounds of the table above. The column"
        " `clients` is the time in botocore's `create_client`, which a program may call during"
        " imports or in the first call. The other columns do not include this time. If a program"
        " opens a connection before the first event, the time for the connection is in `imports`."
    )
    rows = [(NAMES[name], *_each_part(runs)) for name, runs in parts.items()]
    return "\n\n".join([introduction, table(("ms", *_PARTS.values()), rows)])


def _steps_text(steps: Measured) -> str:
    introduction = (
        "The next table shows what each step of Tally's build saves. The first row is Tally. Each"
        " other row is a copy of Tally in which one step was undone. All rows were measured in the"
        f" same {ROUNDS_OF_STEPS} rounds. The ratio is the time of the copy divided by the time of"
        " Tally in the same round. On a shared machine, the rounds differ a lot. If the lowest"
        " ratio of a row is below 1, these rounds do not prove that the step saves time."
    )
    rows = [
        (name, _milliseconds(seconds), shown_ratio(seconds, steps[NAMES[OURS]]))
        for name, seconds in steps.items()
    ]
    return "\n\n".join([introduction, table(("build", "ms", "ratio to Tally"), rows)])


def _functions_text(every: Measured, parts: Parts, built: Mapping[str, Artifact]) -> str:
    introduction = (
        "The next table shows all functions of Tally. Each function was invoked with its sample"
        f" event from `events/`. The total (the column `ms`) was measured in {ROUNDS_OF_ALL}"
        f" rounds, and the parts in {ROUNDS_OF_ALL} other rounds. So the sum of the parts differs"
        " from the total."
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
