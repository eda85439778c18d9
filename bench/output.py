"""Captures the log that the functions write to standard output."""

import contextlib
import io
import logging
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def captured() -> Iterator[io.StringIO]:
    """Capture what the with block prints and what Tally's logger writes.

    A logger keeps using the stream that was standard output when the logger was created. So this
    function redirects the stream of Tally's logger, too.

    Yields:
        A buffer with the text that was captured so far.
    """
    kept, outside = io.StringIO(), sys.stdout
    with contextlib.redirect_stdout(kept):
        from counters import gateway  # noqa: F401, PLC0415  the first import creates the logger

        streams = {
            handler: handler.setStream(kept)
            for handler in logging.getLogger("tally").handlers
            if isinstance(handler, logging.StreamHandler)
        }
        try:
            yield kept
        finally:
            for handler, stream in streams.items():
                handler.setStream(stream or outside)
