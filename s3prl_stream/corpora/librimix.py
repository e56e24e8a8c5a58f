"""LibriMix: two or three readers of LibriSpeech at once, with and without noise.

J. Cosentino et al., "LibriMix: an open-source dataset for generalizable speech separation", arXiv 2005.11262. Layout:
ROOT/SPLIT/MIX/UTTERANCE_UTTERANCE.wav, where ROOT is such as Libri2Mix/wav16k/max.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from s3prl_stream.corpora.corpus import SPLIT, Corpus, Option, options_checked
from s3prl_stream.corpora.lists import by_name
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.corpora.turns import Segments, read_rttm
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance


@options_checked
def librimix(
    root: str | Path,
    split: str | Sequence[str] | None = None,
    *,
    mix: str = "mix_clean",
    rttm: str | Path | Sequence[str | Path] = (),
) -> Iterator[Utterance]:
    """Mixtures of one or several splits, sorted.

    Metadata: split, num_speakers, speakers (their numbers, in the order of the sources), and segments where RTTM files
    are given: who speaks when, by speaker. The scripts of LibriMix and S3PRL make such files, and Kaldi directories
    (`kaldi` with `recordings` reads those).

    Args:
        root: a folder with the splits in it, such as Libri2Mix/wav16k/max.
        split: such as train-100, dev, test; None takes the only one there is.
        mix: mix_clean, mix_both, mix_single.
        rttm: file or files.

    Raises:
        UsageError: no such folder, split or mix, or a mixture of which the RTTM files say nothing, or two
            of them different things.
    """
    root = root_folder(root, "the splits of LibriMix, such as Libri2Mix/wav16k/max")
    found = [path.name for path in sorted(root.iterdir()) if any(path.glob(f"{mix}/*.wav"))]
    wanted = chosen(root, found, split, "split", such_as=f"train-100/{mix}/*.wav")
    files = [rttm] if isinstance(rttm, str | Path) else list(rttm)
    turns = by_name((str(file), mixture, found) for file in files for mixture, found in read_rttm(Path(file)).items())
    return _mixtures(root, wanted, mix, turns if files else None)


def _mixtures(root: Path, splits: Sequence[str], mix: str, turns: Mapping[str, Segments] | None) -> Iterator[Utterance]:
    for split in splits:
        for audio in sorted((root / split / mix).glob("*.wav")):
            speakers = [utterance.partition("-")[0] for utterance in audio.stem.split("_")]
            about: dict[str, Any] = {"split": split, "speakers": speakers, "num_speakers": len(set(speakers))}
            if turns is not None:
                if audio.stem not in turns:
                    raise UsageError(f"{audio}: the RTTM files say nothing of it. Give those of split {split!r}.")
                about["segments"] = turns[audio.stem]
            yield Utterance(audio.stem, audio, **about)


LIBRIMIX = Corpus(
    librimix,
    "LibriMix: mixtures of readers",
    "folder with the splits, such as Libri2Mix/wav16k/max",
    (
        SPLIT,
        Option("mix", "default: mix_clean", choices=("mix_clean", "mix_both", "mix_single")),
        Option("rttm", "RTTM files: who speaks when", "names", metavar="FILE"),
    ),
)
