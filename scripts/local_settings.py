"""Settings of the local stack (directories, addresses and credentials), and its error class."""

import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / ".local"
HOST = "127.0.0.1"
REGION = "us-east-1"
STACK_NAME = "tally-dev"

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

# Opens URLs on this machine. It ignores any HTTP proxy that the user's environment names.
LOCAL_ONLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class LocalStackError(Exception):
    """The local stack cannot be started or used. The message says why."""
