"""Whether a request that failed is made again, and after which pause."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable

from s3prl_stream.errors import MissingFile, ShardError, StreamError
from s3prl_stream.shards.object_clients import reason_of, status_of
from s3prl_stream.shards.store import RESTORE

MAX_FAILURES = 20
"""Tries in a row that bring not a byte, about 100 s of them; any byte sets the count back."""

MAX_FAILURES_AT_FIRST = 5
"""The same where no server has ever answered: more likely a wrong address than a fault that passes."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 10.0
MAX_WHOLE_ANSWERS = 3

_POLL_SECONDS = 0.2
_jitter = random.Random()  # of its own: a fault must not move the draws of whoever uses the global one


class AbandonedError(Exception):
    """Nobody waits for this request any more."""


class Tries:
    """Decides after each failure of one request whether to try again, and pauses.

    Args:
        where: for messages, without secrets.
        max_failures: in a row, from then on it is an error.
        changed: the error for a file that is not what it was.
        on_retry: called before each new try.
        wanted: False ends a pause.
    """

    def __init__(
        self,
        where: str,
        max_failures: Callable[[], int],
        changed: Callable[[str], ShardError],
        on_retry: Callable[[], None],
        wanted: Callable[[], bool],
    ) -> None:
        self._where, self._max_failures, self._changed = where, max_failures, changed
        self._on_retry, self._wanted = on_retry, wanted
        self._in_a_row = self._in_all = self._whole_answers = 0

    def progress(self) -> None:
        """Bytes came."""
        self._in_a_row = 0

    def failed(self, error: Exception, what: str) -> None:
        """Returns after a pause if another try may help.

        Errors of obstore are not chained: their text may hold a password or a signed URL.

        Raises:
            MissingFile, ShardError: it will not.
            AbandonedError: nobody wants it any more.
        """
        if isinstance(error, StreamError | AbandonedError):
            raise error
        self._in_a_row += 1
        self._in_all += 1
        verdict = self._verdict(error, what)
        if verdict is not None:
            raise verdict from None
        self._on_retry()
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (self._in_a_row - 1), LONGEST_PAUSE_SECONDS) * _jitter.uniform(0.5, 1.0)
        end = time.monotonic() + pause
        while (left := end - time.monotonic()) > 0:
            if not self._wanted():
                raise AbandonedError
            time.sleep(min(left, _POLL_SECONDS))

    def _verdict(self, error: Exception, what: str) -> Exception | None:
        """Why another try cannot help; None: it may."""
        import obstore.exceptions as obstore_errors

        cannot, reason, status = f"{self._where}: cannot be {what}", reason_of(error), status_of(error)
        if isinstance(error, FileNotFoundError):
            return MissingFile(f"{cannot} (not there: {reason}). {RESTORE}")
        if isinstance(error, obstore_errors.PreconditionError):
            return self._changed("the server says so")
        denied = obstore_errors.PermissionDeniedError | obstore_errors.UnauthenticatedError
        if isinstance(error, denied) or status in (401, 403):
            return ShardError(
                f"{cannot}, permission denied ({reason}). Check the credentials in the environment, and the bucket's "
                "rules."
            )
        is_whole = isinstance(error, obstore_errors.NotSupportedError)
        lacking = re.search("Content-(Range|Length)", reason)  # which the answer lacks
        if is_whole or lacking:
            self._whole_answers += 1
            if self._whole_answers >= MAX_WHOLE_ANSWERS:
                how = "does not serve ranges of files"
                if lacking and lacking[1] == "Length":
                    how = "does not say how long its answers are, as where it compresses them"
                return ShardError(
                    f"{cannot}: the server {how} ({reason}). Put the set on one that answers HTTP range requests with "
                    "the bytes as they are (nginx, Apache, an object store), or on a disk."
                )
        elif (status is not None and 300 <= status < 400) or re.search("following redirect|builder error", reason):
            return ShardError(
                f"{cannot}: the server redirects to where nothing can be fetched, or in a circle ({reason}). Give the "
                "address at which the set really lies."
            )
        elif status is not None and 400 <= status < 500 and status not in (408, 429):
            return ShardError(f"{cannot} ({reason}).")
        elif not isinstance(error, obstore_errors.BaseError | OSError | EOFError):
            return error  # a mistake of ours
        if self._in_a_row >= self._max_failures():
            return ShardError(
                f"{cannot} after {self._in_all} attempts ({reason}). Check the address, the network and the store; a "
                "run can go on from its last checkpoint."
            )
        return None
