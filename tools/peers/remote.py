"""Where a loader finds its data in an object store: the addresses for each way of reading, from the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

VARIABLE = "BENCH_REMOTE"


class Remote(NamedTuple):
    """One loader's folder in a bucket that all may read."""

    s3: str
    """s3://BUCKET/NAME, for clients with the keys of the environment (`AWS_*`)."""
    http: str
    """The same for any HTTP client."""
    endpoint: str
    cache: str
    """An empty folder for loaders that download."""

    def s3_options(self) -> dict[str, Any]:
        """What botocore's clients are given."""
        return {
            "endpoint_url": self.endpoint,
            "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
            "region_name": os.environ["AWS_REGION"],
        }

    def msc_path(self) -> str:
        """For NVIDIA's multi-storage client, which is told of the store by a file."""
        options = self.s3_options()
        profile = {
            "storage_provider": {
                "type": "s3",
                "options": {
                    "base_path": self.s3.removeprefix("s3://").partition("/")[0],
                    "endpoint_url": self.endpoint,
                    "region_name": options["region_name"],
                },
            },
            "credentials_provider": {
                "type": "S3Credentials",
                "options": {
                    "access_key": options["aws_access_key_id"],
                    "secret_key": options["aws_secret_access_key"],
                },
            },
        }
        path = Path(self.cache) / "msc.json"
        path.write_text(json.dumps({"profiles": {"bench": profile}}))
        os.environ["MSC_CONFIG"] = str(path)
        return f"msc://bench/{self.s3.removeprefix('s3://').partition('/')[2]}"


def remote() -> Remote | None:
    """Of this process; None: it reads from a disk."""
    text = os.environ.get(VARIABLE)
    return None if text is None else Remote(**json.loads(text))
