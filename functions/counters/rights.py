"""Rights: which counters a caller may read, increment or set.

`issue_token` writes a caller's rights into each access token, as one claim per scope (see
`grants`). So Tally authorizes a request from its token alone, without reading a table. This module
reads these claims.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from counters.errors import ForbiddenError, UnauthorizedError

Scope = Literal["read", "increment", "set"]
SCOPES: tuple[Scope, ...] = ("read", "increment", "set")

# The claim of each scope has this prefix. Cognito adds no claims with this prefix to an access
# token, and callers cannot add any. So only `issue_token` can have set the claim.
CLAIM = "tally:"
ALL = "*"  # the claim for all counters; no counter's name has this character
# The claim for no counters; no counter's name begins with this character. Cognito does not document
# whether a claim may be empty.
NONE = "-"


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


def of_token(token_claims: Mapping[str, str], scope: Scope) -> Rights:
    """Return the rights that the claims of an access token give for a scope.

    Raises:
        UnauthorizedError: if the claim is missing, so `issue_token` did not run when the token was
            issued. Either the token is older than this version of Tally, or someone detached the
            trigger from the user pool.
    """
    claim = token_claims.get(f"{CLAIM}{scope}")
    if claim is None:
        detail = f"The access token has no claim {CLAIM}{scope}. Get a new token."
        raise UnauthorizedError(detail)
    if claim == ALL:
        return Rights(("",))
    return Rights(() if claim == NONE else tuple(claim.split()))
