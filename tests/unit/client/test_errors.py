"""Errors reach other processes, for example from a worker of multiprocessing."""

import copy
import pickle

import pytest

from tally_client import (
    BoundExceeded,
    Increment,
    InvalidRequest,
    OutcomeUnknown,
    Refusal,
    TallyError,
    Unavailable,
    Unsent,
    VersionMismatch,
)

BOUND = BoundExceeded("no", value=3, request_id="urn:uuid:1")
ERRORS = [
    BOUND,
    InvalidRequest("no", status=413, kind="invalid-request"),
    OutcomeUnknown("lost.", key="k", refusal=BOUND),
    Unavailable("no"),
    Unsent([], [Refusal(Increment("a", 5), BOUND)]),
    VersionMismatch("no", version=2),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_copy_of_an_error_has_everything(error: TallyError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301  our own
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert repr(vars(other)) == repr(vars(error))
