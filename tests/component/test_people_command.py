"""The commands `tally people`."""

import os
import re
import string
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.component.administration import (
    FAULTS,
    Administration,
    Send,
    interrupting,
    limited_to,
    losing_the_reply,
    refusing,
)

from tally_client.command import main

FULL = Path("/dev/full")


def attributes(parameters: dict[str, Any]) -> dict[str, str]:
    return {each["Name"]: each["Value"] for each in parameters["UserAttributes"]}


@pytest.mark.parametrize(
    ("arguments", "name", "email"),
    [
        ("alice@example.com", "alice@example.com", "alice@example.com"),
        ("alice --email alice@example.com", "alice", "alice@example.com"),
        ("a@example.com --email b@example.com", "a@example.com", "b@example.com"),
    ],
)
def test_cognito_invites_a_person_with_an_email_address(
    tally: Administration, arguments: str, name: str, email: str
) -> None:
    text = tally(f"people add {arguments} --group readers")
    assert "was created" in text
    assert f"invitation to {email}" in text
    assert "password" not in text
    parameters = tally.parameters("AdminCreateUser")
    assert attributes(parameters) == {"email": email, "email_verified": "true"}
    del parameters["UserAttributes"]
    assert parameters == {
        "UserPoolId": tally.pool,
        "Username": name,
        "DesiredDeliveryMediums": ["EMAIL"],
    }
    assert tally.names() == [name]
    assert tally.groups_of(name) == {"readers"}


def test_a_person_without_an_email_address_gets_a_temporary_password(
    tally: Administration,
) -> None:
    text = tally("people add alice")
    (password,) = re.findall(r"temporary password (\S+)", text)
    assert tally.parameters("AdminCreateUser") == {
        "UserPoolId": tally.pool,
        "Username": "alice",
        "MessageAction": "SUPPRESS",
        "TemporaryPassword": password,
    }
    assert text.count(password) == 1
    answer = tally.json("people add bob")
    assert answer["temporary_password"] == tally.parameters("AdminCreateUser")["TemporaryPassword"]
    assert answer["temporary_password"] != password


def test_a_temporary_password_has_characters_of_each_kind(tally: Administration) -> None:
    for number in range(8):
        password = tally.json(f"people add person-{number}")["temporary_password"]
        assert len(password) == 20
        assert password[0] in string.ascii_letters
        for kind in (string.ascii_lowercase, string.ascii_uppercase, string.digits, "-_.+="):
            assert set(kind) & set(password)


def test_add_as_json(tally: Administration) -> None:
    command = "people add a@example.com --group writers --group readers --group writers"
    expected = {"name": "a@example.com", "temporary_password": None}
    assert tally.json(command) == {
        **expected,
        "created": True,
        "email": "a@example.com",
        "groups": ["writers", "readers"],
    }
    assert tally.groups_of("a@example.com") == {"readers", "writers"}
    assert tally.json(command) == {
        **expected,
        "created": False,
        "email": None,
        "groups": ["writers", "readers"],
    }


def test_a_person_who_exists_only_joins_the_groups(tally: Administration) -> None:
    tally.create("alice")
    text = tally("people add alice --email other@example.com --group writers")
    assert "exists already" in text
    assert "password and e-mail address were not changed" in text
    assert "Groups: writers" in text
    assert tally.groups_of("alice") == {"writers"}
    (alice,) = tally.json("people list")
    assert alice["email"] == "alice@example.com"
    assert "exists already" in tally("people add alice")


@pytest.mark.parametrize("group", ["none", "''", "'a b'"])
def test_without_the_group_the_person_is_not_created(tally: Administration, group: str) -> None:
    code = 6 if group == "none" else 4
    error = tally.error(f"people add alice --group readers --group {group}", code)
    assert "group" in error["detail"]
    assert "AdminCreateUser" not in tally.operations()
    assert tally.names() == []


@pytest.mark.parametrize(
    "arguments",
    [
        "''",
        "'a b'",
        "a" * 129,
        "\udcff",
        "alice@",
        "@example.com",
        "a@b@c",
        "alice --email ''",
        "alice --email alice",
        "alice --email 'a b@example.com'",
        "alice --email \udcff@example.com",
        f"alice --email {'a' * 2048}@example.com",
    ],
    ids=ascii,
)
def test_an_invalid_person_is_refused_before_a_request(
    tally: Administration, arguments: str
) -> None:
    assert tally.error(f"people add {arguments}", 4)["error"] == "InvalidRequest"
    assert tally.sent == []


@pytest.mark.parametrize("name", ["denied", "throttled", "reply lost"])
def test_what_was_done_before_an_error_is_shown_and_can_be_resumed(
    tally: Administration, name: str
) -> None:
    fault, _, code = FAULTS[name]

    def fail_at_writers(send: Send, parameters: dict[str, Any]) -> Any:  # noqa: ANN401
        is_second = parameters["GroupName"] == "writers"
        return fault(send, parameters) if is_second else send(parameters)

    tally.faults["AdminAddUserToGroup"] = fail_at_writers
    command = "people add alice --group readers --group writers --group editors"
    result = tally.run(command)
    assert result.exit_code == code
    password = tally.parameters("AdminCreateUser")["TemporaryPassword"]
    assert password in result.stdout
    assert "Groups: readers\n" in result.stdout
    assert "The person was created. Groups joined: readers." in result.stderr
    assert "Still to join: writers editors. Run the command again" in result.stderr
    assert password not in result.stderr
    del tally.faults["AdminAddUserToGroup"]
    assert "exists already" in tally(command)
    assert tally.groups_of("alice") == {"readers", "writers", "editors"}


def test_a_half_way_error_as_json_has_the_password_on_standard_output(
    tally: Administration,
) -> None:
    tally.faults["AdminAddUserToGroup"] = refusing("AccessDeniedException")
    result = tally.run("people add alice --group readers --json")
    assert result.exit_code == 5
    assert tally.parameters("AdminCreateUser")["TemporaryPassword"] in result.stdout
    assert '"groups":[]' in result.stdout
    assert "Groups joined: none. Still to join: readers." in result.stderr


@pytest.mark.parametrize(
    ("name", "advice"),
    [("alice", "nobody knows the password: remove"), ("alice@example.com", "Run the command")],
)
@pytest.mark.parametrize("fault", ["reply lost", "internal error", "undelivered"])
def test_an_unknown_outcome_of_a_creation_says_what_to_do(
    tally: Administration, name: str, advice: str, fault: str
) -> None:
    undelivered = refusing("CodeDeliveryFailureException")
    tally.faults["AdminCreateUser"] = undelivered if fault == "undelivered" else FAULTS[fault][0]
    result = tally.run(f"people add {name} --group readers")
    assert result.exit_code == 11
    assert result.stdout == ""
    assert result.stderr.startswith("OutcomeUnknown: ")
    assert advice in result.stderr
    assert "AdminAddUserToGroup" not in tally.operations()


def test_a_creation_whose_reply_is_lost_can_be_resumed(tally: Administration) -> None:
    tally.faults["AdminCreateUser"] = losing_the_reply
    assert tally.run("people add alice@example.com --group readers").exit_code == 11
    del tally.faults["AdminCreateUser"]
    assert "exists already" in tally("people add alice@example.com --group readers")
    assert tally.groups_of("alice@example.com") == {"readers"}


def test_an_interrupted_command_says_what_to_do(tally: Administration) -> None:
    tally.faults["AdminCreateUser"] = interrupting
    result = tally.run("people add alice")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "nobody knows the password" in result.stderr
    del tally.faults["AdminCreateUser"]
    tally.faults["AdminAddUserToGroup"] = interrupting
    result = tally.run("people add bob --group readers")
    assert result.exit_code == 130
    assert tally.parameters("AdminCreateUser")["TemporaryPassword"] in result.stdout
    assert "Still to join: readers" in result.stderr
    tally.faults["AdminDeleteUser"] = interrupting
    result = tally.run("people remove bob")
    assert result.exit_code == 130
    assert "tally people list" in result.stderr


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("people add bob", "nobody knows the password: remove the person"),
        ("people add bob@example.com", "The change was applied."),
        ("people add alice", "The change was applied."),
        ("people remove alice", "The change was applied."),
        ("grants set group:readers --scope read", "The change was applied."),
        ("grants remove group:writers", "The change was applied."),
    ],
)
def test_a_change_whose_result_cannot_be_printed_is_reported_as_applied(
    tally: Administration, capsys: pytest.CaptureFixture[str], command: str, advice: str
) -> None:
    tally.create("alice")
    tally.put("group:writers", scopes={"SS": ["read"]})
    with FULL.open("w", encoding="utf-8") as full, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        patch.setattr(sys, "argv", ["tally", *command.split()])
        with pytest.raises(SystemExit) as caught:
            main()
    assert caught.value.code == 13
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("NotWritten: ")
    assert advice in line


def test_a_password_that_nobody_reads_is_reported(
    tally: Administration, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as broken, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", broken)
        patch.setattr(sys, "argv", ["tally", "people", "add", "alice"])
        with pytest.raises(SystemExit) as caught:
            main()
    assert caught.value.code == 13
    assert tally.names() == ["alice"]
    assert "nobody knows the password" in capsys.readouterr().err


def test_list_shows_all_people_in_order(tally: Administration) -> None:
    for operation in ("ListUsers", "ListGroups", "ListUsersInGroup"):
        tally.faults[operation] = limited_to(2)
    tally("people add eve")
    for name in ("dan", "bob", "alice", "carol"):
        tally.create(name)
        tally(f"people add {name} --group writers --group readers")
    tally("people add dan --group editors")
    tally.cognito.admin_disable_user(UserPoolId=tally.pool, Username="bob")
    tally.cognito.admin_confirm_sign_up(UserPoolId=tally.pool, Username="dan")
    assert tally("people list").splitlines() == [
        "name   email              status                            groups",
        "alice  alice@example.com  FORCE_CHANGE_PASSWORD             readers writers",
        "bob    bob@example.com    FORCE_CHANGE_PASSWORD (disabled)  readers writers",
        "carol  carol@example.com  FORCE_CHANGE_PASSWORD             readers writers",
        "dan    dan@example.com    CONFIRMED                         editors readers writers",
        "eve                       FORCE_CHANGE_PASSWORD",
    ]
    _, bob, *_, eve = tally.json("people list")
    assert bob == {
        "name": "bob",
        "email": "bob@example.com",
        "status": "FORCE_CHANGE_PASSWORD",
        "enabled": False,
        "groups": ["readers", "writers"],
        "actor": tally.sub_of("bob"),
    }
    assert (eve["email"], eve["groups"], eve["enabled"]) == (None, [], True)


def test_remove_deletes_the_person_and_says_that_tokens_still_work(tally: Administration) -> None:
    for name in ("alice", "bob", "carol"):
        tally.create(name)
    text = tally("people remove alice")
    assert "tokens that were issued before still work until they expire" in text
    answer = tally.json("people remove bob")
    assert answer["name"] == "bob"
    assert "still work until they expire" in answer["note"]
    assert tally.names() == ["carol"]


def test_a_person_who_does_not_exist_cannot_be_removed(tally: Administration) -> None:
    error = tally.error("people remove alice", 6)
    assert (error["error"], error["kind"]) == ("NotFound", "UserNotFoundException")
    assert "no person alice" in error["detail"]
    tally.faults["AdminDeleteUser"] = refusing("ResourceNotFoundException", message="no pool")
    assert "no pool" in tally.error("people remove alice", 6)["detail"]
    tally.error("people remove 'a b'", 4)


@pytest.mark.parametrize("name", ["denied", "reply lost"])
@pytest.mark.parametrize(
    ("command", "operation", "is_change"),
    [
        ("people list", "ListUsers", False),
        ("people list", "ListGroups", False),
        ("people list", "ListUsersInGroup", False),
        ("people add bob --group readers", "GetGroup", False),
        ("people add bob --group readers", "AdminCreateUser", True),
        ("people remove alice", "AdminDeleteUser", True),
    ],
)
def test_an_error_of_aws_stops_the_command(
    tally: Administration, name: str, command: str, operation: str, *, is_change: bool
) -> None:
    fault, at_a_read, at_a_change = FAULTS[name]
    tally.create("alice")
    tally.faults[operation] = fault
    result = tally.run(command)
    assert (result.exit_code, result.stdout) == (at_a_change if is_change else at_a_read, "")
    assert tally.sent[-1][0] == operation
    if is_change and name == "reply lost":
        assert "tally people list" in result.stderr
    else:
        assert tally.names() == ["alice"]
