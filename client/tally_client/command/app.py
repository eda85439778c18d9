"""The commands of `tally`."""

from __future__ import annotations

import datetime as dt
import errno
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tally_client.command import (
    arguments,
    charts,
    exits,
    exporting,
    grants,
    output,
    people,
    session,
    streams,
)
from tally_client.model import MAX_INTEGER

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

app = typer.Typer(
    no_args_is_help=True,
    # Tracebacks with local variables could show a token.
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Settings: TALLY_URL, TALLY_TOKEN_URL, TALLY_CLIENT_ID, TALLY_CLIENT_SECRET, and"
        " TALLY_SCOPES if wanted. Without them, the command uses .local/stack.json of a running"
        " local stack, in this directory or a parent. The commands grants and people use your AWS"
        " credentials instead, and TALLY_STACK."
        " Exit codes: 0 done; 2 wrong usage; 3 no valid settings; 4 invalid request; 5 not allowed;"
        " 6 not found; 7 bound exceeded; 8 version mismatch; 9 key reused; 10 not applied, try"
        " again; 11 outcome unknown; 12 export incomplete; 13 output not written; 130 interrupted."
    ),
)
app.add_typer(grants.app, name="grants")
app.add_typer(people.app, name="people")


@dataclass(frozen=True, slots=True)
class Common:
    """Options of all commands; `deadline` is in seconds."""

    deadline: float


def _time_option(text: str) -> Any:  # noqa: ANN401  as typer.Option returns
    return typer.Option(parser=arguments.time, metavar="TIME", help=text)


Name = Annotated[
    str, typer.Argument(help="The name of the counter.", autocompletion=arguments.names)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, as the service returns it.")]
Since = Annotated[
    dt.datetime | None,
    _time_option("Begin at this time, such as 2026-11-22T10:00:00Z, or 2h for two hours ago."),
]
Until = Annotated[dt.datetime | None, _time_option("End before this time.")]
# The errors of standard output and standard error.
_UNWRITABLE = {errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPIPE}
# Without this setting, the parser would take a negative number for an option.
_NEGATIVE_NUMBERS = {"ignore_unknown_options": True}


@app.callback()
def common(
    context: typer.Context,
    deadline: Annotated[
        float, typer.Option(help="Seconds after which a request is given up.", min=0.1, max=3600)
    ] = 30.0,
) -> None:
    """Count with Tally. Every increment is applied exactly once, even if answers are lost."""
    context.obj = Common(deadline)


@app.command()
def get(
    context: typer.Context,
    name: Name = "default",
    version: Annotated[int | None, typer.Option(help="As it was at this version.", min=0)] = None,
    at: Annotated[dt.datetime | None, _time_option("As it was at this time.")] = None,
    json: Json = False,
) -> None:
    """Show a counter, as it is now or as it was."""
    with _session(context, json) as tally:
        output.show_counter(tally.get(name, version=version, at=at), json_output=json)


@app.command()
def increment(
    context: typer.Context,
    name: Name = "default",
    by: Annotated[int, typer.Option(help="The number to add; it may be negative.")] = 1,
    minimum: Annotated[
        int | None, typer.Option("--min", help="Refuse if the result would be lower.")
    ] = None,
    maximum: Annotated[
        int | None, typer.Option("--max", help="Refuse if the result would be higher.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The idempotency key, if the command may be repeated. Else a new one."),
    ] = None,
    json: Json = False,
) -> None:
    """Add to a counter, exactly once."""
    with _session(context, json) as tally:
        counter = tally.increment(name, by, min=minimum, max=maximum, key=key)
        with session.after_change(tally.key):
            output.show_counter(counter, json_output=json)


@app.command("set", context_settings=_NEGATIVE_NUMBERS)
def set_value(
    context: typer.Context,
    name: Name,
    value: Annotated[int, typer.Argument(help="The new value; it may be negative.")],
    if_version: Annotated[
        int | None,
        typer.Option(help="Only if the counter has this version; 0 if it never changed.", min=0),
    ] = None,
    json: Json = False,
) -> None:
    """Set a counter to a value."""
    with _session(context, json) as tally:
        counter = tally.set(name, value, if_version=if_version)
        with session.after_change(None):
            output.show_counter(counter, json_output=json)


@app.command("list")
def list_counters(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(help="Only names that begin with this text.")] = "",
    values: Annotated[bool, typer.Option("--values", help="Show the values, too.")] = False,
    json: Json = False,
) -> None:
    """List the counters."""
    with _session(context, json) as tally:
        if values:
            counters = list(tally.counters(prefix))
            if json:
                output.show(output.as_json([output.members(each) for each in counters]))
            else:
                output.show_table(counters, output.COUNTER_COLUMNS)
        elif json:
            output.show(output.as_json(list(tally.names(prefix))))
        else:
            for name in tally.names(prefix):
                output.show(name)


@app.command()
def history(
    context: typer.Context,
    name: Name = "default",
    since: Since = None,
    until: Until = None,
    limit: Annotated[
        int, typer.Option(help="At most so many changes.", min=1, max=MAX_INTEGER)
    ] = 20,
    newest: Annotated[bool, typer.Option("--newest", help="The newest change first.")] = False,
    json: Json = False,
) -> None:
    """List the changes of a counter, the oldest first."""
    with _session(context, json) as tally:
        most = min(limit + 1, MAX_INTEGER)  # one more than is shown, to see whether there are more
        found = list(tally.history(name, since=since, until=until, newest_first=newest, limit=most))
        entries = found[:limit]
        if json:
            output.show(output.as_json([output.members(each) for each in entries]))
        else:
            output.show_table(entries, output.ENTRY_COLUMNS)
            if len(found) > limit:
                streams.say(f"These are {limit} changes, and there are more: see --limit.")


@app.command()
def trend(
    context: typer.Context,
    name: Name = "default",
    interval: Annotated[
        Literal["minute", "hour", "day"], typer.Option(help="The length of an interval, in UTC.")
    ] = "hour",
    since: Since = None,
    until: Until = None,
    expected: Annotated[
        bool, typer.Option("--expected", help="Show which hours or days are unusual.")
    ] = False,
    json: Json = False,
) -> None:
    """Draw how much was added and subtracted in each minute, hour or day."""
    with _session(context, json) as tally:
        intervals = tally.trend(name, interval, since=since, until=until, expected=expected)
        if json:
            output.show(output.as_json([output.interval(each, expected) for each in intervals]))
        else:
            charts.show(intervals, interval)


@app.command()
def watch(
    context: typer.Context,
    name: Name = "default",
    every: Annotated[
        float, typer.Option(help="Seconds between requests.", min=0.1, max=3600)
    ] = 1.0,
    count: Annotated[
        int | None, typer.Option(help="Stop after so many lines. Else at Ctrl-C.", min=1)
    ] = None,
    json: Json = False,
) -> None:
    """Show a counter, and show it again whenever it has changed."""
    with _session(context, json) as tally:
        counter = tally.get(name)
        output.show_counter(counter, json_output=json)
        shown = 1
        while count is None or shown < count:
            time.sleep(every)
            changed = tally.get_if_changed(name, counter.version)
            if changed is not None:
                counter = changed
                output.show_counter(counter, json_output=json)
                shown += 1


@app.command()
def export(
    context: typer.Context,
    name: Name = "default",
    form: Annotated[
        exporting.Format, typer.Option("--format", help="CSV, or one JSON object per line.")
    ] = "csv",
    file: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write. Else standard output."),
    ] = None,
    since: Since = None,
    until: Until = None,
    json: Json = False,
) -> None:
    """Write the whole history of a counter. --json is short for --format jsonl."""
    with _session(context, json) as tally:
        exporting.export(
            tally, name, form="jsonl" if json else form, file=file, since=since, until=until
        )


def main() -> None:
    """Run the command, and exit with its code."""
    try:
        app()
    except OSError as error:
        # Typer could not print help, a completion or a usage error. The commands report their own
        # errors. Any other error is a bug.
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        streams.say(f"NotWritten: {exits.NotWritten.to('the output', error)}")
        # If this was a report of wrong usage, the exit code is that of wrong usage.
        sys.exit(getattr(error.__context__, "exit_code", exits.NOT_WRITTEN))
    finally:
        streams.discard_unwritten()


def _session(context: typer.Context, as_json: bool) -> AbstractContextManager[session.Client]:  # noqa: FBT001
    common: Common = context.obj
    return session.opened(common.deadline, as_json=as_json)
