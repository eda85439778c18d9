"""Cognito's pre-token-generation trigger: writes the caller's rights into each access token.

If this function raises an exception or does not answer within 5 seconds, Cognito issues no token.
https://docs.aws.amazon.com/cognito/latest/developerguide/user-pool-lambda-pre-token-generation.html
"""

from collections.abc import Iterable
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import clients, clock, grants, init_phase, rights

logger = Logger(service="tally")

_PROGRAM = "TokenGeneration_ClientCredentials"  # the trigger's source for a program's token


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Return the event, with the scopes and claims of the access token as its response.

    A program keeps those of its scopes that its grant has. A person gets the scopes that the grants
    of their groups have.

    Args:
        event: the event of Cognito, version 2 or 3.
        context: the Lambda context. It tells how much time is left.

    Raises:
        MalformedGrantError: if a grant is malformed.
        ThrottledError: if DynamoDB did not answer in time.
        TooManyPrefixesError: if the rights do not fit into a token.
    """
    until = clock.deadline(context, clients.ATTEMPT)
    request, client_id = event["request"], event["callerContext"]["clientId"]
    is_program = event["triggerSource"] == _PROGRAM
    if is_program:
        actor, found = client_id, grants.of_client(client_id, until)
    else:
        actor = request["userAttributes"]["sub"]
        groups = request["groupConfiguration"]["groupsToOverride"] or []
        found = grants.of_groups(groups, until)
    scopes = {scope for grant in found for scope in grant.scopes}
    claims = grants.claims(found, actor)
    event["response"] = {
        "claimsAndScopeOverrideDetails": {
            "accessTokenGeneration": {
                "claimsToAddOrOverride": claims,
                "scopesToAdd": [] if is_program else _named(scopes),
                "scopesToSuppress": _named(set(rights.SCOPES) - scopes),
            }
        }
    }
    logger.info("issued a token to %s", actor, extra={"rights": claims, "client_id": client_id})
    return event


def _named(scopes: Iterable[str]) -> list[str]:
    """Return the full names of scopes, as they are in a token."""
    return [f"counters/{scope}" for scope in sorted(scopes)]


init_phase.end(clients.dynamodb)
