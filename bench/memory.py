"""Estimates time and cost for each memory size, which also sets a function's share of a CPU."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from tests import aws_template, lambda_runtime, runtime_api
from tests.component.samples import load

from bench import artifacts, prices, runtime
from bench.artifacts import Artifact
from bench.report import Section, lines, median, table
from bench.runtime import Runtime

ROUNDS = 5
WARM_UP = 50
CALLS = 300
ANSWER_SECONDS = 60

SIZES = (128, 256, 512, 768, 1024, 1769)  # MB

# A function has one full CPU at this memory size, and proportionally less below it.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
MB_OF_A_CPU = 1769

# How long an increment waits for DynamoDB in the same region, in milliseconds: an assumption.
WAIT = 5.0


@dataclass(frozen=True)
class Used:
    """What a process used.

    Attributes:
        start: the CPU time until its first response, in milliseconds.
        call: the CPU time of a later call, in milliseconds.
        peak: the most memory that it held, in MB.
    """

    start: float
    call: float
    peak: float


def measure() -> Section:
    """Measure for about half a minute, and return the section."""
    artifact = artifacts.ours()["increment_counter"]
    with runtime.running() as running:
        used = [_used(running, artifact) for _ in range(ROUNDS)]
    return Section("Memory", "python -m bench.memory", _text(used))


def _used(running: Runtime, artifact: Artifact) -> Used:
    event = load("increment_counter")
    with (
        runtime_api.serving(ANSWER_SECONDS) as api,
        lambda_runtime.process(api, running.environment(artifact)) as process,
    ):
        api.invoke(event)
        first = _cpu(process.pid)
        for _ in range(WARM_UP):
            api.invoke(event)
        before = _cpu(process.pid)
        for _ in range(CALLS):
            api.invoke(event)
        call = (_cpu(process.pid) - before) / CALLS
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+) kB", status)
        return Used(first, call, int(peak[1]) / 1000 if peak else float("nan"))


def _cpu(pid: int) -> float:
    """Return the user and system time of a process in milliseconds."""
    time.sleep(0.02)  # it has responded, but may still be on its way to the next event
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _text(used: list[Used]) -> str:
    call = median([each.call for each in used])
    start = median([each.start for each in used])
    peak = median([each.peak for each in used])
    default = int(aws_template.parameter("MemorySize"))
    introduction = (
        f"Measured, as medians of {ROUNDS} processes under AWS's own runtime client:\n\n"
        f"- An increment takes {call:.1f} ms of CPU time.\n"
        f"- A start takes {start:.0f} ms of CPU time up to its first response.\n"
        f"- A process holds at most {peak:.0f} MB.\n\n"
        "The table is calculated from that, with the share of a CPU that each memory size has,"
        f" {WAIT:.0f} ms of waiting for DynamoDB (an assumption), and Lambda's price for arm64."
        f" {SIZES[0]} MB is too little for a process that has much to read. Up to {default} MB, the"
        " time falls and the cost rises slowly. Above that, mainly the cost rises. So"
        f" {default} is the default of the parameter `MemorySize`."
    )
    times = {size: WAIT + call * MB_OF_A_CPU / size for size in SIZES}
    rows = [
        (
            f"{size} MB",
            f"{times[size]:.1f}",
            f"{times[size] / 1000 * size / 1024 * prices.LAMBDA_TIME.dollars * 1e6:.3f}",
        )
        for size in SIZES
    ]
    chart = lines("Time of an increment by memory in MB", "ms", SIZES, [list(times.values())])
    return "\n\n".join(
        [introduction, table(("memory", "ms", "US dollars per million"), rows), chart]
    )


if __name__ == "__main__":
    print(measure().markdown())
