"""The commands `tally grants`: which scopes a client or a group has, and for which counters."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from tally_client.access import grants
from tally_client.command import output, session
from tally_client.command.administration import Json, StackName, choose, chosen, if_unknown

app = typer.Typer(no_args_is_help=True)

Principal = Annotated[str, typer.Argument(help="client:ID of an app client, or group:NAME.")]
_AGAIN = "Run the command again: it has the same effect as once."
_WHEN = "This takes effect when the next token is issued."


@app.callback()
def choose_stack(context: typer.Context, stack: StackName = None) -> None:
    """Say which scopes a client or a group has, and for which counters.

    These commands use your AWS credentials. They need the extra aws of tally-client.
    """
    choose(context, stack)


@app.command("list")
def list_grants(context: typer.Context, json: Json = False) -> None:
    """List the grants."""
    with session.reported(as_json=json):
        found = grants.find_all(chosen(context))
        if json:
            output.show(output.as_json([dataclasses.asdict(each) for each in found]))
        else:
            output.show_rows([_row(each) for each in found], ("principal", "scopes", "prefixes"))


@app.command("set")
def set_grant(
    context: typer.Context,
    principal: Principal,
    scope: Annotated[
        list[grants.Scope], typer.Option(help="What they may do. Repeat it for several scopes.")
    ],
    prefix: Annotated[
        list[str] | None,
        typer.Option(
            help="Only counters whose names begin so. Repeat it for several prefixes."
            " Else all counters.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write the grant of a client or a group. It replaces their earlier grant."""
    with session.reported(as_json=json):
        grant = grants.valid(principal, scope, prefix or ())
        stack = chosen(context)
        with if_unknown(_AGAIN):
            grants.put(stack, grant)
        with session.after_change(None):
            if json:
                output.show(output.as_json(dataclasses.asdict(grant)))
            else:
                which = " ".join(grant.prefixes) if grant.prefixes else "all counters"
                output.show(f"{principal}: {' '.join(grant.scopes)} on {which}. {_WHEN}")


@app.command("remove")
def remove_grant(
    context: typer.Context,
    principal: Annotated[str, typer.Argument(help="As tally grants list shows it.")],
    json: Json = False,
) -> None:
    """Remove the grant of a client or a group, and say what they may do without it."""
    with session.reported(as_json=json):
        stack = chosen(context)
        with if_unknown("Look at tally grants list, and run the command again if needed."):
            grants.remove(stack, principal)
        with session.after_change(None):
            note = f"{_without(principal)} {_WHEN}"
            if json:
                output.show(output.as_json({"principal": principal, "note": note}))
            else:
                output.show(f"{principal}: the grant was removed. {note}")


def _row(grant: grants.Grant | grants.Malformed) -> list[str]:
    if isinstance(grant, grants.Malformed):
        return [grant.principal, f"malformed: {grant.malformed}", ""]
    prefixes = "all counters" if grant.prefixes is None else " ".join(grant.prefixes)
    return [grant.principal, " ".join(grant.scopes), prefixes]


def _without(principal: str) -> str:
    """Return what applies to a principal without a grant."""
    kind, _, name = principal.partition(":")
    if kind == "client":
        return (
            "The client may now do what its app client allows, to all counters:"
            " this can be more than before."
        )
    if kind == "group" and name in grants.DEFAULTS:
        scopes = " ".join(grants.DEFAULTS[name])
        return f"Its members now have the scopes of {name} on all counters: {scopes}."
    if kind == "group":
        return "Its members get no scopes from this group any more."
    return "This was not a client or a group, so nobody's access changes."
