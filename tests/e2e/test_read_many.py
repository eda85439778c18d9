"""Over HTTP, one request reads up to 100 counters."""

import json
import time
import uuid
from collections.abc import Callable, Sequence

from tests.e2e.service import Caller
from tests.sizes import cases

COUNTERS = 100
ROUNDS = cases(20, part=1)


def test_100_counters_are_read_at_once_and_in_order(caller: Caller) -> None:
    names = [f"{uuid.uuid4()}" for _ in range(COUNTERS)]
    caller.request("POST", "/increments", body=_increments(names))
    path = "/counters?" + "&".join(f"id={name}" for name in reversed(names))

    answer = caller.get(path)
    singles = [caller.get(f"/counters/{name}").body for name in reversed(names)]

    assert answer.body == singles
    assert [counter["value"] for counter in answer.body] == list(range(COUNTERS, 0, -1))
    together, apart = [], []
    for _ in range(ROUNDS):
        together.append(_seconds(lambda: caller.get(path)))
        apart.append(_seconds(lambda: [caller.get(f"/counters/{name}") for name in names]))
    print(f"\n100 counters: {min(together) * 1000:.0f} ms in one request, ", end="")
    print(f"{min(apart) * 1000:.0f} ms in 100 requests")


def test_a_list_with_values_shows_the_counters_and_links_to_the_next_page(caller: Caller) -> None:
    prefix = f"{uuid.uuid4()}:"
    names = [f"{prefix}{number}" for number in range(5)]
    caller.request("POST", "/increments", body=_increments(names))

    pages = list(caller.pages(f"/counters?values=true&limit=2&prefix={prefix}"))

    assert [[(each["counter_id"], each["value"]) for each in page] for page in pages] == [
        [(names[0], 1), (names[1], 2)],
        [(names[2], 3), (names[3], 4)],
        [(names[4], 5)],
    ]


def _increments(names: Sequence[str]) -> str:
    """Return a body that adds 1 to the first counter, 2 to the second, and so on."""
    increments = [{"counter_id": name, "by": by} for by, name in enumerate(names, 1)]
    return json.dumps({"increments": increments})


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
