"""RIRS_NOISES: room impulse responses, real and simulated, and noises.

T. Ko et al., "A study on data augmentation of reverberant speech for robust speech recognition", ICASSP 2017. Layout:
ROOT/{simulated_rirs,real_rirs_isotropic_noises,pointsource_noises}/**/*.wav with files rir_list and noise_list among
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from s3prl_stream.corpora.audio_files import audio_below
from s3prl_stream.corpora.corpus import Corpus, Option, options_checked
from s3prl_stream.corpora.lists import by_name, read_lines
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance

_PARTS = ("simulated_rirs", "real_rirs_isotropic_noises", "pointsource_noises")
_NAMES = {"--rir-id": "rir", "--noise-id": "noise", "--room-id": "room", "--room-linkage": "room",
          "--noise-type": "noise_type", "--bg-fg-type": "ground", "--rt-60": "rt60", "--drr": "drr"}  # fmt: skip


@options_checked
def rirs(
    root: str | Path, part: str | Sequence[str] | None = None, *, label: str | Sequence[str] | None = None
) -> Iterator[Utterance]:
    """Responses and noises of one or several parts, sorted; the key is the path below ROOT.

    Real responses have several channels, of which packing takes one (--channel). Metadata: part; label ("rir",
    "noise"), rir or noise (its id), room, noise_type, ground ("foreground", "background") and others as far as a
    rir_list or noise_list has them.

    Args:
        root: the folder RIRS_NOISES.
        part: simulated_rirs, real_rirs_isotropic_noises, pointsource_noises; None: all there are.
        label: "rir" or "noise"; None: both, and what is in no list.

    Raises:
        UsageError: no such folder or part, a label that is neither, a line of a list that is none, or two that
            say different things of one file.
    """
    root = root_folder(root, "simulated_rirs and pointsource_noises")
    found = [name for name in _PARTS if (root / name).is_dir()]
    parts = chosen(root, found, part, "part", default_all=True, such_as="simulated_rirs/")
    labels = None if label is None else chosen("RIRS_NOISES", ("rir", "noise"), label, "label")
    return (one for one in _files(root, parts) if labels is None or one.metadata.get("label") in labels)


def _files(root: Path, parts: Sequence[str]) -> Iterator[Utterance]:
    for part in parts:
        listed = by_name(line for file in sorted((root / part).rglob("*_list")) for line in _listed(file))
        below = {f"{part}/{path}" for path in audio_below(root / part)}
        for path in sorted(below | listed.keys()):
            key = path.rpartition(".")[0]
            yield Utterance(key, root / path, None, None, part=part, **listed.get(path, {}))


def _listed(file: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(file and line, path below ROOT, what the list says of it)."""
    expected = "--NAME VALUE ... RIRS_NOISES/PATH"
    for where, fields in read_lines(file, 3, expected=expected):
        *options, path = fields
        if len(options) % 2 or not all(name.startswith("--") for name in options[::2]):
            raise UsageError(f"{where}: {' '.join(fields)[:80]!r} is not {expected}.")
        about = {_NAMES[name]: value for name, value in zip(options[::2], options[1::2], strict=True) if name in _NAMES}
        about["label"] = "rir" if "rir" in about else "noise"
        yield where, path.removeprefix("RIRS_NOISES/"), about


RIRS = Corpus(
    rirs,
    "RIRS_NOISES: room impulse responses and noises",
    "folder RIRS_NOISES",
    (
        Option("part", ", ".join(_PARTS), "names", metavar="PART"),
        Option("label", "rir or noise (default: both)", "names", metavar="LABEL"),
    ),
)
