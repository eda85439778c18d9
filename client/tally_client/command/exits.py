"""Exit codes of the command, and the errors that only the command has."""

from __future__ import annotations

from typing import Self

from tally_client import errors


class Incomplete(errors.TallyError):
    """The history does not have the newest changes yet."""


class NotWritten(errors.TallyError):
    """The output could not be written.

    Attributes:
        key: the idempotency key of the change that the command made; None if it has none.
    """

    def __init__(self, detail: str, *, key: str | None = None) -> None:
        """Describe the output and what is wrong with it in `detail`, a text for people."""
        super().__init__(detail)
        self.key = key

    @classmethod
    def to(cls, place: object, error: OSError | UnicodeEncodeError) -> Self:
        """Return the error for a place, such as a file, where something could not be written."""
        if isinstance(error, OSError):
            return cls(f"{place}: {error.strerror or error}")
        character = ascii(error.object[error.start])
        return cls(f"{place}: the encoding {error.encoding} does not have {character}")


NOT_WRITTEN = 13

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
    (NotWritten, NOT_WRITTEN),
)
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def code_of(error: errors.TallyError) -> int:
    """Return the exit code for an error."""
    return next(code for kind, code in CODES if isinstance(error, kind))
