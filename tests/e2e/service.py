"""Calls the deployed service over HTTP, and reads the data that the service has stored."""

import json
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

import boto3
import urllib3
from botocore.config import Config
from tests import conformance

from deployment import Stack
from local_settings import CREDENTIALS, STACK_NAME
from tally_client import Tally

if TYPE_CHECKING:
    from mypy_boto3_cognito_idp import CognitoIdentityProviderClient
    from mypy_boto3_lambda import LambdaClient

REQUEST_SECONDS = 120  # enough for the emulator to start a process for each of many clients
HISTORY_SECONDS = 30
PAGE = 1000  # the most entries on a page of history

_NEXT = re.compile(r'<([^>]*)>; rel="next"')
_NO_PROXY = Config(proxies={})

Value = TypeVar("Value")


def wait_for(
    read: Callable[[], Value],
    condition: Callable[[Value], bool] = bool,
    seconds: float = HISTORY_SECONDS,
) -> Value:
    """Call `read` until its result meets the condition or the time is up. Return the result."""
    deadline = time.monotonic() + seconds
    while True:
        value = read()
        if condition(value) or time.monotonic() > deadline:
            return value
        time.sleep(0.1)


@dataclass(frozen=True)
class Answer:
    """The answer to an HTTP request.

    Attributes:
        body: the parsed JSON, or the text if it is not JSON; None if the body is empty.
    """

    url: str
    status: int
    headers: urllib3.HTTPHeaderDict
    body: Any

    @property
    def next_url(self) -> str | None:
        """The URL of the next page. None on the last page."""
        link = _NEXT.fullmatch(self.headers.get("Link", ""))
        return urljoin(self.url, link[1]) if link else None


def tally_of(stack: Stack, **options: Any) -> Tally:  # noqa: ANN401  the options of Tally
    """Return a client of a stack."""
    return Tally(
        stack.url,
        token_url=stack.token_url,
        client_id=stack.client_id,
        client_secret=stack.client_secret,
        **options,
    )


class Caller:
    """An HTTP client with one connection. It sends a token if it has one. It never retries."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = urllib3.PoolManager(
            num_pools=1, maxsize=1, block=True, timeout=REQUEST_SECONDS, retries=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.clear()

    def request(
        self,
        method: str,
        path: str,
        body: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request, and check the response against the contract.

        Args:
            method: the method.
            path: a full URL, or a path relative to the URL of the API.
            body: the body; None if there is none.
            headers: more headers than the token.
        """
        url = path if path.startswith(self._url) else self._url + path
        response = self._http.request(
            method, url, body=body, headers={**self._headers, **(headers or {})}
        )
        media_type = response.headers.get("Content-Type", "")
        content = conformance.parsed(media_type, response.data.decode())
        # The emulator decodes a path before it looks for the route. API Gateway does not.
        route = unquote(urlsplit(url.removeprefix(self._url)).path)
        conformance.check(method, route, response.status, response.headers, content)
        return Answer(url, response.status, response.headers, content)

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str, **fields: object) -> Answer:
        return self.request("POST", path, json.dumps(fields) if fields else None)

    def put(self, path: str, **fields: object) -> Answer:
        return self.request("PUT", path, json.dumps(fields))

    def pages(self, path: str) -> Iterator[list[Any]]:
        """Yield all pages of a list. The link in each page leads to the next page."""
        url: str | None = path
        while url:
            answer = self.get(url)
            assert answer.status == 200, answer
            yield answer.body
            url = answer.next_url

    def history(
        self, counter: str, entries: int, after: int = 0, seconds: float = HISTORY_SECONDS
    ) -> list[Any]:
        """Wait until the first page after version `after` has `entries` entries. Return the page.

        A change appears in the history a moment after it is applied. If the page does not have all
        entries after some seconds, this method returns the page as it is.
        """

        def page() -> list[Any]:
            answer = self.get(f"{counter}/history?limit={PAGE}&after={after}")
            assert answer.status == 200, answer
            page: list[Any] = answer.body
            return page

        return wait_for(page, lambda page: len(page) >= entries, seconds)

    def whole_history(self, counter: str, seconds: float = HISTORY_SECONDS) -> list[Any]:
        """Wait until the history of a counter is complete, and return it.

        Also check that the history has no gap, and that its amounts add up to the counter's value.
        """
        current = self.get(counter).body
        before = max(0, current["version"] - PAGE)
        self.history(counter, current["version"] - before, before, seconds)
        pages = self.pages(f"{counter}/history?limit={PAGE}")
        entries = [entry for page in pages for entry in page]
        versions = [entry["version"] for entry in entries]
        expected = list(range(1, current["version"] + 1))
        wrong = sorted({*versions} ^ {*expected})
        assert versions == expected, f"missing or too many: {wrong}; entries: {len(versions)}"
        assert entries[0]["previous_value"] == 0
        assert all(entry["previous_value"] + entry["by"] == entry["value"] for entry in entries)
        assert all(one["value"] == other["previous_value"] for one, other in pairwise(entries))
        assert entries[-1]["value"] == current["value"]
        return entries


def run_clients(
    stack: Stack,
    scopes: Collection[str],
    clients: int,
    send: Callable[[Caller, int], list[Answer]],
    warm_up: Callable[[Caller], object] | None = None,
) -> list[Answer]:
    """Call `send` in many clients at the same time. Each client has its own connection and number.

    Before `send`, each client sends other requests, so that each function has a process for each
    client. These requests are `warm_up`, or an increment of the counter `warm-up` if `warm_up` is
    None. If the scopes allow it, each client also sets the counter `warm-up`.
    """
    token = token_for(stack, scopes)
    start = threading.Barrier(clients, timeout=REQUEST_SECONDS)

    def run(number: int) -> list[Answer]:
        with Caller(stack.url, token) as caller:
            if warm_up:
                warm_up(caller)
            elif "counters/increment" in scopes:
                caller.post("/counters/warm-up")
            if "counters/set" in scopes:
                caller.put("/counters/warm-up", value=0)
            start.wait()
            return send(caller, number)

    with ThreadPoolExecutor(clients) as pool:
        return [answer for answers in pool.map(run, range(clients)) for answer in answers]


def token_for(
    stack: Stack,
    scopes: Collection[str],
    client_id: str | None = None,
    client_secret: str | None = None,
) -> str:
    """Return an access token with these scopes. The default app client is the stack's own."""
    basic = f"{client_id or stack.client_id}:{client_secret or stack.client_secret}"
    with urllib3.PoolManager(retries=False) as http:
        response = http.request(
            "POST",
            stack.token_url,
            fields={"grant_type": "client_credentials", "scope": " ".join(scopes)},
            headers=urllib3.make_headers(basic_auth=basic),
            encode_multipart=False,
        )
    assert response.status == 200, response.data
    token: str = response.json()["access_token"]
    return token


def stored_counters(stack: Stack) -> list[Any]:
    """Return every item of CounterTable."""
    return _scan(stack, stack.outputs["CounterTable"])


def stored_items(stack: Stack, table: str) -> list[Any]:
    """Return every item of the table with this logical id."""
    return _scan(stack, stack.outputs[table])


def cognito(stack: Stack) -> "CognitoIdentityProviderClient":
    """Return a client for Cognito in the stack's emulator."""
    found: CognitoIdentityProviderClient = client(stack, "cognito-idp")
    return found


def client(stack: Stack, service: str) -> Any:  # noqa: ANN401  the type depends on the service
    """Return a client for a service in the stack's emulator."""
    return _client(stack.endpoint_url, stack.region, service)


@contextmanager
def extra_variables(stack: Stack, function: str, **extra: str) -> Iterator[None]:
    """Add environment variables to a function, and remove them when the with block ends."""
    lambda_: LambdaClient = client(stack, "lambda")
    name = physical_name(stack, function)
    original = lambda_.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    aliases = lambda_.list_aliases(FunctionName=name)["Aliases"]

    def update(variables: dict[str, str]) -> None:
        lambda_.update_function_configuration(
            FunctionName=name, Environment={"Variables": variables}
        )
        waiter = lambda_.get_waiter("function_updated_v2")
        waiter.wait(FunctionName=name, WaiterConfig={"Delay": 1})

    update({**original, **extra})
    try:
        for alias in aliases:  # the API calls the alias, which has its own version of the variables
            version = lambda_.publish_version(FunctionName=name)["Version"]
            lambda_.update_alias(FunctionName=name, Name=alias["Name"], FunctionVersion=version)
        yield
    finally:
        update(original)
        for alias in aliases:
            version = alias["FunctionVersion"]
            lambda_.update_alias(FunctionName=name, Name=alias["Name"], FunctionVersion=version)


def physical_name(stack: Stack, function: str) -> str:
    """Return the name of the deployed function with this logical id."""
    cloudformation = client(stack, "cloudformation")
    resource = cloudformation.describe_stack_resource(
        StackName=STACK_NAME, LogicalResourceId=function
    )
    name: str = resource["StackResourceDetail"]["PhysicalResourceId"]
    return name


@cache  # making a client takes a fifth of a second
def _client(endpoint_url: str, region: str, service: str) -> Any:  # noqa: ANN401  as `client`
    # The type stubs know the name of each service, but not a name in a variable.
    return _session(region).client(  # type: ignore[call-overload]
        service, endpoint_url=endpoint_url, config=_NO_PROXY
    )


def _session(region: str) -> boto3.Session:
    return boto3.Session(
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name=region,
    )


def _scan(stack: Stack, table: str) -> list[Any]:
    pages = (
        client(stack, "dynamodb")
        .get_paginator("scan")
        .paginate(TableName=table, ConsistentRead=True)
    )
    return sorted((item for page in pages for item in page["Items"]), key=str)
