"""Writes what `sam local` needs to run a function in a container against the local stack.

samconfig.toml names the directory. It exists as long as the stack runs, and has:

- `template.json`: the template, with what SAM cannot know of the deployed functions;
- `env.json`: the functions' environments. SAM prefers variables of the user's shell to those of the
  template, but not to those of this file;
- `code`: what was built, and `in_container.py`, which connects the container to the emulator.
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

# SAM counts the start of a container's Python as part of the function's time. Lambda does not.
START_SECONDS = 20


@contextlib.contextmanager
def offered(
    directory: Path,
    build: Path,
    address: tuple[str, int],
    functions: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, str],
) -> Iterator[None]:
    """Offer a stack to `sam local`; delete what was written at the end.

    Args:
        directory: where to write. What a killed run left there is deleted first.
        build: what `sam build` made.
        address: where the emulator listens: a host and a port.
        functions: Lambda's GetFunctionConfiguration of each function, by its logical id.
        settings: variables that every function has besides its own.
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
            # SAM ignores the names in env.json that the template does not have.
            "Environment": {"Variables": environments[name]},
        }
    # One artifact is built for all functions.
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
    """Relay connections from a Unix socket in a directory to an address: on Linux only."""
    if sys.platform != "linux":
        yield
        return
    with socket.socket(socket.AF_UNIX) as listener:
        # The path of a socket has at most 107 bytes, so name the directory by its descriptor.
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
