"""What a million of each operation costs: consumption as measured here, at list prices.

`python -m bench.cost` prints the section.
"""

import uuid
from collections.abc import Sequence

from bench import prices
from bench.aws_output import PLATFORM_BYTES
from bench.report import Section, bars, table
from bench.service import MESSAGES, Service, running
from bench.usage import DATABASE_MS, FUNCTION_MS, MEMORY, SAMPLED, Operation

# Increments in a POST /increments, entries on a page, and changes in a run of record_history.
BATCH = 100

_MEASURED = f"""
What one operation consumes. For a batch, the numbers are for each increment in it.

- The functions run in the benchmark's process, against an emulated database that reports units. For
  a page of history, the units are calculated from the sizes of its entries.
- "Recorded alone" means that a run of `record_history` records only this change. "Recorded among
  100" means that a run records a hundred changes, of one counter or of the hundred counters of a
  batch.
- The counters exist already, and so do the trend items of the current hour.
- On the bus, `forward_events` runs once for each ten events. Its one request to the queue is
  included in the row of requests. Then ten events of one counter are counted like queue messages.
- Some sizes are estimates, after AWS's documentation: Lambda's own two log lines for a run
  ({PLATFORM_BYTES} bytes), the access log, and API Gateway's headers.
""".strip()

_DOLLARS = f"""
US dollars for a million operations, without free tiers. The run time of a function is not measured.
It is assumed to be {FUNCTION_MS} ms plus {DATABASE_MS} ms for each request, at {MEMORY} GB.
X-Ray traces {SAMPLED:.0%} of the runs.
""".strip()

_OTHERS = """
Other managed services that can count, and what a million increments cost beyond what a plan
includes. Most prices are for the operation alone: you would build, run and pay for what is in the
column "lacks". Each price is from the linked page, as of the month that the page gives, or else
November 2026, when it was read. Pages that are not the vendor's quote the vendor. Services whose
prices could not be found published are left out.
""".strip()


def operations(service: Service) -> list[Operation]:
    """Measure each operation, on counters that exist already.

    Args:
        service: runs the functions.
    """
    one, busy = "orders:eu", "views:home"
    path = f"/counters/{one}"
    names = [f"stock:{number:03}" for number in range(BATCH)]
    moves = {"increments": [{"counter_id": name, "by": 1} for name in names]}
    key = {"Idempotency-Key": str(uuid.uuid4())}
    for _ in range(2):  # creating a counter, a trend item or a message group costs more, once
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
    """Measure what each operation consumes and costs; return the section."""
    with running() as service:
        measured_operations = operations(service)
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
        table(["list price in us-east-1", "US dollars", "source", "as of"], _prices()),
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
    return [[name, *map(_cents, values)] for name, values in rows.items()]


def _prices() -> list[list[object]]:
    rows: list[list[object]] = []
    for price in prices.AWS:
        factor, unit = prices.MILLION, f"million {price.unit}s"
        if price.unit == "byte":
            factor, unit = prices.GIGABYTE, "GB"
        charged = f"{price.dollars * factor:.6g} per {unit}"
        rows.append([price.name, charged, f"<{price.source}>", price.date])
    return rows


def _others(measured_operations: Sequence[Operation]) -> list[list[object]]:
    plain, queued = measured_operations[0], measured_operations[4]
    rows: list[list[object]] = [
        [f"Tally: {each.name}", _cents(each.total(each.alone)), "see the table above", "", ""]
        for each in (plain, queued)
    ]
    for other in sorted(prices.ALTERNATIVES, key=lambda each: each.dollars):
        how = f"[{other.how}]({other.source})"
        rows.append([other.name, f"{other.dollars:.4g}", how, other.lacks, other.date])
    return rows


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= BATCH else f"{value:.4g}"


def _cents(dollars: float) -> str:
    return f"{dollars + 1e-9:.2f}"  # rounds half a cent up


if __name__ == "__main__":
    print(measure().markdown())
