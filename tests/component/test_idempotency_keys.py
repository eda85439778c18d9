"""Idempotency-Key: allowed characters, the request that a key identifies, and its lifetime."""

import pytest
from tests.component.scene import Scene
from tests.times import HOUR

from counters import clock


@pytest.mark.parametrize(
    "key", ["", '""', "a b", '"a', "ä", "a" * 256, f'"{"a" * 256}"', '"a"b"', '"a\\b"', "\x7f"]
)
def test_the_error_names_a_malformed_key(scene: Scene, key: str) -> None:
    reply = scene.add("hits", key=key)

    assert reply.operations() == []
    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert reply.body["detail"].startswith("Idempotency-Key: ")


@pytest.mark.parametrize("key", ["a", "a" * 255, f'"{"a" * 255}"', "!~", 'a"b', '"\\"\\\\"'])
def test_a_key_can_have_any_visible_characters(scene: Scene, key: str) -> None:
    assert scene.add("hits", key=key).status == 200


def test_a_key_with_another_body_is_refused(scene: Scene) -> None:
    first = scene.add("hits", 5, "key")

    others = [scene.add("hits", 6, "key"), scene.add("hits", 5, "key", {"max": 50})]

    for other in others:
        assert (other.status, other.problem) == (422, "idempotency-key-reused")
    assert scene.value("hits") == 5
    assert scene.add("hits", 5, "key").text == first.text


def test_bodies_that_mean_the_same_are_the_same_request(scene: Scene) -> None:
    headers = {"Idempotency-Key": "key"}
    bodies: list[dict[str, object] | None] = [None, {}, {"by": 1}]
    first, *repeats = [scene.call("POST", "hits", body, headers) for body in bodies]

    assert [repeat.text for repeat in repeats] == [first.text] * 2
    assert scene.value("hits") == 1


def test_callers_and_counters_do_not_share_keys(scene: Scene) -> None:
    headers = {"Idempotency-Key": "key"}
    replies = [
        scene.call("POST", "hits", {"by": 1}, headers, "one"),
        scene.call("POST", "hits", {"by": 2}, headers, "another"),
        scene.call("POST", "misses", {"by": 3}, headers, "one"),
    ]

    assert [(reply.status, reply.replayed) for reply in replies] == [(200, False)] * 3
    assert (scene.value("hits"), scene.value("misses")) == (3, 3)


@pytest.mark.parametrize(
    ("bare", "quoted"), [("key", '"key"'), ("a\\b", '"a\\\\b"'), ('a"b', '"a\\"b"')]
)
def test_a_key_is_the_same_bare_and_quoted(scene: Scene, bare: str, quoted: str) -> None:
    first = scene.add("hits", 1, bare)
    repeat = scene.add("hits", 1, quoted)

    assert (repeat.replayed, repeat.text) == (True, first.text)
    assert scene.value("hits") == 1


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.999])
def test_a_key_is_valid_for_24_hours_and_then_counts_as_new(scene: Scene, fraction: float) -> None:
    scene.time += fraction
    began = scene.time
    first = scene.add("hits", 5, "key")
    scene.add("hits", 100)
    scene.record()
    for skew in (0.0, clock.CLOCK_DIFFERENCE):
        scene.skew = skew
        scene.time = began + 24 * HOUR - 0.002
        assert scene.add("hits", 5, "key").text == first.text
    scene.skew = 0.0

    scene.time = began + 24 * HOUR + clock.CLOCK_DIFFERENCE + 1.0
    # The receipt has expired, but DynamoDB's TTL has not deleted it yet.
    assert scene.receipts() == 1
    second = scene.add("hits", 6, "key")

    assert (second.status, second.body["value"], second.replayed) == (200, 111, False)
    scene.time = began + 47 * HOUR
    assert scene.add("hits", 6, "key").text == second.text
