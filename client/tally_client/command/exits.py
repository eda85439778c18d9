"""Exit codes of the command, and the errors that only the command has."""

from __future__ import annotations

from tally_client import errors


class Incomplete(errors.TallyError):
    """The history does not have the newest changes yet."""


class NotWritten(errors.TallyError):
    """The output file could not be written."""


# The first class that fits decides. docs/client.md lists the codes.
CODES: tuple[tuple[type[errors.TallyError], int], ...] = (
    (errors.SettingsMissing, 3),
    (errors.Unauthorized, 5),
    (errors.Forbidden, 5),
    (errors.NotFound, 6),
    (errors.BoundExceeded, 7),
    (errors.VersionMismatch, 8),
    (errors.IdempotencyKeyReused, 9),
    (errors.Refused, 4),
    (errors.Unavailable, 10),
    (errors.OutcomeUnknown, 11),
    (Incomplete, 12),
    (NotWritten, 13),
)
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def code_of(error: errors.TallyError) -> int:
    """Return the exit code for an error."""
    return next(code for kind, code in CODES if isinstance(error, kind))
