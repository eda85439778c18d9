"""The commands `tally people`: who can sign in, and which groups they are in."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from tally_client import errors
from tally_client.access import people, principals
from tally_client.command import output, session
from tally_client.command.administration import (
    Json,
    StackName,
    choose,
    chosen,
    if_unknown,
    if_unwritten,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The name with which the person signs in.")]
_TOKENS = "Access tokens that were issued before still work until they expire."


@app.callback()
def choose_stack(context: typer.Context, stack: StackName = None) -> None:
    """Say who can sign in, and which groups they are in.

    These commands use your AWS credentials. They need the extra aws of tally-client.
    """
    choose(context, stack)


@app.command("list")
def list_people(context: typer.Context, json: Json = False) -> None:
    """List the people and their groups."""
    with session.reported(as_json=json):
        found = people.find_all(chosen(context))
        if json:
            output.show(output.as_json([dataclasses.asdict(each) for each in found]))
        else:
            output.show_rows([_row(each) for each in found], ("name", "email", "status", "groups"))


@app.command("add")
def add_person(
    context: typer.Context,
    name: Name,
    email: Annotated[
        str | None,
        typer.Option(
            help="Where Cognito sends the invitation. Else the name, if it is an e-mail address.",
            show_default=False,
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="A group to join. Repeat it for several groups.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Add a person. A person who exists already only joins the groups."""
    groups = list(dict.fromkeys(group or ()))
    with session.reported(as_json=json):
        address = people.email_of(name, email)
        stack = chosen(context)
        for each in groups:
            principals.require_group(stack, each)
        with if_unknown(_after_lost_creation(name, address)):
            person = people.create(stack, name, address)
        joined: list[str] = []
        try:
            for each in groups:
                with _half_way(person, joined, groups):
                    people.join(stack, name, each)
                joined.append(each)
        finally:
            # Also after an error: this is the only time that the password is shown.
            with if_unwritten(_after_lost_output(person)):
                _show_added(person, joined, json_output=json)


@app.command("remove")
def remove_person(context: typer.Context, name: Name, json: Json = False) -> None:
    """Remove a person. They cannot sign in any more."""
    with session.reported(as_json=json):
        stack = chosen(context)
        with if_unknown("Look at tally people list, and run the command again if needed."):
            people.remove(stack, name)
        with session.after_change(None):
            if json:
                output.show(output.as_json({"name": name, "note": _TOKENS}))
            else:
                output.show(f"{name}: the person was removed. {_TOKENS}")


@contextmanager
def _half_way(
    person: people.Invited, joined: Sequence[str], groups: Sequence[str]
) -> Iterator[None]:
    """Run a block that adds a person to a group. If it fails, say what is done, and what is not."""
    missing = [each for each in groups if each not in joined]
    was = "was created" if person.created else "exists already"
    note = (
        f"The person {was}. Groups joined: {' '.join(joined) or 'none'}."
        f" Still to join: {' '.join(missing)}. Run the command again to join them."
    )
    try:
        yield
    except errors.TallyError as error:
        error.args = (f"{error} {note}",)
        raise
    except KeyboardInterrupt as error:
        error.add_note(note)
        raise


def _show_added(person: people.Invited, joined: Sequence[str], *, json_output: bool) -> None:
    password = person.password.reveal() if person.password else None
    if json_output:
        members = {
            "name": person.name,
            "created": person.created,
            "email": person.email,
            "temporary_password": password,
            "groups": list(joined),
        }
        output.show(output.as_json(members))
        return
    if not person.created:
        said = "the person exists already. Their password and e-mail address were not changed."
    elif password:
        said = (
            f"the person was created, with the temporary password {password}\n"
            "The password is not shown again. It must be changed at the first sign-in."
        )
    else:
        said = f"the person was created. Cognito sends an invitation to {person.email}."
    output.show(f"{person.name}: {said}")
    if joined:
        output.show(f"Groups: {' '.join(joined)}")


def _row(person: people.Person) -> list[str]:
    status = person.status if person.enabled else f"{person.status} (disabled)"
    return [person.name, person.email or "", status, " ".join(person.groups)]


def _after_lost_creation(name: str, email: str | None) -> str:
    if email:
        return f"Run the command again. If {name} exists then, Cognito has sent the invitation."
    return (
        f"Look at tally people list. If {name} exists, nobody knows the password: remove the"
        " person, and run the command again."
    )


def _after_lost_output(person: people.Invited) -> str:
    if person.password:
        return (
            "The person was created, but nobody knows the password: remove the person, and run the"
            " command again."
        )
    return "The change was applied."
