"""Requests: what a handler knows about the request that it answers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from counters import model, rules
from counters.model import Change
from counters.rights import Rights
from counters.rules import invalid


class Request(NamedTuple):
    """A validated request. Its parameters, fields and headers are those that the route supports.

    Attributes:
        counter_id: the counter in the path; `default` if the path has none.
        path: the parameters in the path, decoded.
        url_path: the path of the URL as the caller sent it, with the stage or the base path.
        query: the query parameters that may be given once.
        lists: the query parameters that may be repeated. Each has the list of its values. If the
            route accepts any query, these are all parameters.
        body: the fields of the body.
        headers: the supported headers, by name in lower case.
        idempotency_key: the value of Idempotency-Key, without quotes; None if it is missing.
        change: the attempt: the work of this invocation to make one change. The attempt begins when
            the Request is created. Routes that only read do not use this attribute.
        rights: the counters for which the caller has the route's scope.
        until: latest time to start a request to AWS, in seconds since the epoch.
    """

    counter_id: str
    path: Mapping[str, str]
    url_path: str
    query: Mapping[str, str]
    lists: Mapping[str, Sequence[str]]
    body: Mapping[str, object]
    headers: Mapping[str, str]
    idempotency_key: str | None
    change: Change
    rights: Rights
    until: float

    def limit(self, most: int = 1000) -> int:
        """Return the parameter `limit`; 100 if it is missing.

        Raises:
            InvalidRequestError: if the parameter is not an integer from 1 to `most`.
        """
        return self.integer("limit", 1, most) or 100

    def flag(self, name: str) -> bool:
        """Return whether the parameter `name` is `true`; False if it is missing.

        Raises:
            InvalidRequestError: if the parameter is neither `true` nor `false`.
        """
        text = self.query.get(name, "false")
        if text not in {"true", "false"}:
            invalid(name, "must be true or false")
        return text == "true"

    def integer(self, name: str, least: int, most: int) -> int | None:
        """Return the parameter `name` as an integer; None if it is missing.

        Raises:
            InvalidRequestError: if the parameter is not an integer from `least` to `most`.
        """
        text = self.query.get(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(most))):
            invalid(name, f"must be an integer from {least} to {most}")
        value = int(text)
        if not least <= value <= most:
            invalid(name, f"must be an integer from {least} to {most}")
        return value

    def time(self, name: str) -> float | None:
        """Return the parameter `name` as a time in seconds since the epoch; None if it is missing.

        Raises:
            InvalidRequestError: if the parameter is not an RFC 3339 time.
        """
        text = self.query.get(name)
        return None if text is None else rules.time(name, text)

    def period(self) -> model.Period:
        """Return the period that begins at the parameter `from` and ends at the parameter `to`.

        Without `from`, the period has no start. Without `to`, it has no end.

        Raises:
            InvalidRequestError: if a parameter is not an RFC 3339 time, or if `from` is not before
                `to`.
        """
        return rules.period(self.time("from"), self.time("to"))
