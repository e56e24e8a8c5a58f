"""A line now and then of work that takes long, for whoever waits for it."""

from __future__ import annotations

import logging
import time

_EVERY_SECONDS = 10.0


class SignOfLife:
    """Tells the log `s3prl_stream` (level INFO) every ten seconds how far something is; the command line shows it."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def tell(self, text: str, *numbers: float) -> None:
        """Call it often; `text` has a % form for each number."""
        if time.monotonic() - self._told_at > _EVERY_SECONDS:
            self._told_at = time.monotonic()
            logging.getLogger("s3prl_stream").info(text, *numbers)
