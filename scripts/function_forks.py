"""Loads the packages of Lambda functions, and forks for each process of a function.

`function_forks.py CODE_DIRECTORY` loads the packages from this directory. Its standard input is a
socket. For each process, a message on the socket has a script, its directory and its environment,
and four pipes: standard input, output and error, and a pipe that ends when the fork ends. When the
other end of the socket is closed, the program ends, and Linux kills the forks. Otherwise, after a
kill of the local stack, a function that is still busy could change a counter of the next run.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import NoReturn

# None of these packages reads the environment when it is loaded. If one sets a variable, the forks
# have this variable, too.
PACKAGES = (
    "aws_lambda_powertools",
    "aws_lambda_powertools.utilities.typing",
    "botocore.args",
    "botocore.client",
    "botocore.endpoint",
    "botocore.httpsession",
    "botocore.parsers",
    "botocore.retries.standard",
    "botocore.session",
)
_LARGEST_MESSAGE = 1 << 17  # in bytes
_PR_SET_PDEATHSIG = 1  # see prctl(2)


def main(code: str) -> None:
    """Load the packages, and fork for each message, until standard input ends."""
    library = str(Path(os.__file__).parent)
    python = [each for each in sys.path if each.startswith(library) and "-packages" not in each]
    sys.path = [code, *python]
    before = set(os.environ)
    for name in PACKAGES:
        # A fork that needs a package that is missing reports it.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.path = python
    added = {name: value for name, value in os.environ.items() if name not in before}
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that nothing has to wait for the forks
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()
    with socket.socket(fileno=os.dup(0)) as requests:
        while True:
            message, descriptors, _, _ = socket.recv_fds(requests, _LARGEST_MESSAGE, 4)
            if not message:
                return
            if not os.fork():
                prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:  # it ended before the call of prctl
                    os._exit(1)
                requests.close()
                script, directory, environment = json.loads(message)
                _run(script, directory, {**added, **environment}, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


def _run(
    script: str, directory: str, environment: dict[str, str], descriptors: list[int]
) -> NoReturn:
    """Run a program in this fork."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.write(descriptors[3], str(os.getpid()).encode())
        for number, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [script]
        # The program stays open, so that /proc shows which function this process belongs to.
        file = open(script, encoding="utf-8")  # noqa: PTH123, SIM115
        exec(compile(file.read(), script, "exec"), {"__name__": "__main__"})  # noqa: S102
    except BaseException:  # noqa: BLE001  as Python reports an exception that nothing catches
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
