"""The deployed service as its callers see it, and what it has written."""

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
from urllib.parse import urljoin

import boto3
import urllib3
from botocore.config import Config

from deployment import Stack
from local_settings import CREDENTIALS, STACK_NAME

if TYPE_CHECKING:
    from mypy_boto3_cognito_idp import CognitoIdentityProviderClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_lambda import LambdaClient

REQUEST_SECONDS = 120  # for a burst the emulator has to start a process a client
HISTORY_SECONDS = 30
PAGE = 1000  # the most entries of a history at once

_NEXT = re.compile(r'<([^>]*)>; rel="next"')
_NO_PROXY = Config(proxies={})

Seen = TypeVar("Seen")


def wait_for(
    look: Callable[[], Seen],
    until: Callable[[Seen], bool] = bool,
    seconds: float = HISTORY_SECONDS,
) -> Seen:
    """Look until what is seen is as it should be, or the time is up; return it."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if until(seen) or time.monotonic() > deadline:
            return seen
        time.sleep(0.1)


@dataclass(frozen=True)
class Answer:
    """What came back; `body` is the parsed JSON."""

    url: str
    status: int
    headers: urllib3.HTTPHeaderDict
    body: Any

    @property
    def next_url(self) -> str | None:
        """Where the next page is, if there is one."""
        link = _NEXT.fullmatch(self.headers.get("Link", ""))
        return urljoin(self.url, link[1]) if link else None


class Caller:
    """One caller: one kept connection, one token (or none). No request is ever sent twice."""

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
        """Send `body` as it is; `path` goes behind the API's address, or is an address itself."""
        url = path if path.startswith(self._url) else self._url + path
        response = self._http.request(
            method, url, body=body, headers={**self._headers, **(headers or {})}
        )
        content = json.loads(response.data) if response.data else None
        return Answer(url, response.status, response.headers, content)

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str, **fields: object) -> Answer:
        return self.request("POST", path, json.dumps(fields) if fields else None)

    def put(self, path: str, **fields: object) -> Answer:
        return self.request("PUT", path, json.dumps(fields))

    def pages(self, path: str) -> Iterator[list[Any]]:
        """Follow the links from the first page to the last."""
        url: str | None = path
        while url:
            answer = self.get(url)
            assert answer.status == 200, answer
            yield answer.body
            url = answer.next_url

    def history(self, counter: str, entries: int, after: int = 0) -> list[Any]:
        """Return the first page behind version `after` once it has that many entries.

        The history follows the counter. If it does not in time, the page is what there is.
        """

        def page() -> list[Any]:
            answer = self.get(f"{counter}/history?limit={PAGE}&after={after}")
            assert answer.status == 200, answer
            page: list[Any] = answer.body
            return page

        return wait_for(page, lambda page: len(page) >= entries)

    def whole_history(self, counter: str) -> list[Any]:
        """Return all of the history, once it is there: it must add up, and to the counter."""
        standing = self.get(counter).body
        before = max(0, standing["version"] - PAGE)
        self.history(counter, entries=standing["version"] - before, after=before)
        pages = self.pages(f"{counter}/history?limit={PAGE}")
        entries = [entry for page in pages for entry in page]
        assert [entry["version"] for entry in entries] == list(range(1, standing["version"] + 1))
        assert entries[0]["previous_value"] == 0
        assert all(entry["previous_value"] + entry["by"] == entry["value"] for entry in entries)
        assert all(one["value"] == other["previous_value"] for one, other in pairwise(entries))
        assert entries[-1]["value"] == standing["value"]
        return entries


def at_once(
    stack: Stack,
    scopes: Collection[str],
    clients: int,
    send: Callable[[Caller, int], list[Answer]],
    warm_up: Callable[[Caller], object] | None = None,
) -> list[Answer]:
    """Let so many clients send, each with a connection and a number of its own, all at once.

    Before that each warms up, usually by a change of another counter: the processes that it takes
    are there then, and the clients do not come one after the other as these start.
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
    """Get an access token with these scopes for an app client, the stack's if none is given."""
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


def counters(stack: Stack) -> list[Any]:
    """Return every counter as it is stored."""
    return _scan(stack, stack.outputs["CounterTable"])


def written(stack: Stack) -> dict[str, list[Any]]:
    """Return every counter and, once it is complete, every entry of the history."""
    deadline = time.monotonic() + HISTORY_SECONDS
    while True:
        standing = counters(stack)
        history = _scan(stack, stack.outputs["HistoryTable"])
        if len(history) == sum(int(counter["version"]["N"]) for counter in standing):
            return {"counters": standing, "history": history}
        assert time.monotonic() < deadline, "the history is not complete"
        time.sleep(0.1)


def cognito(stack: Stack) -> "CognitoIdentityProviderClient":
    """Return a client for the user pools of the stack's emulator."""
    return _session(stack.region).client(
        "cognito-idp", endpoint_url=stack.endpoint_url, config=_NO_PROXY
    )


def client(stack: Stack, service: str) -> Any:  # noqa: ANN401  which one, the caller knows
    """Return a client for a service of the stack's emulator."""
    # The stubs know the services' names one by one.
    return _session(stack.region).client(  # type: ignore[call-overload]
        service, endpoint_url=stack.endpoint_url, config=_NO_PROXY
    )


@contextmanager
def variables(stack: Stack, function: str, **more: str) -> Iterator[None]:
    """Give a function more environment variables, and take them away again."""
    lambda_: LambdaClient = client(stack, "lambda")
    name = name_of(stack, function)
    given = lambda_.get_function_configuration(FunctionName=name)["Environment"]["Variables"]

    def give(variables: dict[str, str]) -> None:
        lambda_.update_function_configuration(
            FunctionName=name, Environment={"Variables": variables}
        )
        waiter = lambda_.get_waiter("function_updated_v2")
        waiter.wait(FunctionName=name, WaiterConfig={"Delay": 1})

    give({**given, **more})
    try:
        yield
    finally:
        give(given)


def name_of(stack: Stack, function: str) -> str:
    cloudformation = client(stack, "cloudformation")
    resource = cloudformation.describe_stack_resource(
        StackName=STACK_NAME, LogicalResourceId=function
    )
    name: str = resource["StackResourceDetail"]["PhysicalResourceId"]
    return name


@cache
def _dynamodb(endpoint_url: str, region: str) -> "DynamoDBClient":
    return _session(region).client("dynamodb", endpoint_url=endpoint_url, config=_NO_PROXY)


def _session(region: str) -> boto3.Session:
    return boto3.Session(
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name=region,
    )


def _scan(stack: Stack, table: str) -> list[Any]:
    client = _dynamodb(stack.endpoint_url, stack.region)
    pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return sorted((item for page in pages for item in page["Items"]), key=str)
