"""ESC-50, and ESC-10 in it: environmental sounds of 5 seconds, in five folds.

K. J. Piczak, "ESC: dataset for environmental sound classification", ACM Multimedia 2015. Layout: ROOT/audio/*.wav,
ROOT/meta/esc50.csv.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from s3prl_stream.corpora.corpus import Corpus, Option, options_checked
from s3prl_stream.corpora.splits import root_folder
from s3prl_stream.sample import Utterance
from s3prl_stream.tables import needed, read_rows, whole_number


@options_checked
def esc50(root: str | Path, *, esc10: bool = False) -> Iterator[Utterance]:
    """Clips in the order of the table.

    Metadata: label (such as "dog"), fold (1 to 5), esc10 (bool), source (the recording at freesound.org it was cut
    from; clips of one source are in one fold).

    Args:
        root: the folder with audio/ and meta/.
        esc10: only the ten classes of ESC-10.

    Raises:
        UsageError: no such folder or table, or a table without one of its columns.
    """
    root = root_folder(root, "audio/ and meta/esc50.csv")
    return _clips(root, esc10)


def _clips(root: Path, esc10: bool) -> Iterator[Utterance]:
    for row in read_rows(root / "meta" / "esc50.csv"):
        name = needed(row, "filename")
        about = {"label": needed(row, "category"), "source": needed(row, "src_file")}
        of_ten = needed(row, "esc10").lower() == "true"
        if of_ten or not esc10:
            audio = root / "audio" / name
            yield Utterance(audio.stem, audio, None, None, **about, fold=whole_number(row, "fold"), esc10=of_ten)


ESC50 = Corpus(
    esc50,
    "ESC-50 and ESC-10: environmental sounds",
    "folder with audio/ and meta/",
    (Option("esc10", "only the ten classes of ESC-10", "flag"),),
)
