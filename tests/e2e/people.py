"""People who sign in on Cognito's sign-in page, and the browsers that they use."""

import base64
import json
import secrets
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Self

import httpx2
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from tests.e2e.service import REQUEST_SECONDS, Caller, cognito

from deployment import Stack

_COPIED = (  # the settings of DashboardClient that a copy has, too
    "AccessTokenValidity",
    "AllowedOAuthFlows",
    "AllowedOAuthFlowsUserPoolClient",
    "AllowedOAuthScopes",
    "CallbackURLs",
    "EnableTokenRevocation",
    "ExplicitAuthFlows",
    "IdTokenValidity",
    "LogoutURLs",
    "PreventUserExistenceErrors",
    "RefreshTokenRotation",
    "RefreshTokenValidity",
    "SupportedIdentityProviders",
    "TokenValidityUnits",
)


@dataclass(frozen=True)
class Person:
    """A person with an account in the stack's user pool."""

    username: str
    password: str


@contextmanager
def created_person(stack: Stack, *groups: str, username: str | None = None) -> Iterator[Person]:
    """Create a person who is in these groups. Delete the person when the with block ends."""
    username = username or f"{uuid.uuid4()}@example.com"
    person = Person(username, f"Aa1-{secrets.token_hex()}")
    pool = cognito(stack)
    who: Any = {"UserPoolId": stack.outputs["UserPoolId"], "Username": person.username}
    pool.admin_create_user(**who, MessageAction="SUPPRESS")
    try:
        pool.admin_set_user_password(**who, Password=person.password, Permanent=True)
        for group in groups:
            pool.admin_add_user_to_group(**who, GroupName=group)
        yield person
    finally:
        pool.admin_delete_user(**who)


def first_person(stack: Stack) -> Person:
    """Return the person whom the local stack creates. This person is an editor."""
    return Person(stack.dashboard["username"], stack.dashboard["password"])


@contextmanager
def copied_dashboard_client(stack: Stack, **settings: Any) -> Iterator[str]:  # noqa: ANN401
    """Create a copy of DashboardClient with some other settings, and yield the id of the copy.

    Delete the copy when the with block ends.
    """
    pool = cognito(stack)
    pool_id = stack.outputs["UserPoolId"]
    original: Mapping[str, Any] = pool.describe_user_pool_client(
        UserPoolId=pool_id, ClientId=stack.outputs["DashboardClientId"]
    )["UserPoolClient"]
    copied = {name: original[name] for name in _COPIED}
    # Numbers that come from CloudFormation parameters are strings in the emulator.
    copied |= {name: int(copied[name]) for name in _COPIED if name.endswith("Validity")}
    client_id = pool.create_user_pool_client(
        UserPoolId=pool_id, ClientName="made-by-a-test", **{**copied, **settings}
    )["UserPoolClient"]["ClientId"]
    try:
        yield client_id
    finally:
        pool.delete_user_pool_client(UserPoolId=pool_id, ClientId=client_id)


class Browser:
    """A browser with the dashboard: it follows no redirects by itself, and keeps cookies."""

    def __init__(self, stack: Stack, client_id: str | None = None) -> None:
        self.verifier = secrets.token_urlsafe(48)
        self._state: str | None = None
        self._http = httpx2.Client(
            base_url=stack.endpoint_url, trust_env=False, timeout=REQUEST_SECONDS
        )
        self._app = OAuth2Client(
            client_id or stack.outputs["DashboardClientId"],
            token_endpoint=stack.token_url,
            token_endpoint_auth_method="none",  # noqa: S106  not a password
            revocation_endpoint_auth_method="none",
            redirect_uri=stack.dashboard["url"],
            scope="openid",
            code_challenge_method="S256",
            trust_env=False,
            timeout=REQUEST_SECONDS,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._app.close()

    def authorize(self, **parameters: str) -> httpx2.Response:
        """Open Cognito's sign-in page. `parameters` replace those of the dashboard."""
        url, self._state = self._app.create_authorization_url(
            "/oauth2/authorize", code_verifier=self.verifier, **parameters
        )
        for name, value in parameters.items():
            url = str(httpx2.URL(url).copy_set_param(name, value))
        return self._http.get(url)

    def enter(self, page: httpx2.Response, person: Person) -> httpx2.Response:
        """Fill in the form on the sign-in page, and submit it."""
        form = _Form(page.text)
        assert {"username", "password"} <= form.fields.keys(), page.text
        entered = {"username": person.username, "password": person.password}
        return self._http.post(form.action, data={**form.fields, **entered})

    def redeem(self, redirect: httpx2.Response, **parameters: str) -> dict[str, Any]:
        """Exchange the code in a redirect for tokens. `parameters` replace the dashboard's.

        Raises:
            OAuthError: Cognito refuses.
        """
        given = {"code_verifier": self.verifier, **parameters}
        tokens: dict[str, Any] = self._app.fetch_token(
            authorization_response=redirect.headers["location"],
            state=self._state,
            **{"redirect_uri": str(self._app.redirect_uri), **given},
        )
        return tokens

    def code(self, person: Person) -> httpx2.Response:
        """Sign in. Return the redirect to the dashboard, which has a code."""
        redirect = self.enter(self.authorize(), person)
        assert redirect.status_code == 302, redirect.text
        return redirect

    def sign_in(self, person: Person) -> dict[str, Any]:
        """Sign in. Return the tokens."""
        return self.redeem(self.code(person))

    def refresh(self, refresh_token: str) -> dict[str, Any]:
        """Exchange a refresh token for new tokens.

        Raises:
            OAuthError: Cognito refuses.
        """
        tokens: dict[str, Any] = self._app.refresh_token(refresh_token=refresh_token)
        return tokens

    def can_refresh(self, refresh_token: str) -> bool:
        """Return whether Cognito issues tokens for a refresh token."""
        try:
            self.refresh(refresh_token)
        except OAuthError as error:
            if error.error != "invalid_grant":
                raise
            return False
        return True

    def has_renewed(self, refresh_token: str) -> bool:
        """Return whether a refresh gives an access token. False if the trigger fails."""
        try:
            return "access_token" in self.refresh(refresh_token)
        except OAuthError as error:
            if error.error != "invalid_request":
                raise
            return False

    def revoke(self, token: str) -> httpx2.Response:
        """Revoke a refresh token."""
        response: httpx2.Response = self._app.revoke_token(
            str(self._http.base_url.join("/oauth2/revoke")), token=token
        )
        return response

    def sign_out(self, **parameters: str) -> httpx2.Response:
        """End Cognito's session. `parameters` replace those of the dashboard."""
        given = {"client_id": self._app.client_id, "logout_uri": str(self._app.redirect_uri)}
        return self._http.get("/logout", params={**given, **parameters})


def allowed(stack: Stack, token: str, counter: str) -> set[str]:
    """Return which scopes an access token has for a counter, by trying them."""
    tries: dict[str, tuple[str, str | None]] = {
        "read": ("GET", None),
        "increment": ("POST", None),
        "set": ("PUT", '{"value": 1}'),
    }
    found = set()
    with Caller(stack.url, token) as caller:
        for scope, (method, body) in tries.items():
            answer = caller.request(method, counter, body)
            assert answer.status in {200, 401, 403}, answer
            if answer.status == 200:
                found.add(scope)
    return found


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token."""
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return claims


class _Form(HTMLParser):
    """The form on a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.action = given["action"] or ""
        if tag == "input":
            self.fields[given["name"] or ""] = given.get("value") or ""
