"""`pretrain` goes on without the batches of a loss spike and without a bad clip."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from damage import pack_clips
from page_of_batch import Page
from small_recipes import TINY, TINY_WORDS

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.errors import TooManyFailures
from s3prl_stream.recipes.tera import TERA
from s3prl_stream.trainer.checkpoint import load_state, newest_checkpoint
from s3prl_stream.trainer.damage_log import DamageLog
from s3prl_stream.trainer.losslog import read_losses


def test_a_run_goes_on_without_some_batches_and_clips(
    sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["pretrain", "tera", "--data", str(sample_set), "--out", str(run), *TINY_WORDS.split(), "--json"]
    assert main([*words, "--steps", "4"]) == 0
    planned = ss.Loader(TERA.stream(sample_set, max_batch_seconds=10.0, crop_seconds=3.0))
    bad, other = planned.which(7)[0], planned.which(9)[0]
    (tmp_path / "bad.txt").write_text(f"{json.dumps(bad)}\n\n{other['key']}\n")
    capsys.readouterr()

    def leaving_out(steps: int) -> dict[str, Any]:
        more = ["--skip-batches", "5-6", "--skip-batches", "8", "--exclude", str(tmp_path / "bad.txt")]
        assert main([*words, "--steps", str(steps), *more]) == 0
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    skipped = sum(len(planned.which(batch)) for batch in (5, 6, 8))
    assert leaving_out(10)["left_out"] == skipped + 2
    lines = read_losses(run)
    assert [line["step"] - 1 for line in lines if not line["applied"]] == [5, 6, 8]
    assert [line["seconds"] for line in lines if not line["applied"]] == [0.0] * 3
    recorded = load_state(newest_checkpoint(run))["loader"]["left_out"]
    assert recorded["skipped"] == [[5, 6], [8, 8]]
    assert leaving_out(11)["first_step"] == 10  # the same command again: it is recorded already
    assert load_state(newest_checkpoint(run))["loader"]["left_out"] == recorded

    def which(*more: str) -> list[dict[str, Any]]:
        assert main(["which", str(run), "--json", *more]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert which("--batch", "9") == [row for row in planned.which(9) if row["key"] not in (bad["key"], other["key"])]
    assert which("--batch", "2") == planned.which(2)  # before they were left out
    assert which("--batch", "5") == []
    assert main(["which", str(run), "--batch", "6"]) == 0
    assert capsys.readouterr().err.startswith("batch 6: empty; all of it is left out")
    assert len(which("--batch", "13", "--html", str(tmp_path / "13.html"))) == len(planned.which(13))  # still to come
    assert list(Page(tmp_path / "13.html").clips[0]["steps"]) == ["read", "load_audio", "norm_wav", "features", "mask"]
    for words, said in (
        ([str(run), "--seed", "1"], "a run has its own settings; leave out --seed"),
        ([str(run), "--run", "2"], "leave out --run"),
        ([str(run), str(other_set(tmp_path))], "give those of the run"),
    ):
        assert main(["which", *words, "--batch", "1"]) == 2
        assert said in capsys.readouterr().err


def other_set(folder: Path) -> Path:
    pack_clips(folder / "set")
    return folder / "set"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--skip-batches", "three"], "--skip-batches three: give a number"),
        (["--skip-batches", "9-3"], "9 to 3 is no range of batches"),
        (["--exclude", "other.txt"], "1 of 1 clips are in no index"),
        (["--exclude", "no-such-file"], "no-such-file: cannot be read"),
        (["--exclude", "keys.txt"], "'{\"key\": 3}' is no line of `which --json`"),
    ],
)
def test_mistakes_are_told_in_one_line(
    sample_set: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.txt").write_text("no-such-clip\n")
    (tmp_path / "keys.txt").write_text('{"key": 3}\n')
    command = ["pretrain", "tera", "--data", str(sample_set), "--out", "run", *TINY_WORDS.split(), "--steps", "1"]
    assert main([*command, *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_damaged_clips_are_listed_and_told_and_not_kept_in_memory(
    sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = shutil.copytree(sample_set, tmp_path / "rotten"), tmp_path / "run"
    for shard in folder.glob("*.tar"):
        content = bytearray(shard.read_bytes())
        for place in range(60_000, len(content), 150_000):
            content[place] ^= 0xFF
        shard.write_bytes(content)
    loader = ss.Loader(TERA.stream(folder, max_batch_seconds=10.0, crop_seconds=3.0))
    batches = iter(loader)
    for _ in range(8):
        next(batches)
    most = []
    take = DamageLog.take
    monkeypatch.setattr(DamageLog, "take", lambda log, rows: (most.append(len(rows)), take(log, rows)))
    words = ["pretrain", "tera", "--data", str(folder), "--out", str(run), *TINY_WORDS.split()]
    assert main([*words, "--steps", "8"]) == 0
    said = capsys.readouterr()
    listed = [json.loads(line) for line in (run / "damaged.jsonl").read_text().splitlines()]
    assert listed == loader.damaged
    assert len(listed) > max(most) > 0
    assert f", {len(listed)} clips could not be used (damaged.jsonl)" in said.out
    told = f"{run}/damaged.jsonl lists clips that cannot be used; the first: {listed[0]['message']}"
    assert said.err.count(told) == 1


def test_damage_is_listed_where_it_ends_the_run(sample_set: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sample_set, tmp_path / "rotten")
    for shard in folder.glob("*.tar"):
        shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(TooManyFailures):
        ss.pretrain("tera", folder, steps=99, out=tmp_path / "run", max_batch_seconds=10.0, **TINY)
    assert len((tmp_path / "run/damaged.jsonl").read_text().splitlines()) > 100


def test_each_rank_lists_its_damage_in_a_file_of_its_own(tmp_path: Path) -> None:
    rows = [{"key": "a"}, {"key": "b"}]
    log = DamageLog(tmp_path, 3, quiet=True)
    log.take(rows)
    log.close()
    assert (tmp_path / "damaged-3.jsonl").read_text() == '{"key": "a"}\n{"key": "b"}\n'
    assert (rows, log.num_clips) == ([], 2)
