"""A page that plays one batch: each clip as it was read and as each stage left it, in one HTML file."""

from __future__ import annotations

from s3prl_stream.batch_page.page import write_batch_page

__all__ = ["write_batch_page"]
