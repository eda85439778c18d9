"""Runs every benchmark and writes docs/benchmarks.md: `make bench`."""

import sys
import time
from pathlib import Path

from tests import lambda_runtime
from tests.browser.conftest import chromium

from bench import (
    audit,
    buffer,
    cold_start,
    concurrency,
    cost,
    dashboard,
    http_load,
    memory,
    scale,
    unusual,
    warm_path,
)
from bench.report import machine

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"

# One benchmark for each section of the page, in the same order.
BENCHMARKS = (
    cold_start,
    warm_path,
    memory,
    concurrency,
    http_load,
    cost,
    buffer,
    scale,
    audit,
    unusual,
    dashboard,
)


def main() -> None:
    """Run all benchmarks one after another, then write the page.

    Raises:
        SystemExit: if the benchmarks cannot run on this machine.
    """
    if not lambda_runtime.is_available():
        sys.exit(f"make bench needs {lambda_runtime.NEEDS}")
    if chromium(dashboard.PROGRAMS) is None:
        sys.exit("make bench needs an installed Chromium")
    start = time.monotonic()
    sections = []
    for benchmark in BENCHMARKS:
        minutes = (time.monotonic() - start) / 60
        print(f"{minutes:.1f} min: running {benchmark.__name__}…", flush=True)
        sections.append(benchmark.measure().markdown())
    minutes = (time.monotonic() - start) / 60
    head = (
        "# Benchmarks\n\n"
        "`make bench` writes this page. Each section begins with the command that measures only"
        " this section. Run the command with the Python of `.venv` and with"
        " `PYTHONPATH=functions:scripts`. The programs that a table compares were measured in turn,"
        " in the same run. On another machine, you will measure other times, but similar ratios"
        " between programs.\n\n"
        f"{machine()}; the run took {minutes:.0f} minutes.\n\n"
    )
    PAGE.write_text(head + "\n".join(sections), encoding="utf-8")
    print(f"wrote docs/{PAGE.name} in {minutes:.1f} minutes")


if __name__ == "__main__":
    main()
