"""`python -m s3prl_stream` is `s3prl-stream`."""

from __future__ import annotations

from s3prl_stream.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
