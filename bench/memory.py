"""What memory costs and what it brings: a function's share of a CPU goes with it."""

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

# A function has a whole CPU at this memory, and less in proportion below.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
MB_OF_A_CPU = 1769

# What an increment waits for DynamoDB in the same region, in milliseconds: assumed.
WAIT = 5.0


@dataclass(frozen=True)
class Used:
    """What a process took: CPU in milliseconds until its first answer, and a call then; MB."""

    start: float
    call: float
    peak: float


def measure() -> Section:
    """Measure, for about half a minute, and return what there is to say."""
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
    time.sleep(0.02)  # its answer has come; let it get to where it waits for the next event
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _text(used: list[Used]) -> str:
    call = median([each.call for each in used])
    start = median([each.start for each in used])
    peak = median([each.peak for each in used])
    default = int(aws_template.parameter("MemorySize"))
    told = (
        f"An increment takes {call:.1f} ms of CPU with the runtime client, a start up to the first"
        f" answer {start:.0f} ms, and {peak:.0f} MB at the most (the median of {ROUNDS} processes)."
        f" The rest is arithmetic: the share of a CPU that the memory gives, {WAIT:.0f} ms that"
        " DynamoDB is waited for (an assumption), and Lambda's price of time on arm64."
        " The least is too small for what a process takes when it has much to read; the time falls"
        f" and the cost rises slowly up to {default} MB, and then mostly the cost: that is what the"
        " parameter `MemorySize` has, if it is not given."
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
    chart = lines("An increment by memory, MB", "ms", SIZES, [list(times.values())])
    return "\n\n".join([told, table(("memory", "ms", "dollars a million"), rows), chart])


if __name__ == "__main__":
    print(measure().markdown())
