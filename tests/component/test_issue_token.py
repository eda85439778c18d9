"""IssueToken writes exactly the rights of the grants into a token, or it raises an exception."""

import json
from collections.abc import Collection, Iterator
from itertools import pairwise, repeat
from typing import Any, get_args

import botocore.session
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from tests.aws_template import ROOT
from tests.stack import Stack, running
from tests.wire import (
    LOST,
    NOT_APPLIED,
    Fault,
    Killed,
    Wire,
    denied,
    dies,
    read_in_part,
    request_lost,
)

from counters import clock, rights
from counters.clients import ATTEMPT
from counters.errors import ForbiddenError, ThrottledError
from counters.grants import MalformedGrantError, TooManyPrefixesError
from counters.rights import SCOPES, Scope

pytestmark = pytest.mark.usefixtures("silent")

SAMPLE = json.loads((ROOT / "events" / "issue_token.json").read_text())
CLIENT: str = SAMPLE["callerContext"]["clientId"]
PRINCIPAL = f"client:{CLIENT}"
PERSONS = ("TokenGeneration_HostedAuth", "TokenGeneration_RefreshTokens")
EVERY = {"SS": ["read", "increment", "set"]}
ALL = {"tally:read": "*", "tally:increment": "*", "tally:set": "*"}
NONE = {"tally:read": "-", "tally:increment": "-", "tally:set": "-"}

Grants = dict[str, tuple[set[str], set[str]]]  # scopes and prefixes by principal


@pytest.fixture(scope="module")
def shared_stack(session: botocore.session.Session) -> Iterator[Stack]:
    """A stack for the examples of a property. Each example begins with empty tables."""
    with running(session) as stack:
        yield stack


def of_program(*scopes: str) -> dict[str, Any]:
    """Return the event for a program that asks for these scopes."""
    full = [f"counters/{scope}" for scope in scopes]
    return {**SAMPLE, "request": {**SAMPLE["request"], "scopes": full}}


def of_person(groups: Collection[str] | None, source: str = PERSONS[0]) -> dict[str, Any]:
    """Return the event for a person in these groups."""
    return {
        **SAMPLE,
        "triggerSource": source,
        "userName": "ann",
        "request": {
            "userAttributes": {"sub": "ann's sub", "email": "ann@example.com"},
            "groupConfiguration": {
                "groupsToOverride": None if groups is None else list(groups),
                "iamRolesToOverride": [],
                "preferredRole": None,
            },
            "scopes": ["openid"],
        },
    }


def issue(stack: Stack, event: dict[str, Any]) -> tuple[set[str], dict[str, str]]:
    """Invoke IssueToken, and apply its answer as Cognito does. Return scopes and claims."""
    before = json.dumps(event["request"])
    answer = stack.invoke("IssueToken", event)
    assert json.dumps(answer["request"]) == before
    (generation,) = answer["response"]["claimsAndScopeOverrideDetails"].items()
    assert generation[0] == "accessTokenGeneration"  # an id token gives no rights
    changes = generation[1]
    scopes = set(answer["request"]["scopes"]) - set(changes["scopesToSuppress"])
    assert not set(changes["scopesToAdd"]) & set(changes["scopesToSuppress"])
    return scopes | set(changes["scopesToAdd"]), changes["claimsToAddOrOverride"]


def put(stack: Stack, principal: str, **attributes: Any) -> None:  # noqa: ANN401
    stack.dynamodb.put_item(
        TableName=stack.refs["GrantTable"], Item={"principal": {"S": principal}, **attributes}
    )


def allows(claims: dict[str, str], scope: Scope, name: str) -> bool:
    try:
        rights.of_token(claims, scope).require([name])
    except ForbiddenError:
        return False
    return True


# --- Programs ------------------------------------------------------------------------------------


def test_a_program_without_a_grant_keeps_its_scopes(stack: Stack) -> None:
    assert issue(stack, of_program("read", "set")) == ({"counters/read", "counters/set"}, ALL)


def test_a_grant_takes_scopes_from_a_program_and_never_adds_any(stack: Stack) -> None:
    put(stack, PRINCIPAL, scopes={"SS": ["read", "increment"]}, prefixes={"SS": ["b:", "a:"]})
    claims = {**NONE, "tally:read": "a: b:", "tally:increment": "a: b:"}

    assert issue(stack, of_program("read", "set")) == ({"counters/read"}, claims)
    assert issue(stack, of_program("set")) == (set(), claims)


def test_a_program_does_not_get_the_grants_of_a_group_or_of_another_program(stack: Stack) -> None:
    put(stack, PRINCIPAL, scopes={"SS": ["read"]})
    put(stack, f"group:{CLIENT}", scopes=EVERY)
    put(stack, "client:other", scopes=EVERY)

    assert issue(stack, of_program(*SCOPES)) == ({"counters/read"}, {**NONE, "tally:read": "*"})


# --- People --------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", PERSONS)
@pytest.mark.parametrize(
    ("groups", "scopes"),
    [
        (None, ""),
        ([], ""),
        (["guests"], ""),
        (["readers"], "read"),
        (["writers"], "read increment"),
        (["editors"], "read increment set"),
        (["readers", "guests", "editors"], "read increment set"),
    ],
    ids=str,
)
def test_a_person_gets_the_scopes_of_their_groups(
    stack: Stack, source: str, groups: list[str] | None, scopes: str
) -> None:
    # A person has no grant of their own, and does not get the one of their app client.
    for principal in (PRINCIPAL, "client:ann", "group:ann", "group:ann's sub", "group:others"):
        put(stack, principal, scopes=EVERY)

    found, claims = issue(stack, of_person(groups, source))

    assert found == {"openid", *(f"counters/{scope}" for scope in scopes.split())}
    assert claims == {f"tally:{scope}": "*" if scope in scopes.split() else "-" for scope in SCOPES}


def test_a_grant_replaces_what_a_group_may_do_otherwise(stack: Stack) -> None:
    put(stack, "group:editors", scopes={"SS": ["read"]}, prefixes={"SS": ["shop:"]})

    found, claims = issue(stack, of_person(["editors"]))

    assert found == {"openid", "counters/read"}
    assert claims == {**NONE, "tally:read": "shop:"}


def test_a_person_in_a_hundred_groups_costs_one_read(stack: Stack, wire: Wire) -> None:
    groups = [f"team-{number:02}" for number in range(100)]
    for group in groups:
        put(stack, f"group:{group}", scopes={"SS": ["read"]}, prefixes={"SS": [f"{group}:"]})

    _, claims = issue(stack, of_person(groups))

    assert claims == {**NONE, "tally:read": " ".join(f"{group}:" for group in groups)}
    assert wire.operations() == ["BatchGetItem"]
    issue(stack, of_person([]))
    assert wire.operations() == ["BatchGetItem"]


# --- Grants --------------------------------------------------------------------------------------

# Prefixes with few characters, so that many are equal or begin with each other.
prefixes = st.text("ab:", min_size=1, max_size=4).filter(lambda text: text[0] != ":")
grants_of_groups = st.dictionaries(
    st.sampled_from(["readers", "editors", "one", "two", "three"]),
    st.tuples(
        st.sets(st.sampled_from(get_args(Scope)), min_size=1),
        st.sets(prefixes, max_size=4),  # empty: the grant is for all counters
    ),
)


@given(
    stored=grants_of_groups,
    groups=st.sets(st.sampled_from(["readers", "writers", "one", "two", "none"])),
    names=st.lists(prefixes, min_size=1, max_size=10),
)
def test_a_token_allows_exactly_what_one_of_the_grants_allows(
    shared_stack: Stack, stored: Grants, groups: set[str], names: list[str]
) -> None:
    shared_stack.empty_tables()
    for group, (scopes, allowed) in stored.items():
        limits = {"prefixes": {"SS": sorted(allowed)}} if allowed else {}
        put(shared_stack, f"group:{group}", scopes={"SS": sorted(scopes)}, **limits)
    defaults: Grants = {"readers": ({"read"}, set()), "writers": ({"read", "increment"}, set())}
    applicable = [grant for group, grant in (defaults | stored).items() if group in groups]

    found, claims = issue(shared_stack, of_person(groups))

    for claim in claims.values():  # sorted, and without prefixes that change nothing
        words = claim.split()
        assert words == sorted(words)
        assert not any(after.startswith(before) for before, after in pairwise(words))
    for scope in SCOPES:
        with_scope = [allowed for scopes, allowed in applicable if scope in scopes]
        assert (f"counters/{scope}" in found) == bool(with_scope)
        for name in {*names, *(prefix for allowed in with_scope for prefix in allowed)}:
            expected = any(not allowed or name.startswith(tuple(allowed)) for allowed in with_scope)
            assert allows(claims, scope, name) == expected, (scope, name)


@pytest.mark.parametrize(
    "grant",
    [
        {"scopes": EVERY, "prefix": {"SS": ["shop:"]}},
        {"scopes": EVERY, "Prefixes": {"SS": ["shop:"]}},
        {"scopes": EVERY, "ttl": {"N": "1"}},
        {"prefixes": {"SS": ["shop:"]}},
        {"scopes": {"S": "read"}},
        {"scopes": {"L": [{"S": "read"}]}},
        {"scopes": {"L": []}},
        {"scopes": {"NS": ["1"]}},
        {"scopes": {"NULL": True}},
        {"scopes": {"SS": ["read", "write"]}},
        {"scopes": {"SS": ["Read"]}},
        {"scopes": {"SS": ["counters/read"]}},
        {"scopes": EVERY, "prefixes": {"S": "shop:"}},
        {"scopes": EVERY, "prefixes": {"L": [{"S": "shop:"}]}},
        {"scopes": EVERY, "prefixes": {"L": []}},
        {"scopes": EVERY, "prefixes": {"NULL": True}},
        {"scopes": EVERY, "prefixes": {"SS": ["shop:", "*"]}},
        {"scopes": EVERY, "prefixes": {"SS": ["shop:", "a b"]}},
        {"scopes": EVERY, "prefixes": {"SS": [":shop"]}},
        {"scopes": EVERY, "prefixes": {"SS": ["shop:\n"]}},
        {"scopes": EVERY, "prefixes": {"SS": ["x" * 129]}},
    ],
    ids=str,
)
def test_a_malformed_grant_gives_no_token(stack: Stack, grant: dict[str, Any]) -> None:
    put(stack, PRINCIPAL, **grant)
    with pytest.raises(MalformedGrantError, match=PRINCIPAL):
        issue(stack, of_program(*SCOPES))

    put(stack, "group:readers", **grant)
    for groups in (["readers"], ["editors", "readers"]):
        with pytest.raises(MalformedGrantError, match="group:readers"):
            issue(stack, of_person(groups))
    assert issue(stack, of_person(["editors"]))[1] == ALL


def test_claims_have_at_most_4000_characters(stack: Stack) -> None:
    fitting = [f"{number:02}:".ljust(99, "x") for number in range(40)]  # 3,999 with the spaces
    put(stack, PRINCIPAL, scopes={"SS": ["read"]}, prefixes={"SS": fitting})
    _, claims = issue(stack, of_program("read"))
    assert claims == {**NONE, "tally:read": " ".join(fitting)}

    put(stack, PRINCIPAL, scopes={"SS": ["read"]}, prefixes={"SS": [*fitting, "a"]})
    with pytest.raises(TooManyPrefixesError):
        issue(stack, of_program("read"))

    put(stack, PRINCIPAL, scopes={"SS": ["read", "set"]}, prefixes={"SS": fitting})
    with pytest.raises(TooManyPrefixesError):
        issue(stack, of_program("read"))


def test_a_scope_has_at_most_100_prefixes_and_the_error_names_the_caller(stack: Stack) -> None:
    fitting = [f"{number:02}:" for number in range(100)]
    covered = [f"{prefix}x" for prefix in fitting]
    put(stack, PRINCIPAL, scopes={"SS": ["read"]}, prefixes={"SS": [*fitting, *covered]})
    _, claims = issue(stack, of_program("read"))
    assert claims == {**NONE, "tally:read": " ".join(fitting)}

    put(stack, PRINCIPAL, scopes={"SS": ["read"]}, prefixes={"SS": [*fitting, "a"]})
    with pytest.raises(TooManyPrefixesError, match=PRINCIPAL.removeprefix("client:")):
        issue(stack, of_program("read"))


# --- Faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [*LOST, *NOT_APPLIED, request_lost, read_in_part(0)])
def test_a_read_without_an_answer_is_repeated(stack: Stack, wire: Wire, fault: Fault) -> None:
    put(stack, PRINCIPAL, scopes={"SS": ["read"]})
    wire.fail("BatchGetItem", [fault])
    assert issue(stack, of_program(*SCOPES)) == ({"counters/read"}, {**NONE, "tally:read": "*"})
    assert wire.operations() == ["BatchGetItem"] * 2


def test_a_partial_read_is_completed(stack: Stack, wire: Wire) -> None:
    groups = ["readers", "writers", "editors"]
    for group in groups:
        put(stack, f"group:{group}", scopes={"SS": ["read"]}, prefixes={"SS": [f"{group}:"]})
    wire.fail("BatchGetItem", [read_in_part(1), read_in_part(1)])
    _, claims = issue(stack, of_person(groups))
    assert claims == {**NONE, "tally:read": "editors: readers: writers:"}


@pytest.mark.parametrize("fault", [*LOST, *NOT_APPLIED, request_lost, read_in_part(0)])
@pytest.mark.parametrize("event", [of_program("read"), of_person(["editors"])], ids=["app", "ann"])
def test_there_is_no_token_while_the_grants_cannot_be_read(
    stack: Stack, wire: Wire, fault: Fault, event: dict[str, Any]
) -> None:
    started_at = clock.now()
    latest: list[float] = []

    def note(request: Any) -> Any:  # noqa: ANN401
        latest.append(clock.now() - started_at)
        return fault(request)

    wire.fail("BatchGetItem", repeat(note))
    with pytest.raises(ThrottledError):
        issue(stack, event)
    assert len(latest) > 1
    # The last request, too, ends before Cognito gives up.
    assert latest[-1] + ATTEMPT <= stack.functions["IssueToken"].timeout <= 5


@pytest.mark.parametrize(
    ("fault", "error"), [(denied, ClientError), (dies, Killed)], ids=["denied", "killed"]
)
def test_there_is_no_token_after_a_fault_that_a_retry_cannot_help(
    stack: Stack, wire: Wire, fault: Fault, error: type[BaseException]
) -> None:
    wire.fail("BatchGetItem", [fault])
    with pytest.raises(error):
        issue(stack, of_program("read"))
    assert wire.operations() == ["BatchGetItem"]
