"""The command `tally`."""

from tally_client.command.app import main

__all__ = ["main"]
