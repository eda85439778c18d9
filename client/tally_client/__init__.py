"""A client for Tally, a counter service. Every increment is applied exactly once.

`Tally` has the requests. `Buffer` sums increments in the process and sends them together.
"""

from tally_client.batches import Batch
from tally_client.buffer import Buffer
from tally_client.errors import (
    BoundExceeded,
    BufferFull,
    Forbidden,
    IdempotencyKeyReused,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Refused,
    SettingsMissing,
    TallyError,
    Unauthorized,
    Unavailable,
    Unsent,
    VersionMismatch,
)
from tally_client.model import ChangedCounter, Counter, Entry, Increment, Interval, Range
from tally_client.sums import Refusal
from tally_client.tally import Tally

__all__ = [
    "Batch",
    "BoundExceeded",
    "Buffer",
    "BufferFull",
    "ChangedCounter",
    "Counter",
    "Entry",
    "Forbidden",
    "IdempotencyKeyReused",
    "Increment",
    "Interval",
    "InvalidRequest",
    "NotFound",
    "OutcomeUnknown",
    "Range",
    "Refusal",
    "Refused",
    "SettingsMissing",
    "Tally",
    "TallyError",
    "Unauthorized",
    "Unavailable",
    "Unsent",
    "VersionMismatch",
]
