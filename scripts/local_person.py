"""Lets a first person sign in to the local stack."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_cognito_idp import CognitoIdentityProviderClient

USERNAME = "editor@example.com"
# Everybody who can reach the local stack can change it without a password. So this is no secret.
PASSWORD = "Local-stack-1"  # noqa: S105
GROUP = "editors"


def admit(
    cognito: "CognitoIdentityProviderClient", outputs: "Mapping[str, str]", dashboard_url: str
) -> None:
    """Create the first person if needed, and let people return to the dashboard after they sign in.

    The template lets people return to the API's address on AWS. The emulator's address differs, and
    contains an id that is not known before the deployment.

    Args:
        cognito: a client for the emulator.
        outputs: the outputs of the stack.
        dashboard_url: the address of the dashboard on the emulator.
    """
    pool = outputs["UserPoolId"]
    urls = [outputs["ApiUrl"] + "/", dashboard_url]
    # On AWS, this request would reset the app client's other settings. The emulator keeps them.
    cognito.update_user_pool_client(
        UserPoolId=pool,
        ClientId=outputs["DashboardClientId"],
        CallbackURLs=urls,
        LogoutURLs=urls,
    )
    person: Any = {"UserPoolId": pool, "Username": USERNAME}
    try:
        cognito.admin_create_user(
            **person,
            MessageAction="SUPPRESS",
            UserAttributes=[
                {"Name": "email", "Value": USERNAME},
                {"Name": "email_verified", "Value": "true"},
            ],
        )
    except cognito.exceptions.UsernameExistsException:
        if cognito.admin_get_user(**person)["UserStatus"] == "CONFIRMED":
            return
        # An earlier start was killed after it created the person.
    cognito.admin_add_user_to_group(**person, GroupName=GROUP)
    cognito.admin_set_user_password(**person, Password=PASSWORD, Permanent=True)
