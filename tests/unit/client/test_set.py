"""`set` is repeated only if a repeat cannot undo the change of another caller."""

import pytest
from tests.unit.client.fake_service import FakeService

from tally_client import OutcomeUnknown, VersionMismatch


def test_a_set_is_not_repeated_when_it_may_have_been_applied(service: FakeService) -> None:
    service.plan("503 throttled", "lose")
    with service.client() as tally, pytest.raises(OutcomeUnknown) as caught:
        tally.set("a", 10)
    assert caught.value.key is None
    assert len(service.requests("PUT")) == 2
    assert "idempotency-key" not in service.seen[0].headers


def test_a_set_on_a_version_is_repeated_until_it_is_answered(service: FakeService) -> None:
    with service.client() as tally:
        service.plan("drop", "503 outcome-unknown")
        assert tally.set("a", 10, if_version=0).version == 1
        service.plan("drop", "500")
        assert tally.set("a", 20, if_version=1).version == 2
        with pytest.raises(VersionMismatch) as caught:
            tally.set("a", 30, if_version=1)
    assert caught.value.version == 2
    assert service.requests("PUT")[0].headers["if-none-match"] == "*"
    assert service.requests("PUT")[3].headers["if-match"] == '"1"'


def test_a_set_whose_answer_was_lost_cannot_claim_a_version_that_another_may_have_made(
    service: FakeService,
) -> None:
    service.plan("lose")
    with service.client() as tally, pytest.raises(OutcomeUnknown) as caught:
        tally.set("a", 10, if_version=0)
    assert isinstance(caught.value.refusal, VersionMismatch)
    assert service.by_operation("a") == {10: 1}


@pytest.mark.parametrize(("value", "operation"), [(11, "set"), (10, "increment")])
def test_after_a_lost_answer_the_history_shows_that_another_caller_was_faster(
    service: FakeService, value: int, operation: str
) -> None:
    service.plan("drop")
    faults = service.faults

    def other_first() -> str:
        if not service.history:
            service.change("a", value, operation)
        return faults()

    service.faults = other_first
    with service.client() as tally, pytest.raises(VersionMismatch) as caught:
        tally.set("a", 10, if_version=0)
    assert caught.value.version == 1
