"""Snapshots: how the local stack saves and restores its state."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import snapshots

SAVED_AT = 1_795_341_600.0  # 2026-11-22T10:00:00Z
QUEUE = "http://localhost:4566/000000000000/tally-dev-IncrementQueue.fifo"


def write(directory: Path, end: str = snapshots.RUNNING, **texts: object) -> None:
    written = {service: json.dumps(value) for service, value in texts.items()}
    snapshots.write(directory, written, saved_at=SAVED_AT, port=4566, end=end)


def test_a_service_without_a_new_state_keeps_its_old_one(tmp_path: Path) -> None:
    write(tmp_path, sqs={"queues": 1}, dynamodb={"tables": 5})
    write(tmp_path, sqs={"queues": 2})

    read = {name: json.loads(text) for name, text in snapshots.read(tmp_path, 4566).items()}

    assert read == {"sqs": {"queues": 2}, "dynamodb": {"tables": 5}}
    assert len(list(tmp_path.glob("*.json"))) == 2, "a file that no snapshot needs was kept"


def test_only_the_emulators_own_addresses_move_to_the_new_port(tmp_path: Path) -> None:
    body = f"see {QUEUE} please"
    key = f"000000000000\0us-east-1\0'{QUEUE}'"
    write(tmp_path, sqs={"url": QUEUE, "body": body, key: 1}, dynamodb={"note": QUEUE})

    read = {name: json.loads(text) for name, text in snapshots.read(tmp_path, 4700).items()}

    moved = {text: text.replace("4566", "4700") for text in (QUEUE, key)}
    assert read["sqs"] == {"url": moved[QUEUE], "body": body, moved[key]: 1}
    assert read["dynamodb"] == {"note": QUEUE}, "an address that a caller wrote was changed"


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (snapshots.STOPPED, None),
        (snapshots.RUNNING, "The last run was killed. "),
        (snapshots.DEPLOYING, "The last run was stopped while it was deploying. "),
    ],
)
def test_the_next_start_reports_since_when_changes_may_be_lost(
    tmp_path: Path, end: str, message: str | None
) -> None:
    write(tmp_path, end, sqs={})

    lost = snapshots.lost(tmp_path)

    if message is None:
        assert lost is None
    else:
        assert lost
        assert lost.startswith(message)
        assert "2026-11-22T10:00:00.000Z" in lost


def test_a_stopped_deployment_keeps_the_snapshot_and_is_reported(tmp_path: Path) -> None:
    write(tmp_path, sqs={"queues": 1})
    snapshot = snapshots.read_index(tmp_path)
    assert snapshot
    before = snapshots.read(tmp_path, 4566)

    snapshots.write_index(tmp_path, replace(snapshot, end=snapshots.DEPLOYING))

    assert snapshots.read(tmp_path, 4566) == before
    assert "while it was deploying" in (snapshots.lost(tmp_path) or "")


def test_a_first_start_reports_no_loss(tmp_path: Path) -> None:
    assert snapshots.lost(tmp_path) is None
    assert snapshots.read(tmp_path, 4566) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"port": 4566}', "null"])
def test_a_damaged_index_is_reported(tmp_path: Path, text: str) -> None:
    write(tmp_path, sqs={})
    (tmp_path / snapshots.INDEX).write_text(text)

    for read in (lambda: snapshots.lost(tmp_path), lambda: snapshots.read(tmp_path, 4566)):
        with pytest.raises(snapshots.DamagedError, match=f"delete {tmp_path} to start without it"):
            read()


def test_a_file_with_another_content_than_its_name_says_is_reported(tmp_path: Path) -> None:
    write(tmp_path, dynamodb={"value": 1})
    (file,) = tmp_path.glob("dynamodb.*.json")
    file.write_text(file.read_text().replace("1", "9"))

    with pytest.raises(snapshots.DamagedError, match=file.name):
        snapshots.read(tmp_path, 4566)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    write(tmp_path, sqs={})
    (saved,) = tmp_path.glob("*.json")
    saved.unlink()

    with pytest.raises(snapshots.DamagedError, match="delete"):
        snapshots.read(tmp_path, 4566)
