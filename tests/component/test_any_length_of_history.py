"""That to look up a time takes as many requests however long the history is."""

from urllib.parse import quote

import botocore.session
import pytest
from bench import long_history
from tests.meter import Meter
from tests.stack import running

from counters import clock


@pytest.mark.parametrize("expired", [0, 1 / 4, 1 / 2])
def test_a_time_takes_as_many_requests_in_a_history_ten_thousand_times_as_long(
    session: botocore.session.Session, monkeypatch: pytest.MonkeyPatch, expired: float
) -> None:
    def requests(changes: int, path: str, period: str) -> int:
        with monkeypatch.context() as patched, running(session) as stack:
            end = long_history.FIRST + long_history.INTERVAL * changes
            patched.setattr(clock, "now", lambda: end)
            patched.setitem(stack.refs, "HistoryDays", "1")
            long_history.Database(stack, changes, int(changes * expired))
            meter = Meter()
            query = period + quote(long_history.moment(changes / 3))
            answer = stack.request("GET", f"/counters/{long_history.NAME}{path}", query=query)
            assert answer.status in {200, 404}, answer
            return meter.requests.total()

    for asked in ("", "at="), ("/history", "from="), ("/history", "order=desc&to="):
        short, long = requests(100_000, *asked), requests(1_000_000_000, *asked)
        print(*asked, short, long)
        assert abs(long - short) <= 1  # where in its hour the time is
