"""Checks that `make deploy` goes to an AWS account, not to a local stack on this machine."""

import os
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

import botocore.exceptions
import botocore.session

from local_settings import CREDENTIALS

AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn")


class NotAnAccountError(Exception):
    """The deployment would not go to an AWS account. The message says what to change."""


def check(environment: Mapping[str, str]) -> None:
    """Check that no setting points `sam deploy` to an endpoint other than AWS.

    Args:
        environment: the environment variables of the deployment.

    Raises:
        NotAnAccountError: a variable or the AWS profile names an endpoint that is not AWS, or the
            credentials are those of the local stack.
    """
    for name, url in sorted(environment.items()):
        if name.startswith("AWS_ENDPOINT_URL") and url and not is_of_aws(url):
            message = f"{name} is {url}, which is not AWS: unset {name}, and deploy again"
            raise NotAnAccountError(message)
    for name, value in CREDENTIALS.items():
        if environment.get(name) == value:
            message = f"{name} is the local stack's {value!r}: unset {name}, and deploy again"
            raise NotAnAccountError(message)
    try:
        session = botocore.session.Session()
        profile = session.get_scoped_config()
        services = session.full_config.get("services", {}).get(profile.get("services"), {})
    except botocore.exceptions.BotoCoreError:
        return  # the profile cannot be read; `sam deploy` will say why
    for settings in (profile, *services.values()):
        configured = settings.get("endpoint_url") if isinstance(settings, dict) else None
        if configured and not is_of_aws(configured):
            message = (
                f"the AWS profile's endpoint_url is {configured}, which is not AWS: remove it, and"
                " deploy again"
            )
            raise NotAnAccountError(message)


def is_of_aws(url: str) -> bool:
    """Return whether an endpoint belongs to AWS. A VPC endpoint belongs to AWS, too."""
    return (urlsplit(url).hostname or "").endswith(AWS_DOMAINS)


if __name__ == "__main__":
    try:
        check(os.environ)
    except NotAnAccountError as error:
        sys.exit(str(error))
