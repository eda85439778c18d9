"""Calculates what a million of each operation costs, from measured units and list prices.

`python -m bench.cost` prints the section.
"""

import uuid
from collections.abc import Mapping, Sequence

from bench import prices, tokens, usage
from bench.aws_output import PLATFORM_BYTES
from bench.report import Section, bars, cents, table
from bench.service import MESSAGES, Service, running
from bench.usage import DATABASE_MS, FUNCTION_MS, MEMORY, SAMPLED, Operation, Usage

# Increments in a POST /increments, entries on a page, and changes in a run of record_history.
BATCH = 100

# The units in which a price is shown, if that is not a million: how many, and their name.
_CHARGED = {
    "byte": (prices.GIGABYTE, "GB"),
    "token": (1000, "1,000 tokens"),
    "person and month": (1, "person and month"),
}

_MEASURED = """
The next table shows what one operation consumes. In the columns "batch of 100", "queue, by 10" and
"bus, by 10", each number is what the whole batch consumes, divided by its number of increments.

- The functions run in the benchmark's process and use an emulated database, which reports the units
  that DynamoDB would charge. For a page of history, the units are calculated from the sizes of its
  entries.
- The function `record_history` writes changes to the history, in batches. "Recorded alone" is for a
  batch that has only this change. "Recorded among 100" is for a batch of a hundred changes. In the
  column "batch of 100", these are one change of each of a hundred counters. In all other columns,
  they are changes of one counter.
- The counters and their trend items of the current hour exist before the measurement. The operation
  that creates such an item costs more.
- For events on the bus, `forward_events` runs once for ten events, and sends them to
  `IncrementQueue` in one request. The row "requests to DynamoDB, or from one queue to the other"
  includes this request. The ten events are then counted like ten messages for one counter.
- Two sizes are estimates from AWS's documentation: that of a line of the access log, and that of
  API Gateway's headers.
""".strip()

_DOLLARS = f"""
The next table shows the price of a million operations in US dollars, without free tiers. The run
time of a function is an assumption, not a measurement: {FUNCTION_MS} ms, plus {DATABASE_MS} ms for
each request that the function sends. The function has {MEMORY} GB of memory.
""".strip()

_SETTINGS = f"""
The next table shows what the settings for logs and traces cost. The prices are for a million
increments over HTTP, with their history, in US dollars.

- `SystemLogLevel=INFO` adds two log lines of Lambda for each run. Their size is an estimate from
  AWS's documentation: {PLATFORM_BYTES} bytes.
- `Tracing=Active` traces the first request of each second, and {SAMPLED:.0%} of all others. So up
  to one request per second, X-Ray traces all requests. A run of `record_history` has a trace of its
  own.

The table after it shows what it costs to record a change, by the number of changes that
`record_history` gets in a batch. The parameter `StreamBatchingSeconds` makes batches larger.
""".strip()

# The settings for logs and traces that a table compares.
_WATCHING = {
    "the defaults": usage.DEFAULT,
    "`SystemLogLevel=INFO`": usage.Watching(platform_logs=True),
    f"`Tracing=Active`, {SAMPLED:.0%} of the requests traced": usage.Watching(traced=SAMPLED),
    "`Tracing=Active`, all requests traced": usage.Watching(traced=1),
    "`SystemLogLevel=INFO`, `Tracing=Active`, 5% traced": usage.Watching(
        platform_logs=True, traced=SAMPLED
    ),
}

_BATCHES = (1, 2, 5, 10, 20, 50, 100)  # sizes of a batch

_OTHERS = """
The next table compares Tally with other managed services that can count. A price is for a million
increments. If a plan includes some increments, the price is for a million more. Most prices are for
the counting alone. You would also have to build, run and pay for everything in the column "lacks".
Each price comes from the linked page. The column "as of" has the month that the page gives for its
prices. If the page gives no month, the column has November 2026, when the page was read. Some pages
are not from the vendor of the service, but quote the vendor. The table has only services for which
a published price was found.
""".strip()


def recordings(service: Service) -> dict[int, tuple[Usage, Usage]]:
    """Measure what it takes to record a change, by the size of the batch.

    Args:
        service: runs the functions.

    Returns:
        For each size, what a change takes if all changes are of one counter, and if each change is
        of a different counter.
    """
    paths = [f"/counters/batched:{number}" for number in range(max(_BATCHES))]
    _record(service, paths)  # the first change of a counter costs more
    return {
        size: (_record(service, paths[:1] * size), _record(service, paths[:size]))
        for size in _BATCHES
    }


def _record(service: Service, paths: Sequence[str]) -> Usage:
    """Change the counters, and return what it takes to record each change, all in one batch."""
    for path in paths:
        service.request("POST", path)
    return service.record()


def operations(service: Service) -> list[Operation]:
    """Measure each operation on counters that already exist.

    Args:
        service: runs the functions.
    """
    one, busy = "orders:eu", "views:home"
    path = f"/counters/{one}"
    names = [f"stock:{number:03}" for number in range(BATCH)]
    moves = {"increments": [{"counter_id": name, "by": 1} for name in names]}
    key = {"Idempotency-Key": str(uuid.uuid4())}
    for _ in range(2):  # the first change of a counter, hour or message group costs more
        service.request("POST", path)
        service.record()
        service.request("POST", "/increments", body=moves)
        service.record()
        service.ingest(busy)
        service.record()

    plain = service.request("POST", path)
    alone = service.record()
    keyed = service.request("POST", path, headers=key)
    keyed_alone = service.record()
    repeated = service.request("POST", path, headers=key)
    for _ in range(BATCH):
        service.request("POST", path)
    among = service.record()
    moved = service.request("POST", "/increments", body=moves).per(BATCH)
    moved_among = service.record()
    queued = service.ingest(busy).per(MESSAGES)
    forwarded = service.forward(busy).per(MESSAGES)
    queued_alone = service.record().per(MESSAGES)
    for _ in range(BATCH):
        service.ingest(busy)
    queued_among = service.record().per(MESSAGES)
    return [
        Operation("increment", plain, alone, among),
        Operation("with a key", keyed, keyed_alone, among),
        Operation("repeat with the key", repeated),
        Operation(f"batch of {BATCH}", moved, alone, moved_among),
        Operation(f"queue, by {MESSAGES}", queued, queued_alone, queued_among),
        Operation(f"bus, by {MESSAGES}", forwarded + queued, queued_alone, queued_among),
        Operation("read", service.request("GET", path)),
        Operation(f"history page of {BATCH}", service.request("GET", f"{path}/history")),
    ]


def measure() -> Section:
    """Measure each operation, and return the section of docs/benchmarks.md."""
    with running() as service:
        measured_operations = operations(service)
        recorded = recordings(service)
        issued = tokens.measure(service)
    titles = [operation.name for operation in measured_operations]
    totals = {operation.name: operation.total(operation.alone) for operation in measured_operations}
    picture = bars("A million operations, each change recorded alone", "US dollars", totals)
    compared = ["service", "US dollars per million increments", "charges", "lacks", "as of"]
    parts = (
        _MEASURED,
        table(["per operation", *titles], _amounts(measured_operations)),
        _DOLLARS,
        table(["US dollars per million", *titles], _lines(measured_operations)),
        picture,
        _SETTINGS,
        table(_SETTINGS_COLUMNS, _settings(*measured_operations[:2])),
        table(_BATCH_COLUMNS, _batches(recorded)),
        table(["list price in us-east-1", "US dollars", "source", "as of"], _prices()),
        tokens.text(issued),
        _OTHERS,
        table(compared, _others(measured_operations)),
    )
    return Section("What does a million cost?", "python -m bench.cost", "\n\n".join(parts))


def _amounts(measured_operations: Sequence[Operation]) -> list[list[object]]:
    rows: dict[str, list[float]] = {}
    for operation in measured_operations:
        own, alone, among = operation.own, operation.alone, operation.among
        for name, value in {
            "write units": own.writes,
            "read units": own.reads,
            "requests to DynamoDB, or from one queue to the other": own.requests,
            "bytes of the response's body": own.body,
            "bytes of the response with its headers": own.answer,
            "bytes of the function's log lines": own.logs,
            "bytes of all log lines: the function's, Lambda's, the access log": own.all_logs(),
            "recorded alone: write units": alone.writes,
            "recorded alone: read units": alone.reads,
            "recorded alone: bytes of the function's log lines": alone.logs,
            "recorded alone: bytes of all log lines": alone.all_logs(),
            "recorded among 100: write units": among.writes,
            "recorded among 100: read units": among.reads,
            "recorded among 100: bytes of all log lines": among.all_logs(),
        }.items():
            rows.setdefault(name, []).append(value)
    return [[name, *map(_amount, values)] for name, values in rows.items()]


def _lines(measured_operations: Sequence[Operation]) -> list[list[object]]:
    rows: dict[str, list[float]] = {}
    for operation in measured_operations:
        for name, value in operation.own.dollars().items():
            rows.setdefault(name, []).append(value)
        for name, value in operation.alone.dollars().items():
            if name.partition(",")[0] in {"DynamoDB", "Lambda", "CloudWatch Logs", "X-Ray"}:
                rows.setdefault(f"history: {name}", []).append(value)
        for name, value in {
            "**total**, each change recorded alone": operation.total(operation.alone),
            "**total**, a hundred changes recorded at a time": operation.total(operation.among),
        }.items():
            rows.setdefault(name, []).append(value)
    return [[name, *map(cents, values)] for name, values in rows.items()]


_SETTINGS_COLUMNS = (
    *("settings", "each change recorded alone", "a hundred changes recorded at a time"),
    *("with a key, alone", "with a key, a hundred at a time"),
)
_BATCH_COLUMNS = (
    *("changes in a batch", "US dollars to record a million changes of one counter"),
    "… if each change in a batch is of a different counter",
)


def _settings(plain: Operation, keyed: Operation) -> list[list[object]]:
    return [
        [
            name,
            *(
                cents(each.total(recorded, watching))
                for each in (plain, keyed)
                for recorded in (each.alone, each.among)
            ),
        ]
        for name, watching in _WATCHING.items()
    ]


def _batches(recorded: Mapping[int, tuple[Usage, Usage]]) -> list[list[object]]:
    return [
        [size, *(cents(sum(each.dollars().values())) for each in usages)]
        for size, usages in recorded.items()
    ]


def _prices() -> list[list[object]]:
    rows: list[list[object]] = []
    for price in prices.AWS:
        factor, unit = _CHARGED.get(price.unit, (prices.MILLION, f"million {price.unit}s"))
        charged = f"{price.dollars * factor:.6g} per {unit}"
        rows.append([price.name, charged, f"<{price.source}>", price.date])
    return rows


def _others(measured_operations: Sequence[Operation]) -> list[list[object]]:
    plain, queued = measured_operations[0], measured_operations[4]
    rows: list[list[object]] = [
        [f"Tally: {each.name}", cents(each.total(each.alone)), "see the table above", "", ""]
        for each in (plain, queued)
    ]
    for other in sorted(prices.ALTERNATIVES, key=lambda each: each.dollars):
        how = f"[{other.how}]({other.source})"
        rows.append([other.name, f"{other.dollars:.4g}", how, other.lacks, other.date])
    return rows


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= BATCH else f"{value:.4g}"


if __name__ == "__main__":
    print(measure().markdown())
