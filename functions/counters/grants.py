"""Grants: which scopes a client or a group of people has, and for which counters.

`issue_token` reads the grants of a caller, and writes them into the access token as claims.

An item of GrantTable has these attributes, and no others:
- `principal`: `client:` and the id of an app client, or `group:` and the name of a group.
- `scopes`: a set of `read`, `increment` and `set`.
- `prefixes`: a set of prefixes of counter names. If it is missing, the grant is for all counters.
"""

import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

from counters import rules
from counters.clients import get_items, must_answer
from counters.errors import InvalidRequestError
from counters.rights import ALL, CLAIM, NONE, SCOPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = Mapping[str, AttributeValueTypeDef]


# A token must fit into a request's headers, for which API Gateway accepts 10,240 bytes in all. In a
# token, 4,000 characters take 5,334 bytes.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html
MOST_CHARACTERS = 4000
MOST_PREFIXES = 100  # for each scope; a list of counters takes one read per prefix


class Grant(NamedTuple):
    """Scopes for some counters, or for all counters.

    Attributes:
        scopes: the scopes.
        prefixes: the scopes are for the counters whose names begin with one of these prefixes. The
            empty prefix stands for all counters.
    """

    scopes: Collection[str]
    prefixes: Collection[str] = ("",)


class MalformedGrantError(Exception):
    """An item of GrantTable is malformed. The error's text names its principal."""


class TooManyPrefixesError(Exception):
    """The rights of a caller do not fit into an access token. The error's text names the caller."""


# What a group may do if GrantTable has no item for it. Members of any other group may do nothing.
_GROUPS = {
    "group:readers": Grant(["read"]),
    "group:writers": Grant(["read", "increment"]),
    "group:editors": Grant(["read", "increment", "set"]),
}


def of_client(client_id: str, until: float) -> list[Grant]:
    """Return the grant of an app client.

    A client without an item in GrantTable has a grant with all scopes. Cognito still gives it only
    the scopes that its app client allows.

    Args:
        client_id: the id of the app client.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        MalformedGrantError: if the item is malformed.
        ThrottledError: if DynamoDB did not answer in time.
    """
    return list(_stored([f"client:{client_id}"], until).values()) or [Grant(SCOPES)]


def of_groups(groups: Collection[str], until: float) -> list[Grant]:
    """Return the grants of the groups in which a person is.

    Args:
        groups: the names of at most 100 groups, which is Cognito's limit:
            https://docs.aws.amazon.com/cognito/latest/developerguide/quotas.html
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        MalformedGrantError: if an item is malformed.
        ThrottledError: if DynamoDB did not answer in time.
    """
    principals = sorted({f"group:{group}" for group in groups})
    grants = _GROUPS | _stored(principals, until)
    return [grants[principal] for principal in principals if principal in grants]


def claims(grants: Collection[Grant], caller: str) -> dict[str, str]:
    """Return the claims of a caller to whom these grants apply, one claim per scope.

    A caller has the rights of all their grants. But the scopes of one grant do not extend to the
    prefixes of another.

    Args:
        grants: the grants.
        caller: who gets the token, for the error.

    Raises:
        TooManyPrefixesError: if a claim has over 100 prefixes, or if all claims together have over
            4,000 characters.
    """
    found: dict[str, str] = {}
    characters = 0
    for scope in SCOPES:
        prefixes = _shortest(
            prefix for grant in grants if scope in grant.scopes for prefix in grant.prefixes
        )
        listed = " ".join(prefixes)
        characters += len(listed)
        if len(prefixes) > MOST_PREFIXES or characters > MOST_CHARACTERS:
            message = f"the grants of {caller} have too many prefixes"
            raise TooManyPrefixesError(message)
        found[f"{CLAIM}{scope}"] = ALL if prefixes == [""] else listed or NONE
    return found


def _shortest(prefixes: Iterable[str]) -> list[str]:
    """Return sorted prefixes, without those that begin with another one."""
    shortest: list[str] = []
    for prefix in sorted(set(prefixes)):
        if not shortest or not prefix.startswith(shortest[-1]):
            shortest.append(prefix)
    return shortest


def _stored(principals: Collection[str], until: float) -> dict[str, Grant]:
    """Return the grants in GrantTable, by principal."""
    if not principals:
        return {}
    keys = [{"principal": {"S": principal}} for principal in principals]
    with must_answer():
        items = get_items(os.environ["GRANT_TABLE"], keys, until)
    return {item["principal"]["S"]: _grant(item) for item in items}


def _grant(item: "Item") -> Grant:
    """Return the grant in an item.

    Raises:
        MalformedGrantError: if the item is malformed. An attribute with an unknown name counts as
            malformed, because a misspelled `prefixes` must not open all counters.
    """
    principal = item["principal"]["S"]
    try:
        rules.only(["principal", "scopes", "prefixes"], item)
        scopes = _set(item, "scopes")
        if not set(scopes) <= set(SCOPES):
            rules.invalid("scopes", f"must be some of {', '.join(SCOPES)}")
        if "prefixes" not in item:
            return Grant(scopes)
        prefixes = [rules.counter_id(each, "prefixes") for each in _set(item, "prefixes")]
        return Grant(scopes, prefixes)
    except InvalidRequestError as error:
        message = f"the grant of {principal} is malformed: {error}"
        raise MalformedGrantError(message) from error


def _set(item: "Item", name: str) -> "Sequence[str]":
    """Return the set of strings in an attribute."""
    values = item.get(name, {}).get("SS")
    if not values:
        rules.invalid(name, "must be a set of strings")
    return values
