"""Runs a built function in a process, as Lambda does it.

The process has AWS's runtime client, which gets events and calls the handler, and the environment
variables that Lambda sets.
"""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests import aws_template
from tests.runtime_api import RuntimeApi
from tests.stack import REGION

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
STOP_SECONDS = 10
NEEDS = "awslambdaric, Lambda's runtime client, which is built for Linux only"


def is_available() -> bool:
    """Return whether AWS's runtime client is installed.

    If the client is not installed, `NEEDS` tells the user what is missing.
    """
    return importlib.util.find_spec("awslambdaric") is not None


def link_runtime_client(directory: Path) -> None:
    """Create links to the packages of the runtime client in a directory.

    Besides the packages in its artifact, a function can import only these packages.
    """
    for name in ("awslambdaric", "simplejson", "snapshot-restore-py"):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []}:
            if top != ".." and not top.endswith((".dist-info", ".libs")):
                (directory / top).symlink_to(Path(str(distribution.locate_file(top))))


def environment(
    name: str, handler: str, artifact: Path, runtime: Path, endpoint_url: str
) -> dict[str, str]:
    """Return the environment variables that Lambda itself sets for a function.

    The variables that the template sets are not included.


    Args:
        name: the name of the function.
        handler: the handler of the function.
        artifact: the directory of the built function.
        runtime: the directory that has the runtime client.
        endpoint_url: the endpoint that the function uses for every AWS service.
    """
    return {
        "PATH": os.defpath,
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PYTHONPATH": str(runtime),
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "ASIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AWS_SESSION_TOKEN": "token" * 100,  # about as long as a real token
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{PYTHON}",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": aws_template.parameter("MemorySize"),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_FORMAT": aws_template.GLOBALS["LoggingConfig"]["LogFormat"],
        "AWS_LAMBDA_LOG_LEVEL": aws_template.GLOBALS["LoggingConfig"]["ApplicationLogLevel"],
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/22/[$LATEST]0123456789abcdef",
        "LAMBDA_TASK_ROOT": str(artifact),
        "LAMBDA_RUNTIME_DIR": str(runtime),
        "_HANDLER": handler,
    }


@contextmanager
def process(
    api: RuntimeApi, variables: Mapping[str, str], output: IO[str] | int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a function in its own process, and yield the process.

    The process is killed when the with block ends.


    Args:
        api: sends events to the function.
        variables: the environment variables of the function.
        output: where the function's output goes.
    """
    with subprocess.Popen(
        # -S hides the packages that are installed for development from the function.
        [sys.executable, "-S", "-m", "awslambdaric", variables["_HANDLER"]],
        cwd=variables["LAMBDA_TASK_ROOT"],
        env={**variables, "AWS_LAMBDA_RUNTIME_API": api.address},
        stdout=output,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait(STOP_SECONDS)
