"""The increment as in a beginner's tutorial: Flask, SQLAlchemy and SQLite.

It reads the counter, adds to it and commits. If two requests do this at once, one increment may be
lost.
"""

import datetime as dt
import json
import os
import sys
import uuid
from typing import Any

from flask import Flask, request
from sqlalchemy import JSON, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

app = Flask(__name__)
engine = create_engine(f"sqlite:///{os.environ['DATABASE']}")


class Base(DeclarativeBase):
    """The base class of SQLAlchemy's tables."""


class Counter(Base):
    """A counter and its last change."""

    __tablename__ = "counters"

    counter_id: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[str]
    updated_at: Mapped[str]
    change: Mapped[dict[str, Any]] = mapped_column(JSON)


Base.metadata.create_all(engine)


@app.post("/counter", defaults={"counter_id": "default"})
@app.post("/counters/<counter_id>")
def increment(counter_id: str) -> tuple[dict[str, Any], int]:
    """Add to a counter, and return the counter after the change."""
    body = request.get_json(silent=True) if request.content_length else {}
    by = body.get("by", 1) if isinstance(body, dict) else None
    if type(by) is not int:
        return {"message": "by: must be an integer"}, 400
    request_id = request.headers.get("X-Request-Id") or str(uuid.uuid4())
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    with Session(engine) as session:
        counter = session.get(Counter, counter_id)
        if counter is None:
            counter = Counter(counter_id=counter_id, value=0, version=0, created_at=now)
            session.add(counter)
        counter.value += by
        counter.version += 1
        counter.updated_at = now
        counter.change = {
            "operation": "increment",
            "actor": request.remote_user or "anonymous",
            "request_id": request_id,
            "at": now,
        }
        session.commit()
        answer = {
            "counter_id": counter.counter_id,
            "value": counter.value,
            "version": counter.version,
            "created_at": counter.created_at,
            "updated_at": counter.updated_at,
        }
    line = {
        "method": request.method,
        "path": request.path,
        "status": 200,
        "request_id": request_id,
    }
    print(json.dumps(line))
    return answer, 200


if __name__ == "__main__":
    from waitress import serve

    serve(app, host="127.0.0.1", port=int(sys.argv[1]))
