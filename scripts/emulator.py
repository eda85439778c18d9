"""Runs MiniStack, an emulator of AWS, with corrections, and so that it takes less CPU time.

The corrections change how MiniStack handles streams, queues, alarms, errors of API Gateway, and
Cognito's sign-in. They replace private Python functions of MiniStack, so they fit exactly one
version of MiniStack.
`emulator_process.py` starts this program. Environment variables contain the settings.
"""

import gc
import importlib.metadata
import os
import signal
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from ministack import app
from ministack.services import dynamodb, lambda_svc
from ministack.services.cloudformation import provisioners

import cognito_corrections
import function_processes
import gateway_responses
import queue_corrections
import saving
import snapshots
import web_server

MINISTACK = "1.5.33"
STREAM_POLL_SECONDS = 0.05

Execute = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


def main() -> None:
    """Run MiniStack until this process gets SIGTERM or SIGINT, or its parent process ends.

    Raises:
        SystemExit: the installed MiniStack is not the version that this module corrects, or the
            saved state cannot be read.

    """
    installed = importlib.metadata.version("ministack")
    if installed != MINISTACK:
        sys.exit(
            f"scripts/emulator.py works with MiniStack {MINISTACK}, but {installed} is installed"
        )
    execute = redeliver_partial_failures(lambda_svc._execute_function)
    lambda_svc._execute_function = split_stream_batches(execute)
    keep_stream_records()
    fill_stream_batches()
    poll_streams_apart()
    remember_expressions()
    accept_alarms_of_several_metrics()
    accept_saved_queries()
    limit_versions_with_their_function()
    queue_corrections.use()
    gateway_responses.use()
    cognito_corrections.use()
    web_server.use()
    function_processes.use(lock=int(os.environ["STATE_LOCK"]))
    if os.environ["PERSIST_STATE"] == "1":
        load_state(save=os.environ["SAVE_STATE"] == "1")
    threading.Thread(target=stop_with_parent, daemon=True).start()
    # With Python's defaults, the garbage collector takes a twentieth of the CPU time.
    gc.set_threshold(50_000, 20, 20)
    app.main()


def redeliver_partial_failures(execute: Execute) -> Execute:
    """Wrap MiniStack's `_execute_function`, so that a stream batch fails if any record fails.

    For a batch of stream records, a Lambda function returns the failed records in
    `batchItemFailures`. MiniStack ignores them: it goes on with the next batch, and never delivers
    the failed records again. With this correction, MiniStack delivers the whole batch again. AWS
    may do the same.

    Args:
        execute: runs a Lambda function. It takes MiniStack's description of the Lambda function,
            and an event. It returns `body`, `log` and, after a failure, `error`.

    Returns:
        A function that does what `execute` does, but also returns `error` if a record failed.

    """

    def corrected(function: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
        result = execute(function, event)
        match result:
            case {"body": {"batchItemFailures": [_, *_] as failures}}:
                if is_from_stream(event) and reports_failures(function):
                    error = {"errorType": "BatchItemFailures", "errorMessage": str(failures)}
                    return {**result, "error": True, "body": error}
        return result

    return corrected


def split_stream_batches(execute: Execute) -> Execute:
    """Wrap MiniStack's `_execute_function`, so that it splits a stream batch into parallel parts.

    On AWS, `ParallelizationFactor` says how many batches of a stream Lambda may process at once.
    MiniStack ignores this setting. This correction splits each batch of MiniStack into at most that
    many parts, and processes the parts in parallel. All records of one DynamoDB item are in the
    same part, in order. If one part fails, MiniStack delivers all parts again.

    Args:
        execute: runs a Lambda function. It takes MiniStack's description of the Lambda function,
            and an event. It returns `body`, `log` and, after a failure, `error`.

    Returns:
        A function that splits a stream batch, and calls `execute` for each part.

    """

    def split(function: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
        if not is_from_stream(event):
            return execute(function, event)
        arn = event["Records"][0]["eventSourceARN"]
        batches: dict[int, list[Any]] = {}
        for record in event["Records"]:
            batches.setdefault(batch_number(record, parallelization(arn)), []).append(record)
        events = [{"Records": records} for records in batches.values()]
        with ThreadPoolExecutor(len(events)) as pool:
            results = list(pool.map(lambda each: execute(function, each), events))
        return next((result for result in results if result.get("error")), results[0])

    return split


def fill_stream_batches() -> None:
    """Make MiniStack read more stream records at once, so that each parallel part can be full.

    `split_stream_batches` splits a batch into parts. On AWS, each of these parts could have as many
    records as `BatchSize` allows.
    """
    read = dynamodb.stream_records_since

    def read_more(table: str, position: int, limit: int, **scope: str) -> list[Any]:
        records: list[Any] = read(table, position, limit, **scope)
        if scope or len(records) < limit:  # with a scope, the caller is not MiniStack's poller
            return records
        factor = parallelization(records[0]["eventSourceARN"])
        records = read(table, position, limit * factor)
        sizes = Counter[int]()
        for place, record in enumerate(records):
            number = batch_number(record, factor)
            if sizes[number] == limit:
                return records[:place]
            sizes[number] += 1
        return records

    dynamodb.stream_records_since = read_more


def parallelization(stream: str) -> int:
    """Return how many batches of a stream may be processed at once.

    Args:
        stream: the stream's ARN.
    """
    factors: list[int] = [
        int(mapping.get("ParallelizationFactor", 1))
        for _account, _region, mapping in lambda_svc._iter_all_esms()
        if mapping["EventSourceArn"] == stream
    ]
    return max(factors, default=1)


def batch_number(record: dict[str, Any], batches: int) -> int:
    """Return which of several batches a stream record belongs to, counted from 0.

    All records of one DynamoDB item belong to the same batch.

    Args:
        record: the stream record.
        batches: how many batches there are.
    """
    return zlib.crc32(str(record["dynamodb"]["Keys"]).encode()) % batches


def is_from_stream(event: object) -> bool:
    """Return whether an event is a batch of DynamoDB stream records."""
    match event:
        case {"Records": [{"eventSource": "aws:dynamodb"}, *_]}:
            return True
    return False


def reports_failures(function: dict[str, Any]) -> bool:
    """Return whether a Lambda function has an event source mapping with `ReportBatchItemFailures`.

    AWS ignores the `batchItemFailures` that any other Lambda function returns.
    """
    name = (function.get("config") or function)["FunctionName"]
    return any(
        mapping["FunctionName"] == name
        and "ReportBatchItemFailures" in mapping.get("FunctionResponseTypes", [])
        for _account, _region, mapping in lambda_svc._iter_all_esms()
    )


def keep_stream_records() -> None:
    """Include the records of the streams in the saved state.

    MiniStack saves how many records each Lambda function has read from a stream, but not the
    records themselves. So after a restart, the streams would be empty, and each Lambda function
    would skip as many new records as it had read before the restart.
    """
    streams = {"records": dynamodb._stream_records, "trimmed": dynamodb._stream_trimmed}
    get_state, load_state = dynamodb.get_state, dynamodb.load_persisted_state

    def get_state_with_streams() -> dict[str, Any]:
        return {**get_state(), "streams": streams}

    def load_state_with_streams(state: dict[str, Any]) -> None:
        load_state(state)
        for name, store in streams.items():
            store.update(state["streams"][name])

    dynamodb.get_state = get_state_with_streams
    dynamodb.load_persisted_state = load_state_with_streams


def load_state(*, save: bool) -> None:
    """Load the saved state. See `saving.py`.

    Args:
        save: whether to save the state often while MiniStack runs.

    Raises:
        SystemExit: the saved state cannot be read.

    """
    directory = Path(os.environ["STATE_DIR"])
    try:
        saver = saving.Saver(
            directory, int(os.environ["GATEWAY_PORT"]), lock=int(os.environ["STATE_LOCK"])
        )
    except snapshots.DamagedError as error:
        sys.exit(str(error))
    saver.install(save=save)


def poll_streams_apart() -> None:
    """Poll the streams in a separate thread.

    MiniStack polls queues and streams in one thread. While a Lambda function works on a stream
    batch, that thread waits, and no queue batch starts.

    MiniStack's thread starts after the saved state is loaded. When that thread first polls the
    streams, it starts the separate thread.
    """
    poll = lambda_svc._poll_dynamodb_streams

    def poll_forever() -> None:
        while True:
            found = False
            try:
                found = poll()
            except Exception:  # noqa: BLE001  for example, the table was just deleted
                lambda_svc.logger.exception("polling the streams failed")
            if not found:
                time.sleep(STREAM_POLL_SECONDS)

    thread = threading.Thread(target=poll_forever, daemon=True)

    def start_once() -> bool:
        if not thread.is_alive():
            thread.start()
        return False

    lambda_svc._poll_dynamodb_streams = start_once


def remember_expressions() -> None:
    """Let MiniStack split each DynamoDB expression into tokens, and check its syntax, only once.

    MiniStack would split the expression of a query again for each item that the query looks at. It
    never changes a list of tokens, so all calls can share it.
    """
    dynamodb._tokenize = cache(dynamodb._tokenize)
    dynamodb._condition_syntax_error = cache(dynamodb._condition_syntax_error)


def accept_alarms_of_several_metrics() -> None:
    """Make MiniStack accept alarms on metric math, that is, on an expression of several metrics.

    Without this correction, MiniStack would refuse a stack that has such an alarm. With it,
    MiniStack creates an alarm on the first metric of the expression. It does not matter that this
    is a different alarm, because no alarm ever fires in the emulator.
    """
    record = provisioners._cw_metric_alarm_record

    def of_first_metric(name: str, properties: dict[str, Any]) -> dict[str, Any]:
        stats = [
            each["MetricStat"] for each in properties.get("Metrics", []) if "MetricStat" in each
        ]
        if stats:
            given = {key: value for key, value in properties.items() if key != "Metrics"}
            properties = {**given, **stats[0]["Metric"], "Period": stats[0]["Period"]}
        alarm: dict[str, Any] = record(name, properties)
        return alarm

    provisioners._cw_metric_alarm_record = of_first_metric


def accept_saved_queries() -> None:
    """Make MiniStack accept queries of logs that a template saves, and ignore them.

    Without this correction, MiniStack would refuse a stack that has such a query.
    """
    provisioners._RESOURCE_HANDLERS["AWS::Logs::QueryDefinition"] = {
        "create": lambda logical_id, _properties, stack_name: (f"{stack_name}-{logical_id}", {}),
        "delete": lambda _physical_id, _properties: None,
    }


def limit_versions_with_their_function() -> None:
    """Apply the reserved concurrency of a Lambda function to its versions, too, as AWS does."""
    reserved = lambda_svc._reserved_concurrency

    def of_function(version: dict[str, Any], config: dict[str, Any]) -> int | None:
        function = lambda_svc._functions.get(config["FunctionName"], version)
        found: int | None = reserved(function, config)
        return found

    lambda_svc._reserved_concurrency = of_function


def stop_with_parent() -> None:
    """Stop this process when its standard input ends.

    Standard input is a pipe from the parent process, so it ends when the parent process ends.
    """
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
