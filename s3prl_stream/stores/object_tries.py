"""Whether a request that failed is made again, and after which pause."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable

from s3prl_stream.errors import MissingFile, ShardError, StreamError
from s3prl_stream.stores.object_clients import reason_of, status_of
from s3prl_stream.stores.store import RESTORE

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
        wanted: False ends a pause.
    """

    def __init__(self, where: str, wanted: Callable[[], bool]) -> None:
        self._where, self._wanted = where, wanted
        self._in_a_row = self._in_all = self._whole_answers = 0

    def progress(self) -> None:
        """Bytes came."""
        self._in_a_row = 0

    def failed(self, error: Exception, what: str, *, answered: bool) -> None:
        """Returns after a pause if another try may help.

        Errors of obstore are not chained: their text may hold a password or a signed URL.

        Args:
            error: of the try.
            what: was to be done: "read at byte 0", for messages.
            answered: some server has answered there, to whatever request.

        Raises:
            MissingFile, ShardError: it will not.
            AbandonedError: nobody wants it any more.
        """
        if isinstance(error, StreamError | AbandonedError):
            raise error
        self._in_a_row += 1
        self._in_all += 1
        verdict = self._verdict(error, what, MAX_FAILURES if answered else MAX_FAILURES_AT_FIRST)
        if verdict is not None:
            raise verdict from None
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (self._in_a_row - 1), LONGEST_PAUSE_SECONDS) * _jitter.uniform(0.5, 1.0)
        end = time.monotonic() + pause
        while (left := end - time.monotonic()) > 0:
            if not self._wanted():
                raise AbandonedError
            time.sleep(min(left, _POLL_SECONDS))

    def _verdict(self, error: Exception, what: str, max_failures: int) -> Exception | None:
        """Why another try cannot help; None: it may."""
        import obstore.exceptions as obstore_errors

        cannot, reason, status = f"{self._where}: cannot be {what}", reason_of(error), status_of(error)
        if isinstance(error, FileNotFoundError):
            return MissingFile(f"{cannot} (not there: {reason}). {RESTORE}")
        if isinstance(error, obstore_errors.PreconditionError):
            return changed(self._where, "the server says so")
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
        if self._in_a_row >= max_failures:
            return ShardError(
                f"{cannot} after {self._in_all} attempts ({reason}). Check the address, the network and the store; a "
                "run can go on from its last checkpoint."
            )
        return None


def changed(where: str, how: str) -> ShardError:
    """The error for a file that is not what it was."""
    return ShardError(
        f"{where}: object changed since it was first read ({how}). A running stream needs the files it began with: "
        "restore them, or begin anew."
    )
