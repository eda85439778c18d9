"""Principals, the app clients and groups that can have a grant: their names, and which exist."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tally_client.access import faults
from tally_client.checks import is_utf8, refuse
from tally_client.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tally_client.access.stack import Stack

# What Cognito accepts as the id of an app client, and as the name of a group or a person.
_CLIENT = re.compile(r"[\w+]{1,128}", re.ASCII)
_NAME = re.compile(r"\S{1,128}")
_FOR_PROGRAMS = "client_credentials"  # the OAuth flow with which a program gets a token


def split(principal: str) -> tuple[str, str]:
    """Return the kind of a principal, `client` or `group`, and its id or name.

    Raises:
        InvalidRequest: it is not the text of a principal.
    """
    kind, _, name = principal.partition(":")
    is_valid = {"client": _is_client, "group": _is_name}.get(kind)
    if not is_valid or not is_valid(name):
        refuse("principal", "must be client:ID or group:NAME")
    return kind, name


def require(stack: Stack, principal: str) -> None:
    """Check that a principal exists, and that its grant has an effect.

    Raises:
        InvalidRequest: it is not the text of a principal. Or it is an app client for people: the
            grants of people come from their groups, so a grant of the client has no effect.
        NotFound: the user pool has no such client or group.
        TallyError: AWS did not say whether it exists.
    """
    kind, name = split(principal)
    if kind == "group":
        require_group(stack, name)
        return
    with _missing(f"The user pool {stack.user_pool_id} has no app client {name}."):
        app_client = stack.cognito.describe_user_pool_client(
            UserPoolId=stack.user_pool_id, ClientId=name
        )["UserPoolClient"]
    if _FOR_PROGRAMS not in app_client.get("AllowedOAuthFlows", ()):
        rule = (
            f"must be an app client for programs: {name} does not allow the OAuth flow"
            f" {_FOR_PROGRAMS}. The grants of people come from their groups"
        )
        refuse("principal", rule)


def require_group(stack: Stack, name: str) -> None:
    """Check that a group exists.

    Raises:
        InvalidRequest: a group cannot have this name.
        NotFound: the user pool has no such group.
        TallyError: AWS did not say whether it exists.
    """
    check_name("group", name)
    with _missing(f"The user pool {stack.user_pool_id} has no group {name}."):
        stack.cognito.get_group(UserPoolId=stack.user_pool_id, GroupName=name)


def check_name(argument: str, name: str) -> None:
    """Check that a group or a person can have this name.

    Args:
        argument: the name of the argument, for the error.
        name: the name of the group or person.

    Raises:
        InvalidRequest: they cannot have it.
    """
    if not _is_name(name):
        refuse(argument, "must be 1 to 128 characters without spaces")


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and is_utf8(text)


def _is_client(text: str) -> bool:
    return bool(_CLIENT.fullmatch(text))


@contextmanager
def _missing(detail: str) -> Iterator[None]:
    """Run a request that finds something. If AWS does not find it, raise NotFound with a detail."""
    try:
        with faults.reported(changes=False):
            yield
    except NotFound as error:
        raise NotFound(detail, status=404, kind=error.kind) from error
