"""Every corpus packs from its layout, on the command line, with all its audio in the set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpora import layouts

from s3prl_stream.cli import main
from s3prl_stream.corpora import CORPORA
from s3prl_stream.shards.shardset import open_shards

# corpus -> (options, samples, a column of the index and the number of its values)
EXPECTED = {
    "librispeech": (["--split", "dev-clean,test-clean"], 3, ("speaker", 2)),
    "librilight": (["--split", "small,10h", "--voice-seconds", "15"], 17, ("speaker", 15)),
    "voxpopuli": (["--language", "en,de"], 3, ("language", 2)),
    "ljspeech": ([], 2, ("text", 2)),
    "voxceleb1": (["--task", "sv"], 5, ("split", 3)),
    "speechcommands": (["--split", "train,valid,test"], 8, ("label", 4)),
    "fluentspeechcommands": ([], 3, ("action", 3)),
    "audiosnips": (["--all-speakers"], 3, ("intent", 3)),
    "iemocap": (["--emotions", "all"], 4, ("label", 4)),
    "quesst14": ([], 4, ("language", 2)),
    "commonvoice": (["--split", "train"], 3, ("language", 2)),
    "librimix": (["--split", "train-100,test"], 3, ("num_speakers", 2)),
    "musan": ([], 4, ("label", 3)),
    "rirs": ([], 5, ("label", 2)),
    "esc50": (["--esc10"], 1, ("label", 1)),
    "fsd50k": ([], 3, ("split", 3)),
    "kaldi": ([], 3, ("speaker", 2)),
    "lhotse": ([], 2, ("text", 2)),
}
ELSEWHERE = {"folder", "huggingface", "manifest", "rttm"}
"""Of no fixed layout: packed from real recordings in test_real_corpora.py, and in test_data_sets.py."""


def test_every_corpus_is_packed_here() -> None:
    assert {corpus.name for corpus in CORPORA} == EXPECTED.keys() | ELSEWHERE


@pytest.mark.parametrize("name", EXPECTED)
def test_corpus_packs_from_its_layout(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, samples, (column, num_values) = EXPECTED[name]
    root = getattr(layouts, name)(tmp_path / "corpus")
    status = main(["pack", name, str(root), str(tmp_path / "set"), "--workers", "0", "--json", *options])
    shown = capsys.readouterr()
    assert status == 0, shown.err
    report = json.loads(shown.out)
    assert (report["samples"], report["damaged"]) == (samples, [])
    values = open_shards(tmp_path / "set").table().column(column).drop_null().unique()
    assert len(values) == num_values
