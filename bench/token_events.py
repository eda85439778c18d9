"""The events with which Cognito runs `issue_token`: for a program, and for a person."""

from typing import Any

from tests.component.samples import load

# A grant is for a principal. The person of `person()` is in one group.
GROUP = "writers"


def program() -> dict[str, Any]:
    """Return the event for a program that gets a token with the secret of its app client."""
    return load("issue_token")


def person() -> dict[str, Any]:
    """Return the event for a person who signs in on the sign-in page of Cognito."""
    event = program()
    event["triggerSource"] = "TokenGeneration_HostedAuth"
    event["userName"] = "alice@example.com"
    event["request"] = {
        "userAttributes": {
            "sub": "7f0b8d2c-4c55-4d1f-9a3e-0c1b2a3d4e5f",
            "cognito:user_status": "CONFIRMED",
            "email": "alice@example.com",
            "email_verified": "true",
        },
        "groupConfiguration": {
            "groupsToOverride": [GROUP],
            "iamRolesToOverride": [],
            "preferredRole": None,
        },
        "scopes": ["openid"],
    }
    return event
