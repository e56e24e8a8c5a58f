"""A tree in the layout of each corpus, with its odd cases in it: what its published archives look like, in small.

Each function fills an empty folder and returns ROOT.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from corpora.trees import sound, tree


def librispeech(root: Path) -> Path:
    return tree(
        root,
        {
            "dev-clean/1/2/1-2-0000.flac": "",
            "dev-clean/1/2/1-2-0001.flac": "",
            "dev-clean/1/2/1-2.trans.txt": "1-2-0000 ONE TWO\n1-2-0001 THREE\n",
            "test-clean/3/4/3-4-0000.flac": "",
            "x/y": "",
            "SPEAKERS.TXT": b";ID |SEX| ...\n;ID |is a number\n1    | F | dev-clean | 8.0 | Ren\xe9\n",
        },
    )


VOICE = [[0.5, 8.0], [9.0, 14.0], [15.0, 40.0], [41.0, 42.0]]


def librilight(root: Path) -> Path:
    about = {"book_meta": {"title": "A b", "meta_genre": "Poetry"}, "snr": 5.5, "voice_activity": VOICE}
    silent = {"book_meta": None, "voice_activity": []}
    folds = {
        f"1h/{fold}/{part}/{speaker}/7/{speaker}-7-0001.flac": ""
        for fold in range(6)
        for part, speaker in (("clean", 10 + fold), ("other", 20 + fold))
    }
    return tree(
        root,
        {
            "small/960/a_book_64kb_mp3/one_64kb.flac": 43,
            "small/960/a_book_64kb_mp3/one_64kb.json": json.dumps(about),
            "small/960/a_book_64kb_mp3/two_64kb.flac": "",
            "small/960/a_book_64kb_mp3/two_64kb.json": json.dumps(silent),
            **folds,
            "1h/0/clean/10/7/10-7.trans.txt": "10-7-0001 ONE TWO\n",
            "9h/clean/30/7/30-7-0001.flac": "",
            "9h/other/31/7/31-7-0001.flac": "",
            "phones/x.txt": "",
            "SPEAKERS.TXT": "10 | F | train-clean-100 | 1 | N\n",
        },
    )


def ljspeech(root: Path) -> Path:
    table = 'LJ1-1|He said "1 at".|x\nLJ1-2|Dr. No|Doctor No\n'
    return tree(root, {"metadata.csv": table, "wavs/LJ1-1.wav": "", "wavs/LJ1-2.flac": "", "wavs/.x.wav": ""})


def voxpopuli(root: Path) -> Path:
    segments = "event_id\tsegment_no\tstart\tend\n" + "".join(
        f"{event}\t{number}\t{start}\t{start + 1.5}\n"
        for event, number, start in (
            ("20090505-0900-PLENARY-10_en", 0, 0.25),
            ("20090505-0900-PLENARY-10_en", 1, 2.0),
            ("20100101-0900-PLENARY_de", 0, 1.0),
            ("20100101-0900-PLENARY_fr", 0, 1.0),
        )
    )
    header = "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender\tis_gold_transcript\taccent\n"
    spoken = "20090505-0900-PLENARY-10-en_20090505-09:06:43"
    return tree(
        root,
        {
            "unlabelled_data/unlabelled_v2.tsv.gz": gzip.compress(segments.encode()),
            "unlabelled_data/en/2009/20090505-0900-PLENARY-10_en_0.ogg": "",
            "raw_audios/en/2009/20090505-0900-PLENARY-10_en.ogg": 4,
            "raw_audios/de/2010/20100101-0900-PLENARY_de.ogg": 3,
            "raw_audios/original/2010/20100101-0900-PLENARY_original.ogg": "",
            f"transcribed_data/en/2009/{spoken}_1.ogg": "",
            f"transcribed_data/en/2009/{spoken}_2.ogg": "",
            "transcribed_data/en/asr_train.tsv": header
            + f'{spoken}_1\tHe said "yes\the said yes\t77\ttrain\tfemale\tFalse\tNone\n',
            "transcribed_data/en/asr_test.tsv": header + f"{spoken}_2\t\tand no\tNone\ttest\tN/A\tFalse\tNone\n",
        },
    )


def voxceleb1(root: Path) -> Path:
    codes = (
        "1 id10001/aaa/00001.wav\n2 id10001/b-b/00001.wav\n3 id10002/ccc/00002.wav\n"
        "1 id10270/_dd/00001.wav\n2 id10271/eee/00001.wav\n"
    )
    return tree(
        root,
        {
            **dict.fromkeys((f"dev/wav/{line.split()[1]}" for line in codes.splitlines()[:3]), ""),
            **dict.fromkeys((f"test/wav/{line.split()[1]}" for line in codes.splitlines()[3:]), ""),
            "iden_split.txt": codes,
            "veri_test2.txt": "1 id10270/_dd/00001.wav id10270/_dd/00001.wav\n"
            "0 id10270/_dd/00001.wav id10271/eee/00001.wav\n",
            "vox1_meta.csv": "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
            "id10001\tA.J._Buckley\tm\tIreland\tdev\n",
        },
    )


def speechcommands(root: Path) -> Path:
    return tree(
        root,
        {
            "yes/00176480_nohash_0.wav": "",
            "yes/0132a06d_nohash_3.wav": "",
            "no/0132a06d_nohash_3.wav": "",
            "bed/0c40e715_nohash_0.wav": "",
            "bed/026290a7_nohash_0.wav": "",
            "_background_noise_/pink_noise.wav": 3.5,
            "_background_noise_/README.md": "",
            "validation_list.txt": "",
            "LICENSE": "",
        },
    )


def speechcommands_test(root: Path) -> Path:
    words = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "_unknown_", "_silence_")
    return tree(root, {f"{word}/0c40e715_nohash_0.wav": "" for word in words})


def fluentspeechcommands(root: Path) -> Path:
    header = ",path,speakerId,transcription,action,object,location\n"
    return tree(
        root,
        {
            "data/train_data.csv": header
            + '0,wavs/speakers/A1/x-1.wav,A1,"Turn it on, please",activate,lights,none\n'
            + "1,wavs/speakers/B2/x-2.wav,B2,Louder,increase,volume,none\n",
            "data/test_data.csv": header + "0,wavs/speakers/C3/x-3.wav,C3,Go,bring,shoes,none\n",
            **dict.fromkeys((f"wavs/speakers/{name}.wav" for name in ("A1/x-1", "B2/x-2", "C3/x-3")), ""),
        },
    )


def audiosnips(root: Path) -> Path:
    lines = (
        "Ivy-snips-train-0 BOS Play some Bj\u00f6rk , now EOS\tO O O B-artist O O PlayMusic\n"
        "Aditi-snips-train-0 BOS go EOS\tO O Go\n"
        "Amy-snips-valid-3 BOS it 's ok EOS\tO O O O RateBook\n"
    )
    names = "train/Ivy-snips-train-0.wav train/Aditi-snips-train-0.wav valid/Amy-snips-valid-3.mp3"
    return tree(tree(root, names), {"all.iob.snips.txt": lines, "slots.txt": "O\n"})


def iemocap(root: Path) -> Path:
    turns = {"Ses01F_impro01_F000": "neu", "Ses01F_impro01_M000": "exc", "Ses01F_impro01_M001": "xxx"}
    lines = "".join(
        f"[6.2901 - 8.2357]\t{turn}\t{emotion}\t[2.5000, 3.0000, 1.5000]\n" for turn, emotion in turns.items()
    )
    dialog = "Session1/sentences/wav/Ses01F_impro01"
    return tree(
        root,
        {
            **{f"{dialog}/{turn}.wav": "" for turn in turns},
            f"{dialog}/._Ses01F_impro01_F000.wav": b"\0\5\26\7",
            "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt": "% [START_TIME - END_TIME] TURN_NAME EMOTION\n"
            + lines + "C-E2:\tNeutral;\t()\n",
            "Session1/dialog/transcriptions/Ses01F_impro01.txt":
                b"Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\nM: [noise]\n" + b"\xe9\n",
            "Session5/sentences/wav/Ses05M_script01_1/Ses05M_script01_1_F002.wav": "",
            "Session5/dialog/EmoEvaluation/Ses05M_script01_1.txt":
                "[1.0 - 2.0]\tSes05M_script01_1_F002\tang\t[1.0, 4.0, 5.0]\n",
        },
    )  # fmt: skip


def quesst14(root: Path) -> Path:
    noise = sound(".wav", 1)
    return tree(
        root,
        {
            **{f"Audio/quesst14_{number:05d}.wav": noise for number in (1, 2)},
            "dev_queries/quesst14_dev_0001.wav": noise,
            "eval_queries/quesst14_eval_0001.wav": noise,
            "scoring/language_key_utterances.lst": "quesst14Database/Audio/quesst14_00001.wav nnenglish\n"
            "quesst14Database/Audio/quesst14_00002.wav albanian\n",
            "scoring/language_key_dev.lst": "quesst14Database/dev_queries/quesst14_dev_0001.wav nnenglish\n",
            "scoring/language_key_eval.lst": "eval_queries/quesst14_eval_0001.wav albanian\n",
            "scoring/groundtruth_quesst14_dev/quesst14_dev.rttm": "LEXEME quesst14_00001 1 0 1 quesst14_dev_0001\n",
        },
    )


def commonvoice(root: Path) -> Path:
    header = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\tlocale\tsegment\n"
    return tree(
        root,
        {
            "en/train.tsv": header
            + 'abc\tcommon_voice_en_1.mp3\t"Quoted, he said.\t2\t0\ttwenties\tfemale_feminine\tScottish\t\ten\t\n'
            + "def\tcommon_voice_en_2\tPlain.\t3\t1\t\t\t\t\ten\t\n",
            "en/test.tsv": header + "ghi\tcommon_voice_en_3.mp3\tMore.\t2\t0\t\tnon-binary\t\t\ten-GB\t\n",
            "en/clip_durations.tsv": "clip\tduration[ms]\n",
            **dict.fromkeys((f"en/clips/common_voice_en_{number}.mp3" for number in (1, 2, 3)), ""),
            "zh-CN/train.tsv": header + "jkl\tcommon_voice_zh-CN_1.mp3\t\u4f60\u597d\t2\t0\t\t\t\t\tzh-CN\t\n",
            "zh-CN/clips/common_voice_zh-CN_1.mp3": "",
        },
    )


def librimix(root: Path) -> Path:
    return tree(
        root,
        {
            "train-100/mix_clean/19-198-0000_26-495-0001.wav": 1,
            "train-100/mix_clean/19-198-0002_19-198-0003.wav": 1,
            "train-100/mix_both/19-198-0000_26-495-0001.wav": 1,
            "train-100/s1/19-198-0000_26-495-0001.wav": 1,
            "test/mix_clean/61-70968-0000_121-1-0001.wav": 1,
            "metadata/mixture_train-100_mix_clean.csv": "",
        },
    )


def musan(root: Path) -> Path:
    return tree(
        root,
        {
            "music/fma/music-fma-0000.wav": "",
            "music/fma/music-fma-0001.wav": "",
            "music/fma/ANNOTATIONS": "music-fma-0000 rock,pop Y the_b\u00e1nd\nmusic-fma-0001 ambient N someone\n",
            "speech/librivox/speech-librivox-0000.wav": "",
            "noise/free-sound/noise-free-sound-0000.wav": "",
            "noise/free-sound/ANNOTATIONS": "noise-free-sound-0001\n",
            "README": "",
        },
    )


def rirs(root: Path) -> Path:
    real, small, point = "real_rirs_isotropic_noises", "simulated_rirs/smallroom", "pointsource_noises"
    return tree(
        root,
        {
            f"{small}/Room001/Room001-00001.wav": "",
            f"{small}/Room001/Room001-00002.wav": "",
            f"{small}/rir_list": "--rir-id small-1 --room-id small-Room001 "
            f"RIRS_NOISES/{small}/Room001/Room001-00001.wav\n",
            f"{real}/a_rir.wav": "",
            f"{real}/a_noise.wav": "",
            f"{real}/rir_list": f"--rir-id 00001 --room-id 001 --rt-60 0.7 RIRS_NOISES/{real}/a_rir.wav\n",
            f"{real}/noise_list": "--noise-id iso1 --noise-type isotropic --room-linkage 001 "
            f"RIRS_NOISES/{real}/a_noise.wav\n",
            f"{point}/noise-free-sound-0000.wav": "",
            f"{point}/noise_list": "--noise-id n1 --noise-type point-source --bg-fg-type foreground "
            f"RIRS_NOISES/{point}/noise-free-sound-0000.wav\n",
        },
    )


def esc50(root: Path) -> Path:
    table = (
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n1-100038-A-14.wav,1,14,chirping_birds,False,100038,A\n"
    )
    return tree(tree(root, "audio/1-100032-A-0.wav audio/1-100038-A-14.wav"), {"meta/esc50.csv": table})


def fsd50k(root: Path) -> Path:
    return tree(
        root,
        {
            "FSD50K.ground_truth/dev.csv": "fname,labels,mids,split\n"
            '64760,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h,/m/04rlf",train\n16399,Bark,/m/0bt9lr,val\n',
            "FSD50K.ground_truth/eval.csv": 'fname,labels,mids\n37199,"Bark,Dog","/m/05tny_,/m/0bt9lr"\n',
            "FSD50K.ground_truth/vocabulary.csv": "0,Bark,/m/05tny_\n",
            "FSD50K.dev_audio/64760.wav": "",
            "FSD50K.dev_audio/16399.wav": "",
            "FSD50K.eval_audio/37199.wav": "",
        },
    )


def kaldi(root: Path) -> Path:
    return tree(
        root,
        {
            "audio/one.wav": 4,
            "audio/t w\u00f6.wav": 2,
            "wav.scp": "rec1 audio/one.wav\nrec2 audio/t w\u00f6.wav\n",
            "segments": "anna-1 rec1 0.5 1.5\nben-1 rec1 1.25 3.0\nanna-2 rec2 0 -1\n",
            "utt2spk": "anna-1 anna\nben-1 ben\nanna-2 anna\n",
            "spk2gender": "anna f\nben m\n",
            "text": "anna-1 good day\nben-1\nanna-2 \u00fcber  all\n",
            "utt2lang": "anna-1 en\nben-1 en\nanna-2 de\n",
        },
    )


def lhotse(root: Path) -> Path:
    def recording(name: str, **more: object) -> dict[str, object]:
        source = {"type": "file", "channels": [0], "source": f"audio/{name}.wav"}
        return {"id": name, "sources": [source], "sampling_rate": 8000, "num_samples": 16000, "duration": 2.0, **more}

    supervisions = [
        {"id": "s1", "recording_id": "a", "start": 0.5, "duration": 1.0, "channel": 0, "text": "one", "speaker": "x",
         "language": "English", "gender": "F", "custom": {"level": 3, "shard": "q"}},
        {"id": "s2", "recording_id": "b", "start": 0.0, "duration": 2.0, "channel": 0, "text": "two", "speaker": "y"},
    ]  # fmt: skip
    lines = ["".join(json.dumps(row) + "\n" for row in rows) for rows in (map(recording, "ab"), supervisions)]
    return tree(
        root,
        {
            "audio/a.wav": 2,
            "audio/b.wav": 2,
            "x_recordings_train.jsonl.gz": gzip.compress(lines[0].encode()),
            "x_supervisions_train.jsonl.gz": gzip.compress(lines[1].encode()),
        },
    )
