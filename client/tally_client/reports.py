"""Reports of a buffer: what it cannot send yet, and what is lost at the end of the process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tally_client.sums import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tally_client.batches import Batch
    from tally_client.model import Increment

    OnProblem = Callable[[Batch | Refusal], None]

logger = logging.getLogger("tally_client")


def report(problem: Batch | Refusal, on_problem: OnProblem | None) -> None:
    """Log a problem, and call `on_problem` with it. What `on_problem` raises is logged, too."""
    if isinstance(problem, Refusal):
        text = f"the service refused {problem.increment}: {problem.error}"
    else:
        text = f"a batch is late: {problem.reason or 'it was not sent yet.'}"
    logger.warning("The Tally buffer keeps what it cannot send: %s", text)
    if on_problem:
        try:
            on_problem(problem)
        except Exception:
            logger.exception("on_problem failed")


def log_lost(error: BaseException, batches: Iterable[Batch], sums: Iterable[Increment]) -> None:
    """Log what is lost when the process ends now.

    Args:
        error: why it was not sent.
        batches: the batches that are not known to be applied.
        sums: what is in no batch, and certainly was not applied.
    """
    logger.error("The Tally buffer could not send everything: %r", error)
    for batch in batches:
        logger.error("Not known to be applied: %s", batch.to_json())
    for each in sums:
        logger.error("Not applied: %s", each)
