"""Rights: which counters a caller may read, increment or set.

`issue_token` writes a caller's rights into each access token, as one claim per scope. So Tally
authorizes a request from its token alone, without reading a table. This module writes and reads
these claims.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Literal, NamedTuple

from counters.errors import ForbiddenError, UnauthorizedError

Scope = Literal["read", "increment", "set"]
SCOPES: tuple[Scope, ...] = ("read", "increment", "set")

# The claim of each scope has this prefix. Cognito adds no claims with this prefix to an access
# token, and callers cannot add any. So only `issue_token` can have set the claim.
_CLAIM = "tally:"
_ALL = "*"  # the claim for all counters; no counter's name has this character
# The claim for no counters; no counter's name begins with this character. Cognito does not document
# whether a claim may be empty.
_NONE = "-"

# A token must fit into a request's headers, for which API Gateway accepts 10,240 bytes in all. In a
# token, 4,000 characters take 5,334 bytes.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html
MOST_CHARACTERS = 4000


class TooManyPrefixesError(Exception):
    """The rights do not fit into an access token."""


class Grant(NamedTuple):
    """Scopes for some counters, or for all counters.

    Attributes:
        scopes: the scopes.
        prefixes: the scopes are for the counters whose names begin with one of these prefixes. The
            empty prefix stands for all counters.
    """

    scopes: Collection[str]
    prefixes: Collection[str] = ("",)


class Rights(NamedTuple):
    """The counters for which a caller has one scope.

    Attributes:
        prefixes: the caller may use the counters whose names begin with one of these prefixes. They
            are sorted, and no prefix begins with another one. The empty prefix stands for all
            counters. If there are no prefixes, the caller may use no counter.
    """

    prefixes: tuple[str, ...]

    def require(self, counter_ids: Iterable[str]) -> None:
        """Check that the caller may use all these counters.

        Raises:
            ForbiddenError: if the caller may not use one of them. The error names the first one.
        """
        for counter_id in counter_ids:
            if not counter_id.startswith(self.prefixes):
                detail = f"The access token does not allow this for the counter {counter_id}."
                raise ForbiddenError(detail)

    def within(self, prefix: str) -> list[str]:
        """Return prefixes for exactly the names that begin with `prefix` and that are allowed.

        The prefixes are sorted, and no prefix begins with another one.
        """
        return [
            max(prefix, allowed, key=len)
            for allowed in self.prefixes
            if allowed.startswith(prefix) or prefix.startswith(allowed)
        ]


def claims(grants: Collection[Grant]) -> dict[str, str]:
    """Return the claims of a caller to whom these grants apply, one claim per scope.

    A caller has the rights of all their grants. But the scopes of one grant do not extend to the
    prefixes of another.

    Raises:
        TooManyPrefixesError: if the claims have over 4,000 characters.
    """
    found: dict[str, str] = {}
    for scope in SCOPES:
        prefixes = {
            prefix for grant in grants if scope in grant.scopes for prefix in grant.prefixes
        }
        listed = " ".join(_shortest(prefixes)) or _NONE
        found[f"{_CLAIM}{scope}"] = _ALL if "" in prefixes else listed
    if sum(len(claim) for claim in found.values() if claim != _NONE) > MOST_CHARACTERS:
        message = f"the prefixes of all scopes together have over {MOST_CHARACTERS} characters"
        raise TooManyPrefixesError(message)
    return found


def of_token(token_claims: Mapping[str, str], scope: Scope) -> Rights:
    """Return the rights that the claims of an access token give for a scope.

    Raises:
        UnauthorizedError: if the claim is missing, so `issue_token` did not run when the token was
            issued. Either the token is older than this version of Tally, or someone detached the
            trigger from the user pool.
    """
    claim = token_claims.get(f"{_CLAIM}{scope}")
    if claim is None:
        detail = f"The access token has no claim {_CLAIM}{scope}. Get a new token."
        raise UnauthorizedError(detail)
    if claim == _ALL:
        return Rights(("",))
    return Rights(() if claim == _NONE else tuple(claim.split()))


def _shortest(prefixes: Iterable[str]) -> list[str]:
    """Return sorted prefixes, without those that begin with another one."""
    shortest: list[str] = []
    for prefix in sorted(prefixes):
        if not shortest or not prefix.startswith(shortest[-1]):
            shortest.append(prefix)
    return shortest
