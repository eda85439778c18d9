"""The kinds of callers that the access matrix tests, and a token for each kind."""

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from tests.e2e.service import Caller, client, cognito, token_for

from deployment import Stack

if TYPE_CHECKING:
    from mypy_boto3_cognito_idp import CognitoIdentityProviderClient

SCOPES = ("read", "increment", "set")
PREFIX = "orders:"  # of the grants
# In seconds. AWS requires at least 5 minutes, but the emulator does not. The tests of the other
# kinds take about as long.
SHORT_VALIDITY = 8

EVERYTHING = dict.fromkeys(SCOPES, "")
LIMITED = dict.fromkeys(SCOPES, PREFIX)

# The headings of the table's columns. A caller with a grant has two columns, one for the counters
# inside its prefix and one for all other counters.
INVALID = "no valid token"
NO_GROUP = "in no group"
READ = "`readers`, or only `read`"
INCREMENT = "only `increment`"
SET = "only `set`"
WRITE = "`writers`"
ALL = "`editors`, or all scopes"
INSIDE = f"grant for `{PREFIX}`, counter inside"
OUTSIDE = f"grant for `{PREFIX}`, counter outside"


@dataclass(frozen=True)
class Kind:
    """A kind of caller.

    Attributes:
        name: the name of this kind.
        column: the heading of the table's column for this kind; empty if the table has none.
        rights: for each scope that the caller has, the prefix of the counters for which they have
            it. The empty prefix stands for all counters.
    """

    name: str
    column: str
    rights: Mapping[str, str]

    @property
    def limited(self) -> bool:
        """Whether the caller has a scope for some counters only."""
        return any(self.rights.values())


KINDS = (
    Kind("no token", INVALID, {}),
    Kind("garbage", INVALID, {}),
    Kind("three empty parts", INVALID, {}),
    Kind("three parts of garbage", INVALID, {}),
    Kind("edited payload", INVALID, {}),
    Kind("edited signature", INVALID, {}),
    Kind("no signature", INVALID, {}),
    Kind("another user pool", INVALID, {}),
    Kind("ID token", INVALID, {}),
    Kind("without the trigger", INVALID, {}),
    Kind("person in no group", NO_GROUP, {}),
    Kind("person in readers", READ, {"read": ""}),
    Kind("machine with read", READ, {"read": ""}),
    Kind("machine with increment", INCREMENT, {"increment": ""}),
    Kind("machine with set", SET, {"set": ""}),
    Kind("person in writers", WRITE, {"read": "", "increment": ""}),
    Kind("person in editors", ALL, EVERYTHING),
    Kind("machine with all scopes", ALL, EVERYTHING),
    Kind("machine with a grant", INSIDE, LIMITED),
    Kind("person in a group with a grant", INSIDE, LIMITED),
    # The scopes of one grant do not extend to the prefixes of another.
    Kind("person in readers and another group", "", {"read": "", "set": PREFIX}),
    Kind("machine with a grant to read", "", {"read": PREFIX}),
    Kind("expired token", INVALID, {}),  # the last one, so that the test waits less
)


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token, without checking them."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return claims


class Tokens:
    """Gets tokens for all kinds of callers. `close` undoes all that this changes in the stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._pools: CognitoIdentityProviderClient = cognito(stack)
        self._pool = stack.outputs["UserPoolId"]
        self._undo = ExitStack()
        self._names = (f"access-matrix-{number}" for number in count())

    def close(self) -> None:
        self._undo.close()

    def all(self) -> dict[str, str | None]:
        """Return a token for each kind of caller, by the name of the kind."""
        malformed = self._malformed()  # first, because the first token takes longest
        expired = self._expiring()
        return {
            **malformed,
            **self._people(),
            **self._machines(),
            "another user pool": self._of_another_pool(),
            "without the trigger": self._without_trigger(),
            "expired token": expired,
        }

    def _malformed(self) -> dict[str, str | None]:
        header, payload, signature = token_for(self._stack, self._stack.scopes).split(".")
        claims = claims_of(f".{payload}.")
        reader = token_for(self._stack, ["counters/read"])
        header_of_reader, _, signature_of_reader = reader.split(".")
        rights = {name: claims[name] for name in ("scope", "tally:increment", "tally:set")}
        edited = _encode(claims_of(reader) | rights)
        unsigned = _encode({"alg": "none", "typ": "JWT"})
        changed = ("B" if signature.startswith("A") else "A") + signature[1:]
        return {
            "no token": None,
            "garbage": "garbage",
            "three empty parts": "..",
            "three parts of garbage": "a.b.c",
            "edited payload": f"{header_of_reader}.{edited}.{signature_of_reader}",
            "edited signature": f"{header}.{payload}.{changed}",
            "no signature": f"{unsigned}.{payload}.",
        }

    def _people(self) -> dict[str, str | None]:
        team, setters = self._group(SCOPES), self._group(["set"])
        people = self._app_client(ExplicitAuthFlows=["ALLOW_ADMIN_USER_PASSWORD_AUTH"])["ClientId"]
        editor = self._person(people, ["editors"])
        return {
            "ID token": editor["IdToken"],
            "person in editors": editor["AccessToken"],
            "person in no group": self._person(people, [])["AccessToken"],
            "person in readers": self._person(people, ["readers"])["AccessToken"],
            "person in writers": self._person(people, ["writers"])["AccessToken"],
            "person in a group with a grant": self._person(people, [team])["AccessToken"],
            "person in readers and another group": self._person(people, ["readers", setters])[
                "AccessToken"
            ],
        }

    def _machines(self) -> dict[str, str | None]:
        machines: dict[str, str | None] = {
            f"machine with {scope}": token_for(self._stack, [f"counters/{scope}"])
            for scope in SCOPES
        }
        machines["machine with all scopes"] = token_for(self._stack, self._stack.scopes)
        for name, scopes in (
            ("machine with a grant", SCOPES),
            ("machine with a grant to read", ("read",)),
        ):
            machine = self._machine()
            self._grant(f"client:{machine['ClientId']}", scopes)
            machines[name] = self._token(machine)
        return machines

    def _expiring(self) -> str:
        """Return a token that was valid when it was new, and that expires soon."""
        token = self._token(
            self._machine(
                AccessTokenValidity=SHORT_VALIDITY, TokenValidityUnits={"AccessToken": "seconds"}
            )
        )
        with Caller(self._stack.url, token) as caller:
            answer = caller.get("/counter")
            assert answer.status == 200, answer
        return token

    def _of_another_pool(self) -> str:
        pool = self._pools.create_user_pool(PoolName=next(self._names))["UserPool"]["Id"]
        self._undo.callback(self._pools.delete_user_pool, UserPoolId=pool)
        self._pools.create_resource_server(
            UserPoolId=pool,
            Identifier="counters",
            Name="counters",
            Scopes=[{"ScopeName": scope, "ScopeDescription": scope} for scope in SCOPES],
        )
        return self._token(self._machine(pool))

    def _without_trigger(self) -> str:
        """Return a token with all scopes, issued while the user pool has no trigger."""
        pool = self._pools.describe_user_pool(UserPoolId=self._pool)["UserPool"]
        assert pool["LambdaConfig"], "the user pool has no trigger"
        # On AWS, this request would reset the pool's other settings. The emulator keeps them.
        update = partial(self._pools.update_user_pool, UserPoolId=self._pool)
        update(LambdaConfig={})
        try:
            token = token_for(self._stack, self._stack.scopes)
        finally:
            update(LambdaConfig=pool["LambdaConfig"])
        claims = claims_of(token)
        assert set(claims["scope"].split()) == set(self._stack.scopes), claims
        assert not any(claim.startswith("tally:") for claim in claims), claims
        return token

    def _machine(self, pool: str = "", **settings: Any) -> dict[str, Any]:  # noqa: ANN401  of AWS
        """Create an app client that may ask for all scopes."""
        return self._app_client(
            pool,
            GenerateSecret=True,
            AllowedOAuthFlowsUserPoolClient=True,
            AllowedOAuthFlows=["client_credentials"],
            AllowedOAuthScopes=[f"counters/{scope}" for scope in SCOPES],
            **settings,
        )

    def _app_client(self, pool: str = "", **settings: Any) -> dict[str, Any]:  # noqa: ANN401  of AWS
        name = next(self._names)
        answer: Any = self._pools.create_user_pool_client(
            UserPoolId=pool or self._pool, ClientName=name, **settings
        )["UserPoolClient"]
        key = {"UserPoolId": pool or self._pool, "ClientId": answer["ClientId"]}
        self._undo.callback(self._pools.delete_user_pool_client, **key)
        created: dict[str, Any] = answer
        return created

    def _token(self, machine: Mapping[str, Any]) -> str:
        return token_for(
            self._stack, self._stack.scopes, machine["ClientId"], machine["ClientSecret"]
        )

    def _person(self, app_client: str, groups: Iterable[str]) -> Mapping[str, Any]:
        """Create a person in these groups, and return their tokens."""
        person: Any = {"UserPoolId": self._pool, "Username": next(self._names)}
        password = f"Aa1-{uuid.uuid4()}"
        self._pools.admin_create_user(**person, MessageAction="SUPPRESS")
        self._undo.callback(self._pools.admin_delete_user, **person)
        self._pools.admin_set_user_password(**person, Password=password, Permanent=True)
        for group in groups:
            self._pools.admin_add_user_to_group(**person, GroupName=group)
        return self._pools.admin_initiate_auth(
            UserPoolId=self._pool,
            ClientId=app_client,
            AuthFlow="ADMIN_USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": person["Username"], "PASSWORD": password},
        )["AuthenticationResult"]

    def _group(self, scopes: Iterable[str]) -> str:
        """Create a group with a grant, and return its name."""
        name = next(self._names)
        self._pools.create_group(UserPoolId=self._pool, GroupName=name)
        self._undo.callback(self._pools.delete_group, UserPoolId=self._pool, GroupName=name)
        self._grant(f"group:{name}", scopes)
        return name

    def _grant(self, principal: str, scopes: Iterable[str]) -> None:
        """Grant a principal these scopes for the counters that begin with PREFIX."""
        dynamodb, table = client(self._stack, "dynamodb"), self._stack.outputs["GrantTable"]
        key = {"principal": {"S": principal}}
        grant = {"scopes": {"SS": list(scopes)}, "prefixes": {"SS": [PREFIX]}}
        dynamodb.put_item(TableName=table, Item=key | grant)
        self._undo.callback(dynamodb.delete_item, TableName=table, Key=key)


@contextmanager
def tokens(stack: Stack) -> Iterator[Callable[[Kind], str | None]]:
    """Yield a function that returns the token of a kind of caller.

    The function waits until the token that must be expired has expired.
    """
    source = Tokens(stack)
    try:
        found = source.all()

        def token_of(kind: Kind) -> str | None:
            token = found[kind.name]
            if token and kind.name == "expired token":
                time.sleep(max(0, claims_of(token)["exp"] - time.time()))
            return token

        yield token_of
    finally:
        source.close()


def _encode(claims: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
