"""The command line: `s3prl-stream COMMAND ...`.

One module per command, with `add_options(parser)`, `run(args) -> int` and a docstring, which `--help` shows. Only the
module of the command that was asked for is imported, so `s3prl-stream --help` and `s3prl-stream inspect` start without
torch.

Exit status: 0 done, 1 a problem was found (damaged files, different losses, an unusable shard), 2 wrong use,
130 interrupted, 141 the reader of our output went away.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

COMMANDS = {
    "pack": "pack a corpus, a folder of audio or a manifest into shards",
    "index": "index WebDataset tars made elsewhere, where they lie",
    "inspect": "show what a set of shards holds",
    "verify": "look for damage in a set, quickly or byte for byte",
    "repair": "write a set without its damaged samples",
    "subset": "write a part of a set as a set: hours, a share, a condition",
    "plan": "plan an epoch and show padding, fill, repeats and speakers per batch",
    "which": "list the clips of one global batch",
    "view": "write a page that plays one global batch",
    "pretrain": "pretrain an encoder on a set",
    "report": "draw loss, rate, throughput and reconstructions of a run",
    "train": "train for a task on an upstream",
    "evaluate": "score a trained run on a set",
    "sweep": "train and score a grid: upstreams, heads, amounts, noises, seeds",
    "predict": "text, class, speaker score or RTTM of files",
    "search": "look for spoken queries in spoken documents",
    "extract": "write an upstream's hidden states to a set of shards",
    "export": "write a run of pretrain as a checkpoint of S3PRL",
    "probe": "measure frozen features with a linear probe",
    "chaos-serve": "a proxy that injects the faults of object stores",
    "quickstart": "run the main job once, on the sample set or on your own audio",
}
"""Command -> the line that `--help` shows. The order is that of a working day."""

_FOUND_A_PROBLEM, _WRONG_USE, _INTERRUPTED, _READER_GONE = 1, 2, 130, 141
_EXPLAINED_BY_THE_SYSTEM = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EMFILE),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FIRST_SPEAKS_FOR_ALL_SECONDS = 5.0


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line that ends with what to do next."""

    def error(self, message: str) -> NoReturn:
        text = " ".join(message.split())
        self.exit(_WRONG_USE, f"{self.prog}: {text}{'' if text.endswith('.') else '.'} See `{self.prog} --help`.\n")


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser of the whole program, with the options of `command` only; None: of no command."""
    from s3prl_stream import __version__

    parser = OneLineParser(
        prog="s3prl-stream", description="Pack speech once into shards, stream them exactly, pretrain, probe."
    )
    parser.add_argument("--version", action="version", version=f"s3prl-stream {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        one = subparsers.add_parser(name, help=summary)
        if name == command:
            module = importlib.import_module(f"s3prl_stream.cli.{name.replace('-', '_')}")
            one.description = module.__doc__
            one.set_defaults(run=module.run)
            module.add_options(one)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status. Errors that a person can mend are one line on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in arguments if not word.startswith("-")), None)
    from s3prl_stream.errors import StreamError, UsageError
    from s3prl_stream.launcher import speaks

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    if speaks():
        if (encoding := sys.getfilesystemencoding()) != "utf-8":  # a locale of old, or LC_ALL=C with PYTHONUTF8=0
            print(
                f"s3prl-stream: Python reads names of files as {encoding} here: those with other letters are refused, "
                "or make keys unlike those made elsewhere. Set PYTHONUTF8=1.",
                file=sys.stderr,
            )
        logging.getLogger("s3prl_stream").setLevel(logging.INFO)
        if logging.lastResort is not None:
            logging.lastResort.setLevel(logging.INFO)
    try:
        args = _parsed(build_parser(command), arguments)
        status = int(args.run(args))
        if sys.stdout is not None:  # as it is where a process was started without one
            sys.stdout.flush()
    except UsageError as error:
        return _complain(error, _WRONG_USE)
    except StreamError as error:
        return _complain(error, _FOUND_A_PROBLEM)
    except KeyboardInterrupt:
        print("s3prl-stream: interrupted.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit; without this it would print the error we keep quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE
    except OSError as error:
        if error.errno not in _EXPLAINED_BY_THE_SYSTEM:
            _let_the_first_speak()
            raise
        if error.errno in _FULL:
            where = error.filename or "a file"
            return _complain(
                f"{where}: {error.strerror}. Make room, and give the same command again.", _FOUND_A_PROBLEM
            )
        return _complain(error, _FOUND_A_PROBLEM)
    except Exception:
        _let_the_first_speak()  # where it has failed, the others lose their connection to it
        raise
    return status


def named(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that are called as the arguments for which they are: name -> value."""
    return {name: getattr(args, name) for name in names}


class Setting(NamedTuple):
    """An option that is short for a setting, as `add_settings` takes them by the names of the settings."""

    option: str
    kind: Any
    """Its type, or its choices."""
    metavar: str | None
    help: str


def add_settings(parser: argparse.ArgumentParser, settings: Mapping[str, Setting]) -> None:
    """Add an option for each."""
    for name, (option, kind, metavar, text) in settings.items():
        values: dict[str, Any] = {"choices": kind} if isinstance(kind, tuple) else {"type": kind}
        parser.add_argument(option, dest=name, metavar=metavar, help=text, **values)


def add_assignments(parser: argparse.ArgumentParser, text: str) -> None:
    """Add --set, for all settings; `text` says so."""
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], dest="assignments", help=text)


def given_settings(args: argparse.Namespace, settings: Mapping[str, Setting]) -> dict[str, Any]:
    """Those that were given: name -> value."""
    return {name: value for name in settings if (value := getattr(args, name)) is not None}


def _parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """As `parse_args`, but a word too many is a matter of the command."""
    args, too_many = parser.parse_known_args(arguments)
    if too_many:
        parser.prog = f"{parser.prog} {args.command}"
        options, others = ([word for word in words if word.startswith("-")] for words in (arguments, too_many))
        are_behind = bool(options) and len(others) < len(too_many)
        hint = "; files and sets stand before the options" if are_behind else ""
        parser.error(f"unrecognized arguments: {' '.join(too_many)}{hint}")
    return args


def _let_the_first_speak() -> None:
    """The first rank says what is wrong with all; torchrun then ends the others."""
    from s3prl_stream.launcher import speaks

    if not speaks():
        time.sleep(_FIRST_SPEAKS_FOR_ALL_SECONDS)


def _complain(error: Exception | str, status: int) -> int:
    _let_the_first_speak()
    text = " ".join(str(error).split())
    print(f"s3prl-stream: {text}", file=sys.stderr)
    return status
