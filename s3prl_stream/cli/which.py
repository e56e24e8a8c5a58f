"""List the clips of one global batch. SET may be the output folder of pretrain: then it is a batch of that run, as it
was or will be trained on, with the run's own settings. (If its sets lie elsewhere now, name them after it.)
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from s3prl_stream.cli.stream_options import add_stream_options, stream_from
from s3prl_stream.errors import UsageError

if TYPE_CHECKING:
    from s3prl_stream.loader import Loader


_OF_A_RUN = ("command", "set", "batch", "html", "json", "default_of")
"""What may be said of a run; everything else is in its settings."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_stream_options(parser)
    parser.add_argument("--batch", type=int, required=True, help="global number of the batch, from 0")
    parser.add_argument(
        "--html", metavar="FILE", help="write a page that plays or draws the clips, of a run after each stage"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(default_of=parser.get_default)


def run(args: argparse.Namespace) -> int:
    """Print one line for each stretch of the batch."""
    rows = loader_of(args).which(args.batch, html=args.html)
    for one in rows:
        if args.json:
            print(json.dumps(one))
        else:
            place = f"{one['shard']} at byte {one['offset']} ({one['size']} bytes)"
            stretch = f"frames {one['first_frame']} + {one['num_frames']}  epoch {one['epoch']}"
            print(f"{one['set']}  {one['key']}  {stretch}  {place}")
    if not rows:
        print(f"batch {args.batch}: empty; all of it is left out, which a page (--html) lists", file=sys.stderr)
    if args.html is not None:
        tell_of_page(args.html, rows)
    return 0


def tell_of_page(page: str, rows: Sequence[object]) -> None:
    """One line on stderr."""
    size = Path(page).stat().st_size / 1e6
    print(f"{page}: {len(rows)} clips, {size:.1f} MB; open it in a browser", file=sys.stderr)


def loader_of(args: argparse.Namespace) -> Loader:
    """Of the run, or of the stream that the options describe.

    Raises:
        UsageError: no such folder, or options that a run has in its settings.
    """
    from s3prl_stream.stores.store import is_remote, local_path

    first = args.set[0]
    if not is_remote(first) and "{" not in first and not local_path(first).is_dir():
        raise UsageError(
            f"{first}: no such folder; give that of a set, or the output folder of `s3prl-stream pretrain`"
        )
    from s3prl_stream.loader import Loader
    from s3prl_stream.recipes.run_folder import SETTINGS
    from s3prl_stream.shards.npy import FRAMES_PER_SECOND

    if (Path(args.set[0]) / SETTINGS).is_file():
        from s3prl_stream.recipes.run_streams import loader_of_run

        said = [name for name, value in vars(args).items() if name not in _OF_A_RUN and value != args.default_of(name)]
        if said:
            option = {"neighbours": "run"}.get(said[0], said[0]).replace("_", "-")
            raise UsageError(f"{args.set[0]}: a run has its own settings; leave out --{option}")
        return loader_of_run(args.set[0], args.set[1:])
    stream = stream_from(args)
    if args.html is None:
        return Loader(stream)
    is_of_features = FRAMES_PER_SECOND in stream.shards.columns()
    return Loader(stream.load_feat() if is_of_features else stream.load_audio(sample_rate=None))
