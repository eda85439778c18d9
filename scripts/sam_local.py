"""Writes the files that `sam local` needs to run a function in a container with the local stack.

The files are in a directory that samconfig.toml names. The directory exists while the stack runs,
and contains:

- `template.json`: the template, with the settings of the deployed functions.
- `env.json`: the functions' environment variables. Variables of the user's shell override those in
  the template, but not those in this file.
- `code`: the built functions, and `in_container.py`, which connects a container to the emulator.
"""

import contextlib
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

import in_container

# Added to the timeout of each function. SAM counts the start of Python in the container as part of
# the function's time, but Lambda does not.
START_SECONDS = 20


@contextlib.contextmanager
def offered(
    directory: Path,
    build: Path,
    address: tuple[str, int],
    functions: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, str],
) -> Iterator[None]:
    """Write the files for `sam local`, and relay connections of its containers to the emulator.

    Delete the files when the with block ends.

    Args:
        directory: the directory for the files. If a killed run left it behind, it is deleted first.
        build: the directory that `sam build` wrote.
        address: the emulator's host and port.
        functions: Lambda's GetFunctionConfiguration of each function, by its logical id.
        settings: environment variables that every function gets in addition to its own.
    """
    shutil.rmtree(directory, ignore_errors=True)
    template = yaml_parse((build / "template.yaml").read_text())
    environments = {}
    for name, function in functions.items():
        module = function["Handler"].removesuffix(".handler")
        environments[name] = {**function["Environment"]["Variables"], **settings}
        template["Resources"][name]["Properties"] |= {
            "CodeUri": "code",
            "Handler": f"in_container.{module}",
            "Runtime": function["Runtime"],
            "Architectures": function["Architectures"],
            "Timeout": function["Timeout"] + START_SECONDS,
            # SAM ignores variables in env.json that the template does not have.
            "Environment": {"Variables": environments[name]},
        }
    # All functions have the same code, so copy the code of any function.
    shutil.copytree(build / next(iter(functions)), directory / "code")
    shutil.copy(in_container.__file__, directory / "code")
    (directory / "template.json").write_text(json.dumps(template, indent=2))
    (directory / "env.json").write_text(json.dumps(environments, indent=2))
    try:
        with _socket(directory / "code", address):
            yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _socket(directory: Path, address: tuple[str, int]) -> Iterator[None]:
    """On Linux, relay connections from a Unix socket in `directory` to `address`."""
    if sys.platform != "linux":
        yield
        return
    with socket.socket(socket.AF_UNIX) as listener:
        # The path of a socket can have at most 107 bytes. The directory's own path may be longer,
        # but a path through its file descriptor never is.
        descriptor = os.open(directory, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{descriptor}/{in_container.SOCKET}")
        os.close(descriptor)
        listener.listen()
        connect = partial(socket.create_connection, address)
        thread = threading.Thread(target=in_container.relay, args=(listener, connect))
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
