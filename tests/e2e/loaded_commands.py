"""The commands `aws` and `tally`, loaded once for all tests.

Loading the AWS command line takes a second of CPU time. So one process loads the commands, and
forks for each run of a command. A run has its own process, with the arguments, environment,
directory, input and output that it would have otherwise.

`python -m tests.e2e.loaded_commands SOCKET COMMAND…` is the process. It ends when its standard
input ends.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NoReturn

import botocore.loaders
import botocore.session
from tests.aws_template import ROOT

from tally_client import command as tally_command

READY = "ready\n"
# awscli adds its directory to this variable when it is imported.
DATA_PATH = "AWS_DATA_PATH"
# What stands for a command. The path of the interpreter may contain spaces.
_SCRIPT = """#!/bin/sh
exec {python} -IS {program} {socket} {name} "$@"
"""
# Lets the process run the command, and exits as the command does. It imports little, so that it
# starts fast.
_PROGRAM = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    run = [*sys.argv[2:3], sys.argv[3:], os.getcwd(), dict(os.environ)]
    socket.send_fds(connection, [b"."], [0, 1, 2])
    connection.sendall(json.dumps(run).encode())
    connection.shutdown(socket.SHUT_WR)
    code = connection.recv(16)
sys.exit(int(code) if code else "the process that runs the commands has failed")
"""

Command = Callable[[], int]


@contextmanager
def installed(directory: Path, *names: str) -> Iterator[None]:
    """Put programs for commands into a directory. They work in the with block.

    Args:
        directory: the directory.
        names: the names of the commands, keys of COMMANDS.
    """
    with tempfile.TemporaryDirectory() as temporary:  # the path of a socket must be short
        path, program = Path(temporary) / "socket", Path(temporary) / "program.py"
        program.write_text(_PROGRAM)
        with subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.loaded_commands", str(path), *names],
            cwd=ROOT,
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            assert process.stdout.readline() == READY
            for name in names:
                texts = {"python": sys.executable, "program": program, "socket": path, "name": name}
                quoted = {key: shlex.quote(str(text)) for key, text in texts.items()}
                script = directory / name
                script.write_text(_SCRIPT.format(**quoted))
                script.chmod(0o755)
            yield
            process.stdin.close()


def _load_aws() -> Command:
    # Only tests of commands of AWS need it, and loading it takes a second.
    import awscli.clidriver  # noqa: PLC0415

    # A session loads AWS's API models, which is slow. With one loader, only the first session does.
    botocore.session.create_loader = cache(botocore.loaders.create_loader)
    driver = awscli.clidriver.create_clidriver()
    for service in ("cognito-idp", "dynamodb", "sqs"):
        driver.session.create_client(service, region_name="eu-west-1")

    def aws() -> int:
        # For SQS, the AWS command line ignores the variable.
        sys.argv[1:1] = ["--endpoint-url", os.environ["AWS_ENDPOINT_URL"]]
        code: int = awscli.clidriver.main()
        return code

    return aws


def _load_tally() -> Command:
    def tally() -> int:
        tally_command.main()
        return 0

    return tally


# For each command, a function that loads it.
COMMANDS: dict[str, Callable[[], Command]] = {"aws": _load_aws, "tally": _load_tally}


def main(path: str, *names: str) -> None:
    commands = {name: COMMANDS[name]() for name in names}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that nothing has to wait for the forks
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print(READY, end="", flush=True)
        threading.Thread(target=_exit_at_the_end_of_the_input, daemon=True).start()
        while True:
            connection, _ = listener.accept()
            with connection:
                if not os.fork():
                    _run(connection, commands)


def _exit_at_the_end_of_the_input() -> NoReturn:
    sys.stdin.read()
    os._exit(0)


def _run(connection: socket.socket, commands: Mapping[str, Command]) -> NoReturn:
    """Run the command that a program asks for, send its exit code, and end this process."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        with connection.makefile() as request:
            name, arguments, directory, environment = json.load(request)
        os.chdir(directory)
        ours = {name: os.environ[name] for name in (DATA_PATH,) if name in os.environ}
        os.environ.clear()
        os.environ.update({**ours, **environment})
        sys.argv = [name, *arguments]
        code = _exit_code(commands[name])
    finally:
        if sys.exc_info()[0]:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(str(code).encode())
        os._exit(code)


def _exit_code(command: Command) -> int:
    try:
        return command()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)


if __name__ == "__main__":
    main(*sys.argv[1:])
