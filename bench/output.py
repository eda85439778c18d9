"""What the functions write to standard output: their log."""

import contextlib
import io
import logging
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def captured() -> Iterator[io.StringIO]:
    """Keep what is printed and what Tally's logger writes; yield where it is kept.

    The logger's stream is that of the moment at which it was made, so it is led here by itself.
    """
    kept, outside = io.StringIO(), sys.stdout
    with contextlib.redirect_stdout(kept):
        from counters import gateway  # noqa: F401, PLC0415  the first import makes the logger

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
