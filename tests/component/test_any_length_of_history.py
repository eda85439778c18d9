"""A read at a time takes as many requests in a long history as in a short history."""

from urllib.parse import quote

import botocore.session
import pytest
from bench import long_history
from tests.meter import Meter
from tests.stack import running

from counters import clock


@pytest.mark.parametrize("expired", [0, 1 / 4, 1 / 2])
def test_a_search_takes_as_many_requests_in_a_history_that_is_ten_thousand_times_longer(
    session: botocore.session.Session, monkeypatch: pytest.MonkeyPatch, expired: float
) -> None:
    def requests(changes: int, path: str, period: str) -> int:
        with monkeypatch.context() as patched, running(session) as stack:
            end = long_history.FIRST + long_history.INTERVAL * changes
            patched.setattr(clock, "now", lambda: end)
            patched.setitem(stack.refs, "HistoryDays", "1")
            long_history.Database(stack, changes, int(changes * expired))
            query = period + quote(long_history.moment(changes / 3))
            with Meter() as meter:
                reply = stack.request("GET", f"/counters/{long_history.NAME}{path}", query=query)
            assert reply.status in {200, 404}, reply
            return meter.requests.total()

    for read in ("", "at="), ("/history", "from="), ("/history", "order=desc&to="):
        short, long = requests(100_000, *read), requests(1_000_000_000, *read)
        print(*read, short, long)
        # The position of the time within its hour can differ between the two histories. So the
        # number of requests can differ by 1.
        assert abs(long - short) <= 1
