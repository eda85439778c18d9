"""People: the users of the stack's user pool, and the groups that they are in."""

from __future__ import annotations

import re
import secrets
import string
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tally_client.access import faults, principals
from tally_client.checks import is_utf8, refuse
from tally_client.errors import NotFound, Refused
from tally_client.settings import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tally_client.access.stack import Stack

_EMAIL = re.compile(r"[^\s@]+@[^\s@]+")
_LONGEST_EMAIL = 2048  # characters, of Cognito
_PASSWORD_LENGTH = 20
# A policy for passwords can ask for one character of each kind. These symbols need no quotes in a
# shell.
_KINDS = (string.ascii_lowercase, string.ascii_uppercase, string.digits, "-_.+=")


@dataclass(frozen=True, slots=True)
class Person:
    """A person.

    Attributes:
        name: the name with which they sign in.
        email: their e-mail address; None if they have none.
        status: the status in Cognito, such as CONFIRMED. FORCE_CHANGE_PASSWORD means that they have
            not signed in yet.
        enabled: whether they may sign in.
        groups: the names of their groups, sorted.
        actor: how the history names them.
    """

    name: str
    email: str | None
    status: str
    enabled: bool
    groups: tuple[str, ...]
    actor: str


@dataclass(frozen=True, slots=True)
class Invited:
    """A person who was added, or who existed already.

    Attributes:
        name: the name with which they sign in.
        email: where Cognito sent the invitation; None if it sent none.
        created: whether they did not exist before. If they did, nothing was changed.
        password: the temporary password. None if Cognito sent it, or if nothing was changed.
    """

    name: str
    email: str | None
    created: bool
    password: Secret | None


def email_of(name: str, email: str | None) -> str | None:
    """Return the e-mail address of a new person; None if they have none.

    Args:
        name: the name with which they will sign in. It can be an e-mail address.
        email: the address, if it is not their name.

    Raises:
        InvalidRequest: the name or the address is not valid.
    """
    principals.check_name("name", name)
    if email is None and "@" not in name:
        return None
    found = name if email is None else email
    if not _EMAIL.fullmatch(found) or not is_utf8(found) or len(found) > _LONGEST_EMAIL:
        refuse("email", "must be an e-mail address")
    return found


def create(stack: Stack, name: str, email: str | None) -> Invited:
    """Create a person. If they exist already, nothing is changed.

    Args:
        stack: the stack.
        name: the name with which they sign in.
        email: where Cognito sends an invitation with a temporary password. Without it, the password
            is in the result.

    Raises:
        TallyError: AWS did not create them.
    """
    password = None if email else Secret(_temporary_password())
    how: dict[str, Any] = (
        {
            "UserAttributes": [
                {"Name": "email", "Value": email},
                {"Name": "email_verified", "Value": "true"},
            ],
            "DesiredDeliveryMediums": ["EMAIL"],
        }
        if password is None
        else {"MessageAction": "SUPPRESS", "TemporaryPassword": password.reveal()}
    )
    try:
        with faults.reported(changes=True):
            stack.cognito.admin_create_user(UserPoolId=stack.user_pool_id, Username=name, **how)
    except Refused as error:
        if error.kind != "UsernameExistsException":
            raise
        return Invited(name, None, created=False, password=None)
    return Invited(name, email, created=True, password=password)


def join(stack: Stack, name: str, group: str) -> None:
    """Add a person to a group. If they are in it already, nothing is changed.

    Raises:
        TallyError: AWS did not add them.
    """
    with faults.reported(changes=True):
        stack.cognito.admin_add_user_to_group(
            UserPoolId=stack.user_pool_id, Username=name, GroupName=group
        )


def find_all(stack: Stack) -> list[Person]:
    """Return all people, sorted by name.

    Raises:
        TallyError: AWS did not return all of them.
    """
    with faults.reported(changes=False):
        groups = _groups_by_name(stack)
        pages = stack.cognito.get_paginator("list_users").paginate(UserPoolId=stack.user_pool_id)
        users = [user for page in pages for user in page["Users"]]
    return sorted((_person(user, groups) for user in users), key=lambda each: each.name)


def remove(stack: Stack, name: str) -> None:
    """Delete a person.

    Raises:
        InvalidRequest: a person cannot have this name.
        NotFound: there is no such person.
        TallyError: AWS did not delete them.
    """
    principals.check_name("name", name)
    try:
        with faults.reported(changes=True):
            stack.cognito.admin_delete_user(UserPoolId=stack.user_pool_id, Username=name)
    except NotFound as error:
        if error.kind != "UserNotFoundException":  # the user pool does not exist
            raise
        detail = f"The user pool {stack.user_pool_id} has no person {name}."
        raise NotFound(detail, status=404, kind=error.kind) from error


def _groups_by_name(stack: Stack) -> Mapping[str, list[str]]:
    """Return the groups of each person.

    There are few groups, so this takes fewer requests than asking for the groups of each person.
    """
    found = defaultdict(list)
    pages = stack.cognito.get_paginator("list_groups").paginate(UserPoolId=stack.user_pool_id)
    for group in sorted(each["GroupName"] for page in pages for each in page["Groups"]):
        members = stack.cognito.get_paginator("list_users_in_group").paginate(
            UserPoolId=stack.user_pool_id, GroupName=group
        )
        for user in (user for page in members for user in page["Users"]):
            found[user["Username"]].append(group)
    return found


def _person(user: Mapping[str, Any], groups: Mapping[str, list[str]]) -> Person:
    attributes = {each["Name"]: each.get("Value") for each in user.get("Attributes", [])}
    name: str = user["Username"]
    return Person(
        name,
        attributes.get("email"),
        user["UserStatus"],
        user["Enabled"],
        tuple(groups.get(name, ())),
        attributes["sub"] or "",
    )


def _temporary_password() -> str:
    """Return a random password with a character of each kind. It begins with a letter."""
    while True:
        first = secrets.choice(string.ascii_letters)
        rest = (secrets.choice("".join(_KINDS)) for _ in range(_PASSWORD_LENGTH - 1))
        password = first + "".join(rest)
        if all(set(kind) & set(password) for kind in _KINDS):
            return password
