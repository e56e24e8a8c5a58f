"""Common Voice, and sound without speech: ESC-50, FSD50K, MUSAN, RIRS_NOISES."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from corpora import layouts
from corpora.trees import column, listed, tree

from s3prl_stream import corpora
from s3prl_stream.errors import UsageError


def test_commonvoice_by_language_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = layouts.commonvoice(tmp_path)
    found = listed(corpora.commonvoice(root, "train"))
    assert list(found) == ["common_voice_en_1", "common_voice_en_2", "common_voice_zh-CN_1"]
    assert found["common_voice_en_1"].metadata == {
        "text": '"Quoted, he said.', "speaker": "abc", "language": "en", "split": "train", "age": "twenties",
        "gender": "F", "accent": "Scottish", "up_votes": 2, "down_votes": 0,
    }  # fmt: skip
    assert Path(found["common_voice_en_2"].audio).is_file()  # its row has no .mp3
    (other,) = corpora.commonvoice(root, ["test"], language="en")
    assert (other.metadata["gender"], other.metadata["language"]) == ("non-binary", "en-GB")
    (one,) = corpora.commonvoice(root / "zh-CN")
    assert (one.metadata["language"], one.metadata["text"]) == ("zh-CN", "\u4f60\u597d")
    lines = (root / "zh-CN/train.tsv").read_text()
    (root / "zh-CN/train.tsv").write_text(lines.replace("\tlocale", "\tother").replace("\t2\t0", "\tmany\t0"))
    monkeypatch.chdir(root / "zh-CN")
    (one,) = corpora.commonvoice(".", language="zh-CN")
    assert (one.metadata["language"], one.metadata["down_votes"]) == ("zh-CN", 0)
    assert "up_votes" not in one.metadata  # it is no number
    for written, gender in (("male", "M"), ("male_masculine", "M"), ("female", "F")):
        (root / "en/test.tsv").write_text((root / "en/train.tsv").read_text().replace("female_feminine", written))
        assert next(iter(corpora.commonvoice(root, "test", language="en"))).metadata["gender"] == gender


def test_commonvoice_has_six_splits(tmp_path: Path) -> None:
    root = layouts.commonvoice(tmp_path)
    for split in ("dev", "validated", "invalidated", "other"):
        (root / f"en/{split}.tsv").write_bytes((root / "en/test.tsv").read_bytes())
        (one,) = corpora.commonvoice(root / "en", split)
        assert one.metadata["split"] == split


def test_commonvoice_mistakes(tmp_path: Path) -> None:
    root = layouts.commonvoice(tmp_path)
    with pytest.raises(UsageError, match=r"zh-CN has no split 'test'. It has: train"):
        corpora.commonvoice(root, "test")
    with pytest.raises(UsageError, match=r"no language 'de'. It has: en, zh-CN"):
        corpora.commonvoice(root, "train", language="de")
    with pytest.raises(UsageError, match="several splits"):
        corpora.commonvoice(root, language="en")
    (root / "en/train.tsv").write_text("client_id\tpath\na\tb.mp3\n")
    with pytest.raises(UsageError, match=r"train\.tsv, line 2: no column 'sentence' in the table. It has: client_id"):
        list(corpora.commonvoice(root, "train", language="en"))
    with pytest.raises(UsageError, match="no language in here, such as en/clips/, or clips/"):
        corpora.commonvoice(root / "en/clips")


def test_esc50_and_the_ten_classes_in_it(tmp_path: Path) -> None:
    root = layouts.esc50(tmp_path)
    found = listed(corpora.esc50(root))
    assert found["1-100032-A-0"].metadata == {"label": "dog", "fold": 1, "esc10": True, "source": "100032"}
    assert column(found, "esc10") == {"1-100032-A-0": True, "1-100038-A-14": False}
    assert list(listed(corpora.esc50(root, esc10=True))) == ["1-100032-A-0"]
    table = (root / "meta/esc50.csv").read_text()
    (root / "meta/esc50.csv").write_text(re.sub(r"(wav,)\d", r"\1one", table, count=1))
    with pytest.raises(UsageError, match=r"line 2: fold is 'one', expected a whole number"):
        list(corpora.esc50(root))
    (root / "meta/esc50.csv").write_text("filename,fold\nx.wav,1\n")
    with pytest.raises(UsageError, match="no column 'category'"):
        list(corpora.esc50(root))


def test_fsd50k_has_several_labels_a_clip(tmp_path: Path) -> None:
    root = layouts.fsd50k(tmp_path)
    found = listed(corpora.fsd50k(root))
    assert column(found, "split") == {"64760": "train", "16399": "valid", "37199": "test"}
    assert found["64760"].metadata["labels"] == ["Electric_guitar", "Guitar", "Music"]
    assert column(found, "num_labels") == {"64760": 3, "16399": 1, "37199": 2}
    assert list(listed(corpora.fsd50k(root, "valid"))) == ["16399"]
    table = root / "FSD50K.ground_truth/dev.csv"
    lines = table.read_text()
    table.write_text(lines.replace(",val", ",vald"))
    with pytest.raises(UsageError, match=r"dev\.csv, line 3: split 'vald' is neither train nor val"):
        list(corpora.fsd50k(root, "train"))
    table.write_text(lines)
    tree(root, "FSD50K.dev_audio/1.wav")
    with pytest.raises(UsageError, match=r"no row for 1 files of .*, such as 1\."):
        list(corpora.fsd50k(root, "train"))
    (root / "FSD50K.eval_audio/37199.wav").unlink()
    assert not Path(listed(corpora.fsd50k(root, "test"))["37199"].audio).exists()


def test_musan_by_kind(tmp_path: Path) -> None:
    root = tree(layouts.musan(tmp_path), {"speech/librivox/ANNOTATIONS": "speech-librivox-0000 m N\n",
                                          "music/hd/a.wav": "", "music/hd/ANNOTATIONS": "a baroque B\n"})  # fmt: skip
    found = listed(corpora.musan(root))
    assert column(found, "label") == {
        "music-fma-0000": "music", "music-fma-0001": "music", "a": "music", "speech-librivox-0000": "speech",
        "noise-free-sound-0000": "noise",
    }  # fmt: skip
    assert found["music-fma-0000"].metadata == {
        "label": "music", "source": "fma", "annotation": "rock,pop Y the_b\u00e1nd", "vocals": True
    }  # fmt: skip
    assert column(found, "vocals")["music-fma-0001"] is False
    assert column(found, "vocals")["speech-librivox-0000"] is None
    assert column(found, "vocals")["a"] is None  # neither Y nor N
    assert list(listed(corpora.musan(root, ["noise"]))) == ["noise-free-sound-0000"]
    with pytest.raises(UsageError, match=r"no kind 'noises'. It has: music, speech, noise"):
        corpora.musan(root, "noises")


def test_rirs_tell_responses_from_noises(tmp_path: Path) -> None:
    root = layouts.rirs(tmp_path)
    found = listed(corpora.rirs(root))
    assert column(found, "label") == {
        "simulated_rirs/smallroom/Room001/Room001-00001": "rir",
        "simulated_rirs/smallroom/Room001/Room001-00002": None,  # in no list
        "real_rirs_isotropic_noises/a_noise": "noise",
        "real_rirs_isotropic_noises/a_rir": "rir",
        "pointsource_noises/noise-free-sound-0000": "noise",
    }
    assert found["real_rirs_isotropic_noises/a_rir"].metadata == {
        "part": "real_rirs_isotropic_noises", "label": "rir", "rir": "00001", "room": "001", "rt60": "0.7"
    }  # fmt: skip
    assert column(found, "room")["real_rirs_isotropic_noises/a_noise"] == "001"
    assert len(list(corpora.rirs(root, label="rir"))) == 2
    assert len(list(corpora.rirs(root, ["pointsource_noises"], label="noise"))) == 1
    with pytest.raises(UsageError, match="no label 'rirs'"):
        corpora.rirs(root, label="rirs")
    (root / "real_rirs_isotropic_noises/a_rir.wav").unlink()
    assert len(list(corpora.rirs(root, label="rir"))) == 2  # what a list has and the folder has not, packing reports
    for line in ("--noise-id x y z.wav", "--noise-id x --room-id z.wav"):
        (root / "pointsource_noises/noise_list").write_text(f"{line}\n")
        with pytest.raises(UsageError, match=r"line 1: .* is not --NAME VALUE"):
            list(corpora.rirs(root))
