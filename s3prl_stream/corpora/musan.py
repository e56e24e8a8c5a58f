"""MUSAN: music, speech and noise.

D. Snyder, G. Chen, D. Povey, "MUSAN: a music, speech, and noise corpus", arXiv 1510.08484. Layout:
ROOT/{music,speech,noise}/SOURCE/*.wav with a file ANNOTATIONS in each folder of a source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from s3prl_stream.corpora.corpus import Corpus, Option, options_checked
from s3prl_stream.corpora.lists import texts_by_name
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.sample import Utterance

_KINDS = ("music", "speech", "noise")


@options_checked
def musan(root: str | Path, kind: str | Sequence[str] | None = None) -> Iterator[Utterance]:
    """Recordings of one or several kinds, sorted; many are minutes long (--split-seconds cuts them).

    Metadata: label (the kind), source (such as "free-sound"), annotation (what ANNOTATIONS says of it, where it does),
    vocals (bool, of music: somebody sings).

    Args:
        root: the folder with music, speech and noise.
        kind: "noise", say; None: all there are.

    Raises:
        UsageError: no such folder or kind, or a recording with two different annotations.
    """
    root = root_folder(root, "music, speech and noise")
    found = [name for name in _KINDS if any((root / name).glob("*/*.wav"))]
    return _recordings(root, chosen(root, found, kind, "kind", default_all=True, such_as="noise/free-sound/*.wav"))


def _recordings(root: Path, kinds: Sequence[str]) -> Iterator[Utterance]:
    for kind in kinds:
        for source in sorted(path for path in (root / kind).iterdir() if path.is_dir()):
            annotations = texts_by_name(source / "ANNOTATIONS", "NAME ANNOTATION") or {}
            for audio in sorted(source.glob("*.wav")):
                yield Utterance(audio.stem, audio, None, None, **_about(kind, source, annotations.get(audio.stem)))


def _about(kind: str, source: Path, annotation: str | None) -> dict[str, str | bool]:
    about: dict[str, str | bool] = {"label": kind, "source": source.name}
    if annotation:
        about["annotation"] = annotation
        fields = annotation.split()
        if kind == "music" and len(fields) > 1 and fields[1] in ("Y", "N"):  # genres, vocals, artist
            about["vocals"] = fields[1] == "Y"
    return about


MUSAN = Corpus(
    musan,
    "MUSAN: music, speech and noise",
    "folder with music, speech and noise",
    (Option("kind", "music, speech, noise (default: all)", "names", metavar="KIND"),),
)
