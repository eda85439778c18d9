"""Grants: which scopes a client or a group has, and for which counters.

GrantTable has one item per principal. The function that issues tokens reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tally_client import checks
from tally_client.access import faults, principals
from tally_client.checks import is_utf8, refuse
from tally_client.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    from tally_client.access.stack import Stack


class Scope(StrEnum):
    """What a principal may do to a counter."""

    READ = "read"
    INCREMENT = "increment"
    SET = "set"


# The groups that have scopes without a grant.
DEFAULTS: dict[str, tuple[Scope, ...]] = {
    "readers": (Scope.READ,),
    "writers": (Scope.READ, Scope.INCREMENT),
    "editors": (Scope.READ, Scope.INCREMENT, Scope.SET),
}

# IssueToken has the same limits, after it drops prefixes that begin with another one. A token has
# the prefixes once for each scope, and API Gateway accepts 10,240 bytes of headers.
MOST_CHARACTERS = 4000
MOST_PREFIXES = 100  # a list of counters takes one read for each prefix
_LONGEST_KEY = 2048  # bytes, of DynamoDB


@dataclass(frozen=True, slots=True)
class Grant:
    """What a principal may do. `valid` makes grants.

    Attributes:
        principal: `client:` and the id of an app client, or `group:` and the name of a group.
        scopes: at least one, in the order of Scope.
        prefixes: how the names of the counters begin, sorted. No prefix begins with another one.
            None means all counters.
    """

    principal: str
    scopes: tuple[Scope, ...]
    prefixes: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Malformed:
    """An item of the table that is not a valid grant.

    Attributes:
        principal: the key of the item.
        malformed: what is wrong with it.
    """

    principal: str
    malformed: str


def valid(principal: str, scopes: Collection[str], prefixes: Collection[str]) -> Grant:
    """Return a grant.

    Args:
        principal: who gets it.
        scopes: what they may do. The order does not matter, and neither do duplicates.
        prefixes: how the names of the counters begin. None of them means all counters. The grant
            lacks prefixes that begin with another one, because they change nothing.

    Raises:
        InvalidRequest: it would not be valid.
    """
    principals.split(principal)
    in_order = tuple(scope for scope in Scope if scope in scopes)
    if not in_order or not set(scopes) <= set(Scope):
        refuse("scope", f"must be one or more of {', '.join(Scope)}")
    shortest = _shortest([checks.name(prefix, "prefix") for prefix in prefixes])
    if len(shortest) > MOST_PREFIXES:
        rule = (
            f"there may be at most {MOST_PREFIXES}, because a list of counters takes one read for"
            f" each. There are {len(shortest)}"
        )
        refuse("prefix", rule)
    size = len(" ".join(shortest)) * len(in_order)
    if size > MOST_CHARACTERS:
        rule = (
            f"all prefixes, joined by spaces, times the number of scopes must be at most"
            f" {MOST_CHARACTERS} characters, so that they fit into a token. They are {size}"
        )
        refuse("prefix", rule)
    return Grant(principal, in_order, tuple(shortest) or None)


def find_all(stack: Stack) -> list[Grant | Malformed]:
    """Return all grants, and all malformed items, sorted by principal.

    Raises:
        TallyError: AWS did not return all of them.
    """
    with faults.reported(changes=False):
        pages = stack.dynamodb.get_paginator("scan").paginate(
            TableName=stack.grant_table, ConsistentRead=True
        )
        items = [item for page in pages for item in page["Items"]]
    return sorted(map(_parse, items), key=lambda each: each.principal)


def put(stack: Stack, grant: Grant) -> None:
    """Write a grant. It replaces any other grant of its principal.

    Raises:
        InvalidRequest: its principal is an app client for people.
        NotFound: the user pool has no such client or group.
        TallyError: AWS did not write it.
    """
    principals.require(stack, grant.principal)
    item: dict[str, AttributeValueTypeDef] = {
        "principal": {"S": grant.principal},
        "scopes": {"SS": list(grant.scopes)},
    }
    if grant.prefixes:
        item["prefixes"] = {"SS": list(grant.prefixes)}
    with faults.reported(changes=True):
        stack.dynamodb.put_item(TableName=stack.grant_table, Item=item)


def remove(stack: Stack, principal: str) -> None:
    """Remove a grant, or a malformed item. The client or group does not have to exist any more.

    Args:
        stack: the stack.
        principal: the key of the item, which can be malformed, too.

    Raises:
        InvalidRequest: the table cannot have such a key.
        NotFound: there is no such item.
        TallyError: AWS did not remove it.
    """
    if not principal or not is_utf8(principal) or len(principal.encode()) > _LONGEST_KEY:
        refuse("principal", f"must be 1 to {_LONGEST_KEY} bytes of UTF-8")
    with faults.reported(changes=True):
        removed = stack.dynamodb.delete_item(
            TableName=stack.grant_table,
            Key={"principal": {"S": principal}},
            ReturnValues="ALL_OLD",
        )
    if not removed.get("Attributes"):
        detail = f"There is no grant of {principal}."
        raise NotFound(detail, status=404)


def _shortest(prefixes: Collection[str]) -> list[str]:
    """Return sorted prefixes, without those that begin with another one."""
    shortest: list[str] = []
    for prefix in sorted(prefixes):
        if not shortest or not prefix.startswith(shortest[-1]):
            shortest.append(prefix)
    return shortest


def _parse(item: Mapping[str, Any]) -> Grant | Malformed:
    """Return the grant in an item of the table, or what is wrong with the item."""
    principal: str = item["principal"]["S"]
    unknown = sorted(item.keys() - {"principal", "scopes", "prefixes"})
    if unknown:
        return Malformed(principal, f"unknown attributes: {', '.join(unknown)}")
    scopes = item.get("scopes", {}).get("SS")
    prefixes = item.get("prefixes", {"SS": []}).get("SS")
    if scopes is None or prefixes is None:
        name = "scopes" if scopes is None else "prefixes"
        return Malformed(principal, f"{name}: must be a string set")
    try:
        return valid(principal, scopes, prefixes)
    except InvalidRequest as error:
        return Malformed(principal, str(error))
