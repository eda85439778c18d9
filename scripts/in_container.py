"""Lets a function in a container of `sam local` reach the local stack.

The emulator listens only on 127.0.0.1 of the host, and a container has a 127.0.0.1 of its own. So
this module listens on the container's 127.0.0.1, on the emulator's port. It relays each connection
to the emulator on the host:

- On Linux, the module connects to a Unix socket in the directory with the function's code. The host
  shares this directory with the container. No program has to listen on a network interface, so a
  firewall cannot block the connection.
- On other systems, containers run in a virtual machine. The host shares files with the virtual
  machine, but not sockets. In the virtual machine, the host has the name `host.docker.internal`,
  and the module connects to this name.

`sam_local.py` copies this file into the directory with the function's code, and changes the
handlers in the template. For example, SAM calls `in_container.get_counter` instead of
`get_counter.handler`.
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
    """Start the relay, and return the handler of the module `name`.

    Python calls this function when SAM looks for the handler `in_container.name`.
    """
    if name.startswith("_"):
        raise AttributeError(name)
    port = urlsplit(os.environ["AWS_ENDPOINT_URL"]).port or 0
    listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=relay, args=(listener, partial(_to_host, port)), daemon=True).start()
    return importlib.import_module(name).handler


def relay(listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
    """Accept connections, and relay each one to the target, until the listener is shut down.

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
    """Open a connection to the target, and copy data in both directions between it and `near`.

    If the connection to the target cannot be opened, close `near`.
    """
    with near, suppress(OSError), connect() as far:
        back = threading.Thread(target=_copy, args=(far, near), daemon=True)
        back.start()
        _copy(near, far)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy data until the source closes its side. Then close the sending side to the target."""
    with suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
