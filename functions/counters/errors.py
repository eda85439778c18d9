"""What can go wrong, and what the caller is told."""

from counters.model import Bounds, Condition, Counter


class CounterError(Exception):
    """What Tally refuses or cannot do; the text is for the caller to read."""


class InvalidRequestError(CounterError):
    """The request is malformed: the text names the field and says why."""


class NotFoundError(CounterError):
    """There is no such version, or its history has expired."""


class BoundExceededError(CounterError):
    """The change would leave its bounds or the range of integers; nothing was written."""

    def __init__(self, bounds: Bounds, standing: Counter, field: str = "by") -> None:
        """Take the bounds, where the counter stands, and the field that asks for the change."""
        super().__init__(f"{field}: the result would not be from {bounds.low} to {bounds.high}")
        self.value = standing.value


class VersionMismatchError(CounterError):
    """The condition of the request does not hold; nothing was written."""

    def __init__(self, condition: Condition, standing: Counter) -> None:
        """Take the condition, and where the counter stands."""
        detail = f"the counter has version {standing.version}"
        match condition.versions:
            case None:
                detail += ": it was never written"
            case (version,):
                detail += f", not {version}"
            case _:
                detail += ", which is not one of those asked for"
        super().__init__(detail)
        self.version = standing.version


class KeyReusedError(CounterError):
    """The idempotency key was used with another body; nothing was written."""


class InProgressError(CounterError):
    """An earlier request with this idempotency key is unresolved."""

    def __init__(self, retry_after: int) -> None:
        """Take the number of seconds after which it can be resolved."""
        super().__init__("An earlier request with this key is unresolved. Repeat it later.")
        self.retry_after = retry_after


class UnauthorizedError(CounterError):
    """The request does not say who sends it."""


class ThrottledError(CounterError):
    """Nothing was applied. The same request may succeed later."""

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        """Take the text, and the number of seconds after which a repeat may succeed."""
        super().__init__(detail)
        self.retry_after = retry_after


class OutcomeUnknownError(CounterError):
    """A reply of the database was lost, and whether the change was applied is not known."""
