"""Writes the files with which `sam local` runs a function in a container against the local stack.

The files are in a directory that samconfig.toml names. The directory exists while the local stack
runs, and contains:

- `template.json`: the template, with the settings of the deployed functions.
- `env.json`: the environment variables of the functions. The template has them, too, but the
  variables of the user's shell override those in the template. They do not override `env.json`.
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

# These seconds are added to the timeout of each function. With SAM, the timeout begins before
# Python starts in the container. On Lambda, it begins after Python has started.
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
        directory: the directory for the files. If an earlier run was killed and left the directory
            behind, the directory is deleted first.
        build: the directory that `sam build` wrote.
        address: the emulator's host and port.
        functions: the result of Lambda's GetFunctionConfiguration for each function, by the logical
            id of the function.
        settings: environment variables that are added to the environment of every function.
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
            # SAM uses a variable in env.json only if the template has this variable, too.
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
    """On Linux, relay connections from a Unix socket in `directory` to `address`.

    On other systems, do nothing.
    """
    if sys.platform != "linux":
        yield
        return
    with socket.socket(socket.AF_UNIX) as listener:
        # The path of a Unix socket can have at most 107 bytes. The path of `directory` may be
        # longer. So use a path through a file descriptor of `directory`, which is always short.
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
