"""People sign in on Cognito's sign-in page, and get the rights of their groups."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from authlib.integrations.base_client.errors import OAuthError
from tests.e2e.people import (
    Browser,
    Person,
    allowed,
    copied_dashboard_client,
    created_person,
    first_person,
)
from tests.e2e.service import Caller, cognito

from deployment import Stack

EVERYTHING = {"read", "increment", "set"}
GRACE_SECONDS = 2  # of the app client with which a test waits for the end of the grace period


@pytest.fixture
def browser(stack: Stack) -> Iterator[Browser]:
    with Browser(stack) as browser:
        yield browser


@pytest.fixture
def editor(stack: Stack) -> Person:
    return first_person(stack)


def put_into_group(stack: Stack, person: Person, old: str, new: str) -> None:
    who: Any = {"UserPoolId": stack.outputs["UserPoolId"], "Username": person.username}
    cognito(stack).admin_remove_user_from_group(**who, GroupName=old)
    cognito(stack).admin_add_user_to_group(**who, GroupName=new)


def keep_refreshing(browser: Browser, refresh_token: str, until: float) -> None:
    """Refresh the tokens every half a second.

    Args:
        browser: the browser.
        refresh_token: the newest refresh token.
        until: when to stop, in seconds since the epoch.

    Raises:
        OAuthError: Cognito refuses.
    """
    while time.time() < until:
        time.sleep(0.5)
        refresh_token = browser.refresh(refresh_token)["refresh_token"]


# --- Signing in ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "scopes"),
    [
        ([], ""),
        (["readers"], "read"),
        (["writers"], "read increment"),
        (["editors"], "read increment set"),
        (["readers", "editors"], "read increment set"),
    ],
    ids=str,
)
def test_a_person_gets_the_scopes_of_their_groups(
    stack: Stack, browser: Browser, counter: str, groups: list[str], scopes: str
) -> None:
    with created_person(stack, *groups) as person:
        tokens = browser.sign_in(person)
        assert allowed(stack, tokens["access_token"], counter) == set(scopes.split())

        renewed = browser.refresh(tokens["refresh_token"])
        assert allowed(stack, renewed["access_token"], counter) == set(scopes.split())


def test_a_token_for_the_app_itself_gives_no_access(
    stack: Stack, browser: Browser, editor: Person, counter: str
) -> None:
    tokens = browser.sign_in(editor)
    for name in ("id_token", "refresh_token"):
        assert allowed(stack, tokens[name], counter) == set(), name


def test_the_history_names_the_person(
    stack: Stack, browser: Browser, editor: Person, counter: str
) -> None:
    token = browser.sign_in(editor)["access_token"]
    with Caller(stack.url, token) as caller:
        assert caller.post(counter).status == 200
        (entry,) = caller.history(counter, entries=1)
    who = cognito(stack).admin_get_user(
        UserPoolId=stack.outputs["UserPoolId"], Username=editor.username
    )
    assert {"Name": "sub", "Value": entry["actor"]} in who["UserAttributes"]


@pytest.mark.parametrize("scope", ["openid counters/set", "counters/read", "phone"])
def test_a_person_cannot_ask_for_more_scopes(browser: Browser, scope: str) -> None:
    answer = browser.authorize(scope=scope)
    assert answer.status_code == 302
    assert "invalid_scope" in answer.headers["location"]
    assert "code=" not in answer.headers["location"]


def test_the_page_does_not_tell_whether_a_person_exists(browser: Browser, editor: Person) -> None:
    page = browser.authorize()
    for password in ("wrong", ""):
        wrong = browser.enter(page, Person(editor.username, password))
        unknown = browser.enter(page, Person("nobody@example.com", password))
        assert wrong.status_code == unknown.status_code == 200
        assert wrong.text == unknown.text
        assert "location" not in wrong.headers


def test_nobody_can_sign_up(stack: Stack, editor: Person) -> None:
    pool = cognito(stack)
    for client_id in (stack.outputs["DashboardClientId"], stack.client_id):
        with pytest.raises(pool.exceptions.NotAuthorizedException):
            pool.sign_up(
                ClientId=client_id, Username="nobody@example.com", Password=editor.password
            )


# --- The code, and the proof of who asked for it (PKCE) ------------------------------------------


@pytest.mark.parametrize("verifier", ["", "wrong" * 10])
def test_a_code_is_worthless_without_its_verifier(
    browser: Browser, editor: Person, verifier: str
) -> None:
    redirect = browser.code(editor)
    with pytest.raises(OAuthError, match="invalid_grant"):
        browser.redeem(redirect, code_verifier=verifier)


def test_a_verifier_must_be_hashed(browser: Browser) -> None:
    answer = browser.authorize(code_challenge_method="plain", code_challenge=browser.verifier)
    assert answer.status_code == 302
    assert "error=invalid_request" in answer.headers["location"]
    assert "code=" not in answer.headers["location"]


def test_a_code_works_once(browser: Browser, editor: Person) -> None:
    redirect = browser.code(editor)
    assert browser.redeem(redirect)["access_token"]
    with pytest.raises(OAuthError, match="invalid_grant"):
        browser.redeem(redirect)


def test_a_code_works_only_for_its_app_and_address(
    stack: Stack, browser: Browser, editor: Person
) -> None:
    redirect = browser.code(editor)
    with pytest.raises(OAuthError, match="invalid_grant"):
        browser.redeem(redirect, redirect_uri=stack.outputs["ApiUrl"] + "/")
    with (
        copied_dashboard_client(stack) as other,
        Browser(stack, other) as thief,
        pytest.raises(OAuthError, match="invalid_grant"),
    ):
        thief.redeem(redirect, code_verifier=browser.verifier)


@pytest.mark.parametrize(
    "address",
    ["https://example.com/", "{url}other", "{url}?next=https://example.com/", "http://localhost/"],
)
def test_a_code_is_sent_only_to_the_dashboard(stack: Stack, browser: Browser, address: str) -> None:
    answer = browser.authorize(redirect_uri=address.format(url=stack.dashboard["url"]))
    assert answer.status_code == 400
    assert "location" not in answer.headers


def test_a_token_never_travels_in_an_address(browser: Browser) -> None:
    answer = browser.authorize(response_type="token")
    assert answer.status_code == 400
    assert "location" not in answer.headers


# --- Staying signed in ---------------------------------------------------------------------------


def test_a_refresh_replaces_both_tokens(
    stack: Stack, browser: Browser, editor: Person, counter: str
) -> None:
    first = browser.sign_in(editor)
    second = browser.refresh(first["refresh_token"])
    third = browser.refresh(second["refresh_token"])
    for name in ("access_token", "refresh_token"):
        assert len({first[name], second[name], third[name]}) == 3, name
    assert allowed(stack, third["access_token"], counter) == EVERYTHING


def test_a_refresh_whose_answer_was_lost_can_be_repeated(browser: Browser, editor: Person) -> None:
    tokens = browser.sign_in(editor)
    browser.refresh(tokens["refresh_token"])
    assert browser.can_refresh(tokens["refresh_token"])


def test_a_replaced_refresh_token_stops_working(stack: Stack, editor: Person) -> None:
    rotation = {"Feature": "ENABLED", "RetryGracePeriodSeconds": GRACE_SECONDS}
    with (
        copied_dashboard_client(stack, RefreshTokenRotation=rotation) as client_id,
        Browser(stack, client_id) as browser,
    ):
        old = browser.sign_in(editor)["refresh_token"]
        new = browser.refresh(old)["refresh_token"]
        time.sleep(GRACE_SECONDS)
        assert not browser.can_refresh(old)
        assert browser.can_refresh(new)


def test_a_sign_in_ends_even_if_it_is_refreshed(stack: Stack, editor: Person) -> None:
    # AWS allows no shorter time than an hour, but the emulator does.
    units = {"AccessToken": "minutes", "IdToken": "minutes", "RefreshToken": "seconds"}
    with (
        copied_dashboard_client(
            stack, RefreshTokenValidity=5, TokenValidityUnits=units
        ) as client_id,
        Browser(stack, client_id) as browser,
    ):
        tokens = browser.sign_in(editor)
        ends_at = time.time() + 5
        tokens = browser.refresh(tokens["refresh_token"])  # the first refresh always works
        with pytest.raises(OAuthError, match="invalid_grant"):
            keep_refreshing(browser, tokens["refresh_token"], until=ends_at + 1)


def test_a_refresh_gives_the_rights_of_the_present_groups(
    stack: Stack, browser: Browser, counter: str
) -> None:
    with created_person(stack, "readers") as person:
        tokens = browser.sign_in(person)
        put_into_group(stack, person, "readers", "editors")
        assert allowed(stack, tokens["access_token"], counter) == {"read"}
        tokens = browser.refresh(tokens["refresh_token"])
        assert allowed(stack, tokens["access_token"], counter) == EVERYTHING

        put_into_group(stack, person, "editors", "writers")
        tokens = browser.refresh(tokens["refresh_token"])
        assert allowed(stack, tokens["access_token"], counter) == {"read", "increment"}


@pytest.mark.parametrize("operation", ["admin_disable_user", "admin_user_global_sign_out"])
def test_an_administrator_can_end_a_sign_in(stack: Stack, browser: Browser, operation: str) -> None:
    with created_person(stack, "readers") as person:
        tokens = browser.sign_in(person)
        getattr(cognito(stack), operation)(
            UserPoolId=stack.outputs["UserPoolId"], Username=person.username
        )
        assert not browser.can_refresh(tokens["refresh_token"])


# --- Signing out ---------------------------------------------------------------------------------


def test_signing_out_ends_the_session_of_the_page(
    stack: Stack, browser: Browser, editor: Person
) -> None:
    browser.sign_in(editor)
    assert browser.redeem(browser.authorize())["access_token"]  # without a password

    answer = browser.sign_out()

    assert answer.status_code == 302
    assert answer.headers["location"] == stack.dashboard["url"]
    page = browser.authorize()
    assert page.status_code == 200
    assert browser.redeem(browser.enter(page, editor))["access_token"]


def test_a_person_returns_only_to_the_dashboard_after_signing_out(
    browser: Browser, editor: Person
) -> None:
    browser.sign_in(editor)
    answer = browser.sign_out(logout_uri="https://example.com/")
    assert answer.status_code == 400
    assert "location" not in answer.headers


def test_a_revoked_refresh_token_gives_no_tokens(
    stack: Stack, browser: Browser, editor: Person, counter: str
) -> None:
    tokens = browser.sign_in(editor)
    old, new = tokens["refresh_token"], browser.refresh(tokens["refresh_token"])["refresh_token"]

    for _ in range(2):  # the second time, the token is already revoked
        answer = browser.revoke(new)
        assert (answer.status_code, answer.content) == (200, b"")

    assert not browser.can_refresh(new)
    assert not browser.can_refresh(old)  # although the grace period is not over
    # API Gateway reads only the token. So the access token works until it expires.
    assert allowed(stack, tokens["access_token"], counter) == EVERYTHING


def test_only_a_refresh_token_can_be_revoked(browser: Browser, editor: Person) -> None:
    tokens = browser.sign_in(editor)
    answer = browser.revoke(tokens["access_token"])
    assert answer.status_code == 400
    assert answer.json()["error"] == "unsupported_token_type"
    answer = browser.revoke("nonsense")
    assert (answer.status_code, answer.content) == (200, b"")
    assert browser.can_refresh(tokens["refresh_token"])


def test_an_app_cannot_revoke_the_tokens_of_another(
    stack: Stack, browser: Browser, editor: Person
) -> None:
    token = browser.sign_in(editor)["refresh_token"]
    with copied_dashboard_client(stack) as other, Browser(stack, other) as stranger:
        stranger.revoke(token)
        assert not stranger.can_refresh(token)
    assert browser.can_refresh(token)
