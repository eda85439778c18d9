"""Runs `template.yaml` on this machine: `local_stack.py run` and `local_stack.py token`.

An emulator (MiniStack) runs the deployed functions in local processes, without Docker. The emulator
listens only on 127.0.0.1, and writes only to one directory.
"""

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType

from deployment import Stack, access_token, deploy, is_built, offered_to_sam_local, read_stack
from emulator_process import run_emulator
from local_settings import LOCAL, STACK_NAME, LocalStackError
from state_directory import end_of

PORTS = 1 << 16

_FIRST_STEP = """To add 1 to a counter, run this in another terminal, in this directory:

    export PATH="$PWD/.venv/bin:$PATH"
    tally increment
"""


@contextlib.contextmanager
def local_stack(
    directory: Path, port: int, stack_name: str = STACK_NAME, *, persist: bool = False
) -> Iterator[Stack]:
    """Start an emulator, and deploy `template.yaml` to it.

    The emulator stops when the with block ends.

    Args:
        directory: the directory for state, builds and logs. Only one emulator can use it at a time.
        port: the port to listen on, on 127.0.0.1.
        stack_name: the name of the CloudFormation stack.
        persist: whether to load the state that an earlier run saved, and to save the state of this
            run.

    Yields:
        The deployed stack.

    Raises:
        LocalStackError: the port or the directory cannot be used, the emulator did not start, or
            the deployment failed.
    """
    with run_emulator(directory, port, persist=persist) as emulator:
        yield deploy(emulator, stack_name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `run` or `token`, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run template.yaml here until Ctrl-C")
    run.add_argument("--port", default="4566", help="the port to listen on (default: 4566)")
    token = commands.add_parser("token", help="print an access token with all scopes")
    for command in (run, token):
        command.add_argument(
            "--directory", type=Path, default=LOCAL, help="where the state is (default: .local)"
        )
    options = parser.parse_args(arguments)
    try:
        if options.command == "token":
            print(access_token(read_stack(options.directory / "stack.json")))
        else:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, _stop_once)
            _run(options.directory, _port(options.port))
    except _Stopped:
        print("Stopped.")
    except LocalStackError as error:
        sys.stderr.write(f"local_stack.py: {error}\n")
        return 1
    return 0


def _run(directory: Path, port: int) -> None:
    """Run the stack until Ctrl-C or SIGTERM."""
    stack_file = directory / "stack.json"
    report = partial(print, flush=True)
    first = "" if is_built(directory) else " The first start takes about a minute."
    report(f"Starting Tally on port {port}.{first}")
    report("Starting the emulator…")
    with run_emulator(directory, port, persist=True) as emulator:
        stack_file.unlink(missing_ok=True)  # an earlier run that was killed leaves it behind
        try:
            stack = deploy(emulator, report=report)
            with offered_to_sam_local(emulator):
                _write_atomically(stack_file, json.dumps(asdict(stack), indent=2) + "\n")
                report(welcome(stack, directory))
                emulator.process.wait()
        except _Stopped:
            report("Saving the state…")
            raise
        finally:
            stack_file.unlink(missing_ok=True)
        message = f"the emulator ended by itself:\n{end_of(directory / 'emulator.log')}"
        raise LocalStackError(message)


def _port(text: str) -> int:
    """Parse the port that the user chose.

    Raises:
        LocalStackError: the text is not a valid port.
    """
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < PORTS):
        message = f"PORT={text} is not a port: choose a number from 1 to {PORTS - 1}"
        raise LocalStackError(message)
    return int(text)


def _write_atomically(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".tmp")
    unfinished.touch(mode=0o600)  # the text contains a secret
    unfinished.write_text(text)
    unfinished.replace(path)


def welcome(stack: Stack, directory: Path) -> str:
    """Return what `make run` prints when the stack is ready.

    Args:
        stack: the stack.
        directory: the directory of its files.
    """
    place, start, page = ".local/", _FIRST_STEP, stack.dashboard
    if directory.resolve() != LOCAL.resolve():  # the command `tally` finds only .local/stack.json
        place = f"{directory}/"
        start = f"Its addresses and secrets are in {directory}/stack.json.\n"
    return f"""
Tally is at {stack.url}. {start}
To see the counters in a browser, open the dashboard, and sign in as {page["username"]}
with the password {page["password"]}:

    {page["url"]}

Press Ctrl-C to stop. Counters, history and tokens are kept in {place}.
"""


class _Stopped(BaseException):
    """The user pressed Ctrl-C, or the process got SIGTERM."""


def _stop_once(_number: int, _frame: FrameType | None) -> None:
    # A second Ctrl-C must not interrupt the saving of the state.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise _Stopped


if __name__ == "__main__":
    sys.exit(main())
