"""Lets a function in a container of `sam local` reach the local stack.

The emulator listens on 127.0.0.1 of the host only, and a container has its own 127.0.0.1. So this
module listens on the container's 127.0.0.1, on the emulator's port, and relays each connection to
the host:

- On Linux, through a Unix socket in the directory with the function's code, which the host shares
  with the container. So nothing listens on a network, and a firewall does not interfere.
- Elsewhere, through the host's name. There, containers run in a virtual machine, which shares files
  but not sockets, and gives the host a name.

`sam_local.py` copies this file next to the function's code. The name `in_container.get_counter`
stands for the handler of the module `get_counter`.
"""

import importlib
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SOCKET = "emulator.sock"
HOST = "host.docker.internal"  # in Docker Desktop and in podman's virtual machine
CHUNK = 64 * 1024


def __getattr__(name: str) -> Any:  # noqa: ANN401  a handler
    """Start the relay, and return the handler of the module `name`."""
    if name.startswith("_"):
        raise AttributeError(name)
    port = urlsplit(os.environ["AWS_ENDPOINT_URL"]).port or 0
    listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=relay, args=(listener, partial(_to_host, port)), daemon=True).start()
    return importlib.import_module(name).handler


def relay(listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
    """Connect each incoming connection to a new one, until the listener is shut down.

    Args:
        listener: accepts the connections.
        connect: opens a connection to the target.
    """
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            threading.Thread(target=_join, args=(near, connect), daemon=True).start()


def _to_host(port: int) -> socket.socket:
    """Connect to the emulator on the host."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(Path(__file__).with_name(SOCKET)))
    except OSError:
        connection.close()
        return socket.create_connection((HOST, port))
    return connection


def _join(near: socket.socket, connect: Callable[[], socket.socket]) -> None:
    """Copy both ways between a connection and a new one. Close it if there is no new one."""
    with near, suppress(OSError), connect() as far:
        back = threading.Thread(target=_copy, args=(far, near), daemon=True)
        back.start()
        _copy(near, far)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy until the source ends. Then end the target."""
    with suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
