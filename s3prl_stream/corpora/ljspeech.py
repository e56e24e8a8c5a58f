"""LJSpeech and voices in its layout: metadata.csv with id|text|normalized text, and wavs/ID.wav.

K. Ito, L. Johnson, "The LJ Speech dataset", 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from s3prl_stream.corpora.audio_files import audio_by_stem
from s3prl_stream.corpora.corpus import Corpus, options_checked
from s3prl_stream.corpora.splits import root_folder
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance
from s3prl_stream.tables import needed, read_rows, renamed


@options_checked
def ljspeech(root: str | Path) -> Iterator[Utterance]:
    """Utterances in the order of metadata.csv; any audio format will do.

    Metadata: text; normalized_text where there is a third column.

    Args:
        root: the folder with metadata.csv and wavs/.

    Raises:
        UsageError: no such folder or table, a row without an id or with that of an earlier one, or audio
            that has no row. A row whose audio is missing
            becomes an utterance that packing reports.
    """
    root = root_folder(root, "metadata.csv and wavs/")
    audio = audio_by_stem(root_folder(root / "wavs", "the audio of LJSpeech"), str(root / "wavs"))
    return _utterances(root, audio)


def _utterances(root: Path, audio: dict[str, Path]) -> Iterator[Utterance]:
    listed = set()
    for row in read_rows(root / "metadata.csv", header=False):
        key = needed(row, "id")
        if key in listed:
            raise UsageError(f"{row.where}: {key!r} is the id of an earlier row, too. Keep one of them.")
        listed.add(key)
        metadata = renamed(row, {"text": "text", "normalized_text": "normalized_text"})
        yield Utterance(key, audio.get(key, root / "wavs" / f"{key}.wav"), **metadata)
    strangers = sorted(audio.keys() - listed)
    if strangers:
        raise UsageError(
            f"{root / 'metadata.csv'} has no row for {len(strangers)} of the {len(audio)} files in wavs/, the first is "
            f"{audio[strangers[0]].name}. Add the rows, or move the files away."
        )


LJSPEECH = Corpus(ljspeech, "LJSpeech, or a voice in its layout", "folder with metadata.csv and wavs/")
