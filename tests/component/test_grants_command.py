"""The commands `tally grants`."""

from typing import Any

import pytest
from tests.component.administration import (
    FAULTS,
    Administration,
    Send,
    interrupting,
    limited_to,
    losing_the_reply,
)

from counters import grants as of_functions
from counters.rights import SCOPES
from tally_client.access import grants as of_client
from tally_client.errors import InvalidRequest

READ: dict[str, Any] = {"SS": ["read"]}


def with_characters(count: int) -> list[str]:
    """Return prefixes that have so many characters, with the spaces between them."""
    return " ".join(f"{number:02}".ljust(98, "x") for number in range(41))[:count].split()


def test_set_writes_the_whole_grant(tally: Administration) -> None:
    principal = f"client:{tally.client_id}"
    text = tally(f"grants set {principal} --scope set --scope read --prefix b: --prefix a")
    assert text.startswith(f"{principal}: read set on a b:. ")
    assert "next token" in text
    key = {"principal": {"S": principal}}
    assert tally.item(principal) == {
        **key,
        "scopes": {"SS": ["read", "set"]},
        "prefixes": {"SS": ["a", "b:"]},
    }
    assert "all counters" in tally(f"grants set {principal} --scope increment")
    assert tally.item(principal) == {**key, "scopes": {"SS": ["increment"]}}


def test_set_as_json_prints_the_grant(tally: Administration) -> None:
    command = "grants set group:writers --scope increment --scope read --scope read"
    everywhere = {"principal": "group:writers", "scopes": ["read", "increment"], "prefixes": None}
    assert tally.json(command) == everywhere
    assert tally.json(f"{command} --prefix b --prefix a --prefix b") == {
        **everywhere,
        "prefixes": ["a", "b"],
    }


def test_list_shows_all_grants_in_order(tally: Administration) -> None:
    tally.faults["Scan"] = limited_to(1)
    tally.put("group:writers", scopes={"SS": ["set", "increment"]}, prefixes={"SS": ["b", "a"]})
    tally.put("group:editors", scopes=READ)
    tally.put("client:1", scopes=READ, prefixes={"SS": ["orders:"]})
    assert tally("grants list").splitlines() == [
        "principal      scopes         prefixes",
        "client:1       read           orders:",
        "group:editors  read           all counters",
        "group:writers  increment set  a b",
    ]
    assert tally.json("grants list") == [
        {"principal": "client:1", "scopes": ["read"], "prefixes": ["orders:"]},
        {"principal": "group:editors", "scopes": ["read"], "prefixes": None},
        {"principal": "group:writers", "scopes": ["increment", "set"], "prefixes": ["a", "b"]},
    ]
    assert tally.operations() == ["Scan"] * 3
    assert all(each["ConsistentRead"] for name, each in tally.sent if name == "Scan")


@pytest.mark.parametrize("descending", [False, True])
def test_the_order_of_the_list_is_not_that_of_the_table(
    tally: Administration, *, descending: bool
) -> None:
    def scan(send: Send, parameters: dict[str, Any]) -> Any:  # noqa: ANN401
        return {"Items": sorted(send(parameters)["Items"], key=str, reverse=descending)}

    tally.faults["Scan"] = scan
    for name in ("a", "b"):
        tally.put(f"group:{name}", scopes=READ)
    listed = [each["principal"] for each in tally.json("grants list")]
    assert listed == ["group:a", "group:b"]


def test_without_grants_the_list_is_empty(tally: Administration) -> None:
    assert tally("grants list") == "principal  scopes  prefixes\n"
    assert tally.json("grants list") == []


@pytest.mark.parametrize(
    ("principal", "attributes", "reason"),
    [
        ("group:a", {}, "scopes"),
        ("group:a", {"scopes": {"S": "read"}}, "scopes"),
        ("group:a", {"scopes": {"SS": ["read", "delete"]}}, "scope"),
        ("group:a", {"scopes": READ, "prefixes": {"L": []}}, "prefixes"),
        ("group:a", {"scopes": READ, "prefixes": {"SS": ["a", "-"]}}, "prefix"),
        (
            "group:a",
            {"scopes": READ, "prefixes": {"SS": [f"{n:0>128}" for n in range(32)]}},
            "4000",
        ),
        ("group:a", {"scopes": READ, "prefixes": {"SS": [f"{n}:" for n in range(101)]}}, "100"),
        ("group:a", {"scopes": READ, "note": {"S": "x"}}, "note"),
        ("a:person", {"scopes": READ}, "principal"),
        ("group:", {"scopes": READ}, "principal"),
        ("client:a-b", {"scopes": READ}, "principal"),
    ],
)
def test_a_malformed_grant_is_listed_as_malformed(
    tally: Administration, principal: str, attributes: dict[str, Any], reason: str
) -> None:
    tally.put(principal, **attributes)
    tally.put("group:z", scopes=READ)
    malformed, fine = tally.json("grants list")
    assert malformed.keys() == {"principal", "malformed"}
    assert malformed["principal"] == principal
    assert reason in malformed["malformed"]
    assert fine["scopes"] == ["read"]
    _, line, _ = tally("grants list").splitlines()
    assert line.split()[:2] == [principal, "malformed:"]


@pytest.mark.parametrize(
    "arguments",
    [
        "group:readers --scope read --prefix ''",
        "group:readers --scope read --prefix -a",
        "group:readers --scope read --prefix 'a b'",
        "group:readers --scope read --prefix a/",
        f"group:readers --scope read --prefix {'a' * 129}",
        "readers --scope read",
        "group: --scope read",
        "'group:a b' --scope read",
        f"group:{'a' * 129} --scope read",
        "person:alice --scope read",
        "client:a-b --scope read",
        "client: --scope read",
        "group:\udcff --scope read",
    ],
    ids=ascii,
)
def test_an_invalid_grant_is_refused_before_a_request(
    tally: Administration, arguments: str
) -> None:
    assert tally.error(f"grants set {arguments}", 4)["error"] == "InvalidRequest"
    assert tally.sent == []


def test_a_grant_needs_scopes_that_exist(tally: Administration) -> None:
    for arguments in ("", "--scope delete", "--scope counters/read", "--scope ''"):
        assert tally.run(f"grants set group:readers {arguments}").exit_code == 2
        assert tally.sent == []


def test_a_grant_must_fit_into_a_token(tally: Administration) -> None:
    # 31 prefixes of 128 characters, 30 spaces, and another prefix with its space: 4,000.
    prefixes = [*(f"{number:0>128}" for number in range(31)), "a"]
    assert len(" ".join(prefixes)) == 4000
    options = " ".join(f"--prefix {prefix}" for prefix in prefixes)
    fits = f"grants set group:readers --scope read {options}"
    tally(fits)
    assert "4001" in tally.error(f"{fits}a", 4)["detail"]
    assert tally.sent == []
    assert "8000" in tally.error(f"{fits} --scope set", 4)["detail"]


def test_a_grant_has_at_most_100_prefixes(tally: Administration) -> None:
    options = " ".join(f"--prefix {number}:" for number in range(100))
    fits = f"grants set group:readers --scope read {options}"
    assert len(tally.json(fits)["prefixes"]) == 100
    assert "101" in tally.error(f"{fits} --prefix 100:", 4)["detail"]
    assert tally.sent == []


def test_prefixes_that_begin_with_another_one_are_dropped_before_the_limits(
    tally: Administration,
) -> None:
    covered = [f"a{number:0>127}" for number in range(101)]
    options = " ".join(f"--prefix {prefix}" for prefix in (*covered, "b:", "a", "b:c", "A"))
    grant = tally.json(f"grants set group:readers --scope read --scope set {options}")
    assert grant["prefixes"] == ["A", "a", "b:"]
    item = tally.item("group:readers")
    assert item
    assert item["prefixes"] == {"SS": ["A", "a", "b:"]}
    # The table can have such an item from the AWS CLI. IssueToken issues tokens for it.
    tally.put("group:readers", scopes=READ, prefixes={"SS": [*covered, "b:", "a"]})
    (listed,) = tally.json("grants list")
    assert listed == {"principal": "group:readers", "scopes": ["read"], "prefixes": ["a", "b:"]}


def test_the_client_has_the_same_groups_scopes_and_limits_as_the_functions() -> None:
    defaults = of_functions._GROUPS  # noqa: SLF001  the client has a copy of it
    assert {
        f"group:{name}": of_functions.Grant(list(scopes))
        for name, scopes in of_client.DEFAULTS.items()
    } == defaults
    assert tuple(of_client.Scope) == SCOPES
    assert of_client.MOST_CHARACTERS == of_functions.MOST_CHARACTERS
    assert of_client.MOST_PREFIXES == of_functions.MOST_PREFIXES


@pytest.mark.parametrize(
    ("scopes", "prefixes", "fits"),
    [
        (["read"], with_characters(4000), True),
        (["read"], with_characters(4001), False),
        (["read", "set"], with_characters(2000), True),
        (["read", "set"], with_characters(2001), False),
        (SCOPES, [f"{number}:" for number in range(100)], True),
        (SCOPES, [f"{number}:" for number in range(101)], False),
    ],
    ids=range(6),
)
def test_the_client_refuses_exactly_the_grants_that_do_not_fit_into_a_token(
    scopes: list[str], prefixes: list[str], *, fits: bool
) -> None:
    every = [*prefixes, *(f"{prefix}covered" for prefix in prefixes)]
    grant = of_functions.Grant(scopes, every)
    if fits:
        of_client.valid("group:readers", scopes, every)
        of_functions.claims([grant], "a reader")
        return
    with pytest.raises(InvalidRequest):
        of_client.valid("group:readers", scopes, every)
    with pytest.raises(of_functions.TooManyPrefixesError):
        of_functions.claims([grant], "a reader")


@pytest.mark.parametrize("principal", ["client:none", "group:none"])
def test_a_grant_needs_a_principal_that_exists(tally: Administration, principal: str) -> None:
    error = tally.error(f"grants set {principal} --scope read", 6)
    assert error["error"] == "NotFound"
    assert "none" in error["detail"]
    assert "PutItem" not in tally.operations()
    assert tally.item(principal) is None


@pytest.mark.parametrize(
    "settings",
    [{}, {"AllowedOAuthFlows": []}, {"AllowedOAuthFlows": ["code", "implicit"]}],
    ids=str,
)
def test_an_app_client_for_people_gets_no_grant(
    tally: Administration, settings: dict[str, Any]
) -> None:
    principal = f"client:{tally.created_client(**settings)}"
    error = tally.error(f"grants set {principal} --scope read", 4)
    assert error["error"] == "InvalidRequest"
    assert "The grants of people come from their groups" in error["detail"]
    assert "PutItem" not in tally.operations()
    assert tally.item(principal) is None


@pytest.mark.parametrize(
    ("principal", "then"),
    [
        ("client:gone", "what its app client allows, to all counters: this can be more than"),
        ("group:readers", "the scopes of readers on all counters: read."),
        ("group:writers", "the scopes of writers on all counters: read increment."),
        ("group:editors", "the scopes of editors on all counters: read increment set."),
        ("group:others", "no scopes from this group"),
        ("nonsense", "nobody's access changes"),
    ],
)
def test_remove_says_what_applies_without_the_grant(
    tally: Administration, principal: str, then: str
) -> None:
    for as_json in (False, True):
        tally.put(principal, scopes=READ)
        tally.put("group:z", scopes=READ)
        if as_json:
            answer = tally.json(f"grants remove {principal}")
            assert answer.keys() == {"principal", "note"}
            text = answer["note"]
        else:
            text = tally(f"grants remove {principal}")
        assert then in text
        assert "next token" in text
        assert tally.item(principal) is None
        assert tally.item("group:z") is not None


def test_a_grant_that_does_not_exist_cannot_be_removed(tally: Administration) -> None:
    error = tally.error("grants remove group:readers", 6)
    assert (error["error"], error["status"]) == ("NotFound", 404)
    for name in ("''", "\udcff", "a" * 2049):
        tally.error(f"grants remove {name}", 4)
        assert tally.operations() == []


@pytest.mark.parametrize("name", ["denied", "reply lost"])
@pytest.mark.parametrize(
    ("command", "operation", "is_change"),
    [
        ("grants list", "DescribeStacks", False),
        ("grants list", "Scan", False),
        ("grants set client:{client} --scope read", "DescribeUserPoolClient", False),
        ("grants set group:readers --scope read", "GetGroup", False),
        ("grants set group:readers --scope read", "PutItem", True),
        ("grants remove group:writers", "DeleteItem", True),
    ],
)
def test_an_error_of_aws_stops_the_command(
    tally: Administration, name: str, command: str, operation: str, *, is_change: bool
) -> None:
    fault, at_a_read, at_a_change = FAULTS[name]
    tally.put("group:writers", scopes=READ)
    tally.faults[operation] = fault
    error = tally.error(
        command.format(client=tally.client_id), at_a_change if is_change else at_a_read
    )
    assert tally.sent[-1][0] == operation
    if error["error"] == "OutcomeUnknown":
        assert "again" in error["detail"]
    else:
        assert tally.item("group:readers") is None
        assert tally.item("group:writers") is not None


def test_a_list_without_its_last_page_is_an_error(tally: Administration) -> None:
    tally.put("group:a", scopes=READ)
    tally.put("group:b", scopes=READ)

    def fail_later(send: Any, parameters: dict[str, Any]) -> Any:  # noqa: ANN401
        if "ExclusiveStartKey" in parameters:
            losing_the_reply(send, parameters)
        return send({**parameters, "Limit": 1})

    tally.faults["Scan"] = fail_later
    result = tally.run("grants list")
    assert (result.exit_code, result.stdout) == (10, "")


@pytest.mark.parametrize(
    ("command", "operation", "advice"),
    [
        ("grants set group:readers --scope read", "PutItem", "Run the command again"),
        ("grants remove group:readers", "DeleteItem", "tally grants list"),
    ],
)
def test_an_interrupted_change_says_what_to_do(
    tally: Administration, command: str, operation: str, advice: str
) -> None:
    tally.faults[operation] = interrupting
    result = tally.run(command)
    assert result.exit_code == 130
    assert advice in result.stderr
