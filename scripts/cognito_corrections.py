"""Corrects MiniStack: people sign in, stay signed in, and sign out as with Cognito.

The corrections replace private Python functions of MiniStack. See `emulator.py`.
"""

import functools
import json
import math
import secrets
import threading
import time
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus
from http.cookies import SimpleCookie
from typing import Any

from ministack import app
from ministack.core.responses import error_response_json
from ministack.services import cognito
from ministack.services.cloudformation import provisioners

# A response as MiniStack represents it: status, headers, body.
Response = tuple[int, dict[str, str], bytes]

COOKIE = "cognito"  # Cognito's name for the cookie of a sign-in session
SESSION_SECONDS = 3600  # how long a browser stays signed in, as on AWS


class TriggerError(Exception):
    """The trigger for tokens failed, so no token may be issued."""


def use() -> None:
    """Make MiniStack behave as Cognito does."""
    refuse_tokens_without_trigger()
    keep_rotation_settings()
    correct_token_endpoint()
    add_revocation_endpoint()
    keep_browsers_signed_in()
    refuse_sign_up()


def refuse_tokens_without_trigger() -> None:
    """Let MiniStack issue no token if the answer of the trigger is not the trigger's event.

    Without this correction, MiniStack would take an empty answer for "change nothing".
    """
    extract, apply = cognito._extract_trigger_response, cognito._apply_pretoken_trigger

    def extract_or_fail(payload: object) -> dict[str, Any]:
        match payload:
            case {"response": dict()}:
                response: dict[str, Any] = extract(payload)
                return response
        message = "the answer of the trigger has no response"
        raise TriggerError(message)

    def apply_or_fail(*arguments: object, **more: object) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = apply(*arguments, **more)
        except Exception as error:
            raise TriggerError from error
        return claims

    cognito._extract_trigger_response = extract_or_fail
    cognito._apply_pretoken_trigger = apply_or_fail


def keep_rotation_settings() -> None:
    """Keep the setting `RefreshTokenRotation` of an app client. MiniStack drops it."""
    name = "RefreshTokenRotation"
    provisioners._COGNITO_USER_POOL_CLIENT_UPDATABLE[name] = None

    def keeping(change: Callable[[dict[str, Any]], Response]) -> Callable[..., Response]:
        @functools.wraps(change)
        def changed(data: dict[str, Any]) -> Response:
            status, headers, body = change(data)
            if status != HTTPStatus.OK or name not in data:
                return status, headers, body
            client_id = json.loads(body)["UserPoolClient"]["ClientId"]
            cognito._user_pools[data["UserPoolId"]]["_clients"][client_id][name] = data[name]
            described: Response = cognito._describe_user_pool_client(
                {"UserPoolId": data["UserPoolId"], "ClientId": client_id}
            )
            return described

        return changed

    cognito._create_user_pool_client = keeping(cognito._create_user_pool_client)
    cognito._update_user_pool_client = keeping(cognito._update_user_pool_client)


def correct_token_endpoint() -> None:
    """Correct how the token endpoint refreshes tokens, and what it answers if the trigger fails.

    Cognito documents no status for a failed trigger. Only this is certain: there is no token.
    """
    answer = cognito._oauth2_token

    def answer_or_refuse(
        data: object, query: object, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Response:
        form = fields_of(body)
        try:
            if form.get("grant_type") == "refresh_token":
                return refresh(
                    form.get("refresh_token", ""), *cognito._authenticate_client(headers, form)
                )
            response: Response = answer(data, query, body, headers)
        except TriggerError:
            cognito.logger.exception("no token, because the trigger failed")
            return refusal("invalid_request", "PreTokenGeneration failed")
        return response

    cognito._oauth2_token = answer_or_refuse


_refreshing = threading.Lock()


def refresh(token: str, client_id: str, secret: str) -> Response:
    """Answer a request with the grant `refresh_token`.

    Without this correction, MiniStack would do the following:
    - It would pass neither groups nor attributes to the trigger.
    - It would accept expired tokens, and tokens of disabled people.
    - It would issue no new refresh token, even if the app client has `RefreshTokenRotation`.

    Args:
        token: the refresh token.
        client_id: the id of the app client; empty if the request has none.
        secret: the secret of the app client; empty if the request has none.
    """
    claims = cognito._token_claims(token)
    if has_ended(token, claims):
        return refusal("invalid_grant", "Invalid refresh token.")
    status, headers, body = cognito._oauth2_refresh_api_issued_token(token, client_id, secret)
    if status != HTTPStatus.OK:
        return status, headers, body
    pool_id, _pool, client = cognito._find_pool_by_client_id(claims["client_id"])
    tokens = json.loads(body)
    tokens["expires_in"] = cognito._token_validity(pool_id, claims["client_id"], "access")
    rotation = client.get("RefreshTokenRotation") or {}
    if rotation.get("Feature") == "ENABLED":
        # The new token ends when the first one would have ended.
        new = {**claims, "iat": int(time.time()), "jti": secrets.token_hex()}
        tokens["refresh_token"] = cognito._signed_jwt(new, pool_id, "access")
        ends_at = time.time() + int(rotation.get("RetryGracePeriodSeconds", 0))
        with _refreshing:
            cognito._refresh_tokens.setdefault(token, {"pool_id": pool_id}).setdefault(
                "ends_at", ends_at
            )
    return status, headers, json.dumps(tokens).encode()


def has_ended(token: str, claims: dict[str, Any]) -> bool:
    """Return whether a refresh token is expired, replaced or revoked, or its person is disabled."""
    pool = cognito._get_pool_unscoped(claims.get("iss", "").rpartition("/")[2])
    person = cognito._user_from_token(token, pool) or {}
    replaced = cognito._refresh_tokens.get(token) or {}
    return bool(
        claims.get("exp", 0) <= time.time()
        or replaced.get("ends_at", math.inf) <= time.time()
        or claims.get("origin_jti") in cognito._revoked_tokens
        or not person.get("Enabled")
    )


def add_revocation_endpoint() -> None:
    """Add the endpoint `/oauth2/revoke`. MiniStack has only the API operation RevokeToken."""
    handle = app._handle_cognito_body_request

    async def handle_or_revoke(
        method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
    ) -> Response | None:
        if (method, path) == ("POST", "/oauth2/revoke"):
            return revoke(headers, body)
        response: Response | None = await handle(method, path, headers, body, query)
        return response

    app._handle_cognito_body_request = handle_or_revoke


def revoke(headers: dict[str, str], body: bytes) -> Response:
    """Answer a request that revokes a refresh token.

    https://docs.aws.amazon.com/cognito/latest/developerguide/revocation-endpoint.html
    """
    form = fields_of(body)
    client_id, secret = cognito._authenticate_client(headers, form)
    client = cognito._find_pool_by_client_id(client_id)[2]
    if not client or secret != (client.get("ClientSecret") or ""):
        return refusal("invalid_client", "Invalid client.", HTTPStatus.UNAUTHORIZED)
    token = form.get("token")
    if not token or not client["EnableTokenRevocation"]:
        return refusal("invalid_request", "No token, or the client does not revoke tokens.")
    claims = cognito._token_claims(token)
    if claims.get("token_use") in {"access", "id"}:
        return refusal("unsupported_token_type", "Not a refresh token.")
    if claims.get("client_id") == client_id:
        cognito._revoke_token({"Token": token})
    return HTTPStatus.OK, {}, b""


def keep_browsers_signed_in() -> None:
    """Keep a browser signed in with a cookie, until it signs out or an hour has passed.

    Without this correction, MiniStack would ask for a password at every sign-in. So a web page that
    does not sign out properly would be noticed only on AWS.
    """
    login, logout = cognito.handle_login_submit, cognito.handle_logout
    authorize = cognito.handle_oauth2_authorize
    sessions: dict[str, dict[str, Any]] = {}  # by the value of the cookie

    def login_with_cookie(*request: Any) -> Response:  # noqa: ANN401  MiniStack's own
        status, headers, body = login(*request)
        location = urllib.parse.urlsplit(headers.get("Location", ""))
        code = dict(urllib.parse.parse_qsl(location.query)).get("code")
        if code in cognito._authorization_codes:
            cookie, ends_at = secrets.token_urlsafe(), time.time() + SESSION_SECONDS
            sessions[cookie] = {**cognito._authorization_codes[code], "ends_at": ends_at}
            headers["Set-Cookie"] = (
                f"{COOKIE}={cookie}; Path=/; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Lax"
            )
        return status, headers, body

    def authorize_with_cookie(
        method: str, path: str, headers: dict[str, str], query: dict[str, Any]
    ) -> Response:
        page: Response = authorize(method, path, headers, query)
        session = sessions.get(cookie_of(headers), {})
        given = {name: cognito._qp(query, name) for name in query}
        pool_id, pool, _client = cognito._find_pool_by_client_id(given.get("client_id"))
        if (
            page[0] != HTTPStatus.OK
            or session.get("pool_id") != pool_id
            or session["ends_at"] < time.time()
            or not pool["_users"].get(session["username"], {}).get("Enabled")
        ):
            return page
        return redirect_with_code(given, pool_id, session["username"])

    def logout_with_cookie(
        method: str, path: str, headers: dict[str, str], query: dict[str, Any]
    ) -> Response:
        status, more, body = logout(method, path, headers, query)
        if status == HTTPStatus.FOUND:
            sessions.pop(cookie_of(headers), None)
            more["Set-Cookie"] = f"{COOKIE}=; Path=/; Max-Age=0"
        return status, more, body

    cognito.handle_login_submit = login_with_cookie
    cognito.handle_oauth2_authorize = authorize_with_cookie
    cognito.handle_logout = logout_with_cookie


def redirect_with_code(given: dict[str, str], pool_id: str, username: str) -> Response:
    """Return the redirect to a web page, with a code for its tokens.

    Args:
        given: the parameters of the request for the sign-in page.
        pool_id: the user pool.
        username: who is signed in.
    """
    names = ("nonce", "code_challenge", "code_challenge_method", "state")
    redirect: Response = cognito._issue_auth_code_redirect(
        given["client_id"],
        pool_id,
        given["redirect_uri"],
        given.get("scope", ""),
        username,
        *(given.get(name, "") for name in names),
    )
    return redirect


def refuse_sign_up() -> None:
    """Refuse the operation SignUp in a user pool with `AllowAdminCreateUserOnly`."""
    sign_up = cognito._sign_up

    def sign_up_if_allowed(data: dict[str, Any]) -> Response:
        pool = cognito._find_pool_by_client_id(data.get("ClientId"))[1] or {}
        if pool.get("AdminCreateUserConfig", {}).get("AllowAdminCreateUserOnly"):
            message = "SignUp is not permitted for this user pool"
            refused: Response = error_response_json("NotAuthorizedException", message, 400)
            return refused
        response: Response = sign_up(data)
        return response

    cognito._sign_up = sign_up_if_allowed


def fields_of(body: bytes) -> dict[str, str]:
    """Return the fields of a form. If a field is repeated, its last value counts."""
    return dict(urllib.parse.parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


def cookie_of(headers: dict[str, str]) -> str:
    """Return the value of Cognito's cookie; empty if there is none."""
    morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    return morsel.value if morsel else ""


def refusal(error: str, description: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> Response:
    """Return an error of OAuth 2.0."""
    response: Response = cognito._oauth2_error(error, description, status)
    return response
