"""Text, class, labels or RTTM of each file; of speaker verification the score of each pair."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from s3prl_stream.cli.run_there import need_run
from s3prl_stream.errors import SampleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from s3prl_stream.downstream.model import DownstreamModel
    from s3prl_stream.tasks import Answer, Task


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trained", metavar="RUN", help="output folder of `train`, or a checkpoint in it")
    parser.add_argument("files", metavar="FILE", nargs="*", help="audio files, or folders of them")
    parser.add_argument("--data", metavar="SET", action="append", help="a packed set instead of files")
    parser.add_argument("--where", metavar="EXPR", help="clips of it, as in \"split == 'test'\"")
    parser.add_argument("--device", help="cpu, cuda ... (default: the GPU if there is one)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(args: argparse.Namespace) -> int:
    """0 when all is answered; 1 if some clips could not be read."""
    from s3prl_stream.shards.selection import compile_selection
    from s3prl_stream.shards.shardset import open_shards

    if bool(args.files) == bool(args.data):
        raise UsageError("predict: give audio files, or --data SET")
    if args.files and args.where is not None:
        raise UsageError("predict: --where selects clips of --data SET; files are named one by one")
    need_run(args.trained, "train")
    files = list(_files_in(args.files))
    shards = open_shards(args.data) if args.data else None  # a wrong path is told before torch is imported
    from s3prl_stream.downstream.evaluate import load_run, predict

    model = load_run(args.trained, device=args.device)
    reasons: list[str] = []
    if shards is None:
        answers = list(_answers_to_files(model, files, args.device, reasons))
    else:
        answers = predict(model, shards, where=args.where, device=args.device)
    for line in _json_lines(answers) if args.json else _lines(model.task, answers):
        print(line)
    asked = len(files) if shards is None else len(compile_selection(shards, where=args.where))
    unread = asked - len(answers)
    if unread:
        told = "clips could not be read; `s3prl-stream verify --full` lists them"
        if shards is None:
            told = "\n  ".join(["files could not be read", *reasons])
        print(f"{unread} of {asked} {told}", file=sys.stderr)
    return 1 if unread else 0


def _answers_to_files(
    model: DownstreamModel, files: Sequence[str], device: str | None, reasons: list[str]
) -> Iterator[Answer]:
    """A damaged file costs itself: why it has no answer goes to `reasons`."""
    from s3prl_stream.downstream.evaluate import predict

    for file in files:
        try:
            yield from predict(model, [file], device=device)
        except SampleError as error:
            reasons.append(str(error))


def _files_in(paths: Sequence[str]) -> Iterator[str]:
    from s3prl_stream.corpora.audio_files import AUDIO_SUFFIXES, audio_below

    for path in map(Path, paths):
        if path.is_dir():
            inside = [str(path / name) for name in audio_below(path)]
            if not inside:
                raise UsageError(f"{path}: no audio in this folder ({' '.join(AUDIO_SUFFIXES)})")
            yield from inside
        elif path.is_file():
            yield str(path)
        else:
            raise UsageError(f"{path}: there is no such file or folder")


def _json_lines(answers: Sequence[Answer]) -> Iterator[str]:
    for one in answers:
        answer = one.answer.tolist() if hasattr(one.answer, "tolist") else one.answer
        yield json.dumps({"set": one.set, "key": one.key, "answer": answer})


def _lines(task: Task, answers: Sequence[Answer]) -> Iterator[str]:
    if task.level == "embedding":
        if len(answers) < 2:
            raise UsageError("predict: speaker verification compares; give at least two files")
        for first, second in itertools.combinations(answers, 2):
            yield f"{first.key}\t{second.key}\t{float(first.answer @ second.answer):.4f}"
        return
    yield from (task.show(one.answer, one.key) for one in answers)
