"""Runs every benchmark and writes docs/benchmarks.md: `make bench`."""

import sys
import time
from pathlib import Path

from tests import lambda_runtime

from bench import cold_start, concurrency, cost, memory, scale, warm_path
from bench.report import machine

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"

# In the order of the page.
BENCHMARKS = (cold_start, warm_path, memory, concurrency, cost, scale)


def main() -> None:
    """Run them one after the other; the page is written when all have run.

    Raises:
        SystemExit: they cannot run here.
    """
    if not lambda_runtime.is_here():
        sys.exit(f"make bench needs {lambda_runtime.NEEDS}")
    start = time.monotonic()
    sections = []
    for benchmark in BENCHMARKS:
        minutes = (time.monotonic() - start) / 60
        print(f"{minutes:.1f} min: {benchmark.__name__} …", flush=True)
        sections.append(benchmark.measure().markdown())
    minutes = (time.monotonic() - start) / 60
    head = (
        "# Benchmarks\n\n"
        "`make bench` writes this page; each section has the command that makes it alone, with"
        " `PYTHONPATH=functions:scripts`. What is compared was measured side by side in one run: on"
        " another machine the milliseconds differ, and the ratios little.\n\n"
        f"{machine()}; {minutes:.0f} minutes.\n\n"
    )
    PAGE.write_text(head + "\n".join(sections), encoding="utf-8")
    print(f"written: {PAGE.name}, in {minutes:.1f} minutes")


if __name__ == "__main__":
    main()
