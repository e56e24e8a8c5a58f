"""The corpora of SUPERB: speakers, commands, intents, emotions, queries."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from corpora import layouts
from corpora.trees import column, listed, tree

from s3prl_stream import corpora
from s3prl_stream.corpora.speechcommands import split_of
from s3prl_stream.errors import UsageError


def test_voxceleb1_identification_has_the_published_split(tmp_path: Path) -> None:
    root = layouts.voxceleb1(tmp_path)
    found = listed(corpora.voxceleb1(root))
    assert column(found, "split") == {
        "id10001-aaa-00001": "train", "id10001-b-b-00001": "valid", "id10002-ccc-00002": "test",
        "id10270-_dd-00001": "train", "id10271-eee-00001": "valid",
    }  # fmt: skip
    assert found["id10001-b-b-00001"].metadata == {
        "speaker": "id10001", "label": "id10001", "video": "b-b", "split": "valid", "gender": "M",
        "nationality": "Ireland",
    }  # fmt: skip
    assert list(listed(corpora.voxceleb1(root, split="test"))) == ["id10002-ccc-00002"]
    assert corpora.voxceleb1(root).files == {}


def test_voxceleb1_verification_brings_its_trials_as_keys(tmp_path: Path) -> None:
    root = layouts.voxceleb1(tmp_path)
    corpus = corpora.voxceleb1(root, "sv")
    assert corpus.files["trials.txt"] == (
        b"1 id10270-_dd-00001 id10270-_dd-00001\n0 id10270-_dd-00001 id10271-eee-00001\n"
    )
    # codes 1 and 3 without the test speakers train, code 2 validates; the 40 speakers test whatever their code is
    assert list(column(listed(corpus), "split").values()) == ["train", "valid", "train", "test", "test"]
    assert corpora.voxceleb1(root, "sv", split="train").files == {}
    (root / "iden_split.txt").unlink()
    tree(root, "dev/wav/id10269/x/1.wav test/wav/id10309/x/1.wav dev/wav/id10310/x/1.wav")
    splits = column(listed(corpora.voxceleb1(root, "sv")), "split")
    assert list(splits.values()) == ["train", "train", "train", "train", "test", "test", "test", "train"]
    with pytest.raises(UsageError, match=r"iden_split\.txt: no such file"):
        corpora.voxceleb1(root, "sid")
    (root / "veri_test.txt").write_text("0 id10270/_dd/00001.wav id10270/_dd/00001.wav\n")
    assert len(corpora.voxceleb1(root, "sv").files["trials.txt"].splitlines()) == 2  # the cleaned list
    (root / "veri_test2.txt").write_text("2 id10270/_dd/00001.wav id10270/_dd/00001.wav\n")
    with pytest.raises(UsageError, match=r"veri_test2\.txt, line 1: '2' is neither 1 nor 0"):
        corpora.voxceleb1(root, "sv")
    (root / "veri_test2.txt").write_text("1 id10270/_dd/00001.wav id10270/gone/00001.wav\n")
    with pytest.raises(UsageError, match=r"veri_test2\.txt, line 1: id10270/gone/00001\.wav is not below"):
        corpora.voxceleb1(root, "sv")


def test_voxceleb1_says_what_does_not_fit(tmp_path: Path) -> None:
    root = layouts.voxceleb1(tmp_path)
    (root / "dev/wav/id10001/aaa/00001.wav").unlink()
    for task in ("sid", "sv"):
        missing = listed(corpora.voxceleb1(root, task))["id10001-aaa-00001"]
        assert missing.audio.endswith("dev/wav/id10001/aaa/00001.wav")
    tree(root, "dev/wav/id10003/zzz/00001.wav")
    with pytest.raises(UsageError, match=r"does not have 1 of the files, such as id10003-zzz-00001"):
        corpora.voxceleb1(root)
    for line in ("4 id10001/aaa/00001.wav", "1 id10001/00001.wav"):
        (root / "iden_split.txt").write_text(f"{line}\n")
        with pytest.raises(UsageError, match=f"line 1: {line} is not 1, 2 or 3 and"):
            corpora.voxceleb1(root)
    with pytest.raises(UsageError, match="no audio of VoxCeleb1"):
        corpora.voxceleb1(root / "dev/wav")


def test_speechcommands_splits_speakers_as_the_published_lists_do() -> None:
    # validation_list.txt of version 2 has right/a69b9b3e_nohash_0.wav, testing_list.txt backward/0c540988_nohash_0.wav
    assert (split_of("a69b9b3e_nohash_0.wav"), split_of("0c540988_nohash_0.wav")) == ("valid", "test")
    assert split_of("a69b9b3e_nohash_4.wav") == "valid"
    splits = Counter(split_of(f"{number:08x}_nohash_0.wav") for number in range(20_000))
    assert splits["valid"] == pytest.approx(2000, abs=150)  # a tenth each, within 3.5 standard deviations
    assert splits["test"] == pytest.approx(2000, abs=150)


def test_speechcommands_has_twelve_classes(tmp_path: Path) -> None:
    found = listed(corpora.speechcommands(layouts.speechcommands(tmp_path)))
    words = {key: one for key, one in found.items() if one.metadata["label"] != "_silence_"}
    assert column(words, "label") == {
        "bed/026290a7_nohash_0": "_unknown_", "bed/0c40e715_nohash_0": "_unknown_", "no/0132a06d_nohash_3": "no",
        "yes/00176480_nohash_0": "yes", "yes/0132a06d_nohash_3": "yes",
    }  # fmt: skip
    assert words["bed/0c40e715_nohash_0"].metadata["word"] == "bed"
    assert column(words, "split")["bed/0c40e715_nohash_0"] == "test"
    assert column(words, "speaker")["no/0132a06d_nohash_3"] == "0132a06d"
    silence = [one for key, one in found.items() if key not in words]
    assert [(one.start_seconds, one.end_seconds) for one in silence] == [(0, 1), (1, 2), (2, 3)]
    every_word = listed(corpora.speechcommands(tmp_path, classes="all"))
    assert column(every_word, "label")["bed/026290a7_nohash_0"] == "bed"
    assert every_word.keys() == words.keys()


def test_speechcommands_takes_the_test_set_that_was_published_apart(tmp_path: Path) -> None:
    root = layouts.speechcommands(tmp_path / "train")
    test = layouts.speechcommands_test(tmp_path / "test")
    found = listed(corpora.speechcommands(root, ["test"], test_root=test))
    assert len(found) == 12
    assert column(found, "label")["test/_silence_/0c40e715_nohash_0"] == "_silence_"
    assert column(found, "word")["test/_unknown_/0c40e715_nohash_0"] is None
    assert [key for key, speaker in column(found, "speaker").items() if speaker is None] == [
        "test/_silence_/0c40e715_nohash_0"
    ]
    everything = listed(corpora.speechcommands(root, test_root=test))
    assert "bed/0c40e715_nohash_0" not in everything  # in the hash's test part: the test set holds it again
    assert "yes/00176480_nohash_0" in everything
    assert not [key for key in listed(corpora.speechcommands(root, "train", test_root=test)) if key.startswith("test/")]
    with pytest.raises(UsageError, match="no folder up"):
        corpora.speechcommands(root, test_root=root)
    tree(root, {"_background_noise_/pink_noise.wav": b"text"})
    with pytest.raises(UsageError, match=r"pink_noise\.wav: libsndfile refuses"):
        list(corpora.speechcommands(root))


def test_fluentspeechcommands_has_three_slots(tmp_path: Path) -> None:
    root = layouts.fluentspeechcommands(tmp_path)
    found = listed(corpora.fluentspeechcommands(root))
    assert found["x-1"].metadata == {
        "speaker": "A1", "text": "Turn it on, please", "action": "activate", "object": "lights", "location": "none",
        "split": "train",
    }  # fmt: skip
    assert column(found, "split") == {"x-1": "train", "x-2": "train", "x-3": "test"}
    with pytest.raises(UsageError, match=r"no split 'valid'. It has: train, test"):
        corpora.fluentspeechcommands(root, "valid")
    (root / "data/test_data.csv").write_text(",path,speakerId,transcription,action,object\n0,a.wav,S,T,x,y\n")
    with pytest.raises(UsageError, match=r"test_data\.csv, line 2: no column 'location' in the table. It has: , path"):
        list(corpora.fluentspeechcommands(root, "test"))


def test_audiosnips_has_a_tag_for_each_word(tmp_path: Path) -> None:
    root = layouts.audiosnips(tmp_path)
    found = listed(corpora.audiosnips(root))
    assert list(found) == ["Ivy-snips-train-0", "Amy-snips-valid-3"]  # Aditi is no voice of the train split
    assert found["Ivy-snips-train-0"].metadata == {
        "text": "PLAY SOME BJ\u00d6RK NOW", "iob": "O O B-artist O", "intent": "PlayMusic", "speaker": "Ivy",
        "split": "train",
    }  # fmt: skip
    assert column(found, "text")["Amy-snips-valid-3"] == "IT 'S OK"
    assert len(listed(corpora.audiosnips(root, all_speakers=True))) == 3
    for tags, said in (("O O Go", "1 tags"), ("O O O O Go", "3 tags")):
        (root / "all.iob.snips.txt").write_text(f"Ivy-snips-train-0 BOS a b EOS\t{tags}\n")
        with pytest.raises(UsageError, match=f"line 1: 2 words between BOS and EOS, {said}"):
            list(corpora.audiosnips(root, "train"))
    with pytest.raises(UsageError, match=r"no line for .*Amy-snips-valid-3\.mp3"):
        list(corpora.audiosnips(root, "valid"))


def test_audiosnips_has_the_voices_of_superb(tmp_path: Path) -> None:
    voices = {
        "train": ["Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"],
        "valid": ["Aditi", "Amy", "Geraint", "Nicole"],
        "test": ["Brian", "Emma", "Raveena", "Russell"],
    }
    everybody = [voice for some in voices.values() for voice in some]
    names = [f"{split}/{voice}-snips-{split}-0.wav" for split in voices for voice in everybody]
    lines = "".join(f"{Path(name).stem} BOS go EOS\tO O Go\n" for name in names)
    root = tree(tmp_path, {**dict.fromkeys(names, b""), "all.iob.snips.txt": lines})
    found = {split: list(column(listed(corpora.audiosnips(root, split)), "speaker").values()) for split in voices}
    assert found == voices


def test_iemocap_folds_are_filters(tmp_path: Path) -> None:
    root = layouts.iemocap(tmp_path)
    found = listed(corpora.iemocap(root))
    assert column(found, "label") == {
        "Ses01F_impro01_F000": "neu", "Ses01F_impro01_M000": "hap", "Ses05M_script01_1_F002": "ang"
    }  # fmt: skip
    first = dict(found["Ses01F_impro01_F000"].metadata)
    assert first.pop("fifth") == 3  # for good: folds of yesterday are those of tomorrow
    assert first == {
        "label": "neu", "emotion": "neu", "text": "Excuse me.", "speaker": "Ses01F", "gender": "F", "session": 1,
        "act": "impro", "dialog": "Ses01F_impro01", "valence": 2.5, "activation": 3.0, "dominance": 1.5,
    }  # fmt: skip
    assert column(found, "speaker")["Ses05M_script01_1_F002"] == "Ses05F"
    assert column(found, "act")["Ses05M_script01_1_F002"] == "script"
    labels = column(listed(corpora.iemocap(root, "all")), "label")
    assert (labels["Ses01F_impro01_M001"], labels["Ses01F_impro01_M000"]) == ("xxx", "exc")
    tree(root, "Session6/sentences/wav/x/y.wav")
    assert len(listed(corpora.iemocap(root))) == 3
    tree(root, "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F009.wav")
    with pytest.raises(UsageError, match="no evaluation of Ses01F_impro01_F009"):
        list(corpora.iemocap(root))
    (root / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt").unlink()
    with pytest.raises(UsageError, match=r"impro01\.txt: no such file. Every dialog of IEMOCAP has one"):
        list(corpora.iemocap(root))


def test_quesst14_shares_documents_and_brings_what_scores(tmp_path: Path) -> None:
    root = layouts.quesst14(tmp_path)
    corpus = corpora.quesst14(root)
    assert list(corpus.files) == ["groundtruth_quesst14_dev-quesst14_dev.rttm"]
    found = listed(corpus)
    assert column(found, "split") == {
        "quesst14_00001": "docs", "quesst14_00002": "docs", "quesst14_dev_0001": "dev", "quesst14_eval_0001": "eval"
    }  # fmt: skip
    assert all(Path(one.audio).is_file() for one in found.values())
    english = listed(corpora.quesst14(root, ["docs", "dev"], language="nnenglish"))
    assert list(english) == ["quesst14_00001", "quesst14_dev_0001"]
    with pytest.raises(UsageError, match=r"no language 'czech'. It has: albanian, nnenglish"):
        corpora.quesst14(root, language="czech")
    flat = tree(tmp_path / "flat", {"notes.txt": "not of the scoring"})
    for file in (root / "scoring").glob("*.lst"):
        (flat / file.name).write_bytes(file.read_bytes())
    assert corpora.quesst14(flat).files == {}
    (root / "scoring/groundtruth_quesst14_dev-quesst14_dev.rttm").write_text("of another day")
    with pytest.raises(UsageError, match=r"dev/quesst14_dev.rttm and .*dev-quesst14_dev.rttm would both become the"):
        corpora.quesst14(root)
    (root / "scoring/language_key_dev.lst").write_text("dev_queries/quesst14_dev_0001.wav nnenglish more\n")
    with pytest.raises(UsageError, match=r"language_key_dev\.lst, line 1: more than FOLDER"):
        corpora.quesst14(root)
    (root / "scoring/language_key_dev.lst").unlink()
    with pytest.raises(UsageError, match=r"language_key_dev\.lst: no such file"):
        corpora.quesst14(root)
