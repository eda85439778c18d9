"""Estimates the time and the cost of an increment for several memory sizes of the function."""

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

# With this memory size, a function has one full CPU. With half of this memory, it has half a CPU.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
MB_OF_A_CPU = 1769

# The assumed time that an increment waits for DynamoDB in the same region, in milliseconds.
WAIT = 5.0


@dataclass(frozen=True)
class Used:
    """What one process of a function used.

    Attributes:
        start: the CPU time from the start of the process to its first response, in milliseconds.
        call: the CPU time of each later call, in milliseconds.
        peak: the most memory that the process held, in MB.
    """

    start: float
    call: float
    peak: float


def measure() -> Section:
    """Measure, and return the section of docs/benchmarks.md. This takes about half a minute."""
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
    """Return the CPU time that a process has used (user and system time), in milliseconds."""
    time.sleep(0.02)  # after its response, the process still has to ask for the next event
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _text(used: list[Used]) -> str:
    call = median([each.call for each in used])
    start = median([each.start for each in used])
    peak = median([each.peak for each in used])
    default = int(aws_template.parameter("MemorySize"))
    introduction = (
        "These numbers were measured with AWS's own runtime client. They are medians of"
        f" {ROUNDS} processes:\n\n"
        f"- An increment takes {call:.1f} ms of CPU time.\n"
        f"- A process takes {start:.0f} ms of CPU time from its start to its first response.\n"
        f"- A process uses at most {peak:.0f} MB of memory.\n\n"
        "The table is calculated from four numbers:\n\n"
        "- the CPU time of an increment\n"
        "- the share of a CPU that a function gets with each memory size\n"
        f"- {WAIT:.0f} ms of waiting for DynamoDB (an assumption)\n"
        "- Lambda's price for arm64\n\n"
        f"{SIZES[0]} MB is too little for a function that reads much data. Up to {default} MB, more"
        f" memory makes an increment much faster, and its cost rises slowly. Above {default} MB,"
        " more memory makes an increment only a little faster, and its cost rises more. So"
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
