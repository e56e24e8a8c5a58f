"""The feature cache: the same losses, each utterance computed once, a limit that holds, damage that costs time only."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from downstream.synthetic import classes
from full_disk import files_of_at_most
from open_files import open_below
from torch import Tensor

import s3prl_stream as ss
from s3prl_stream.downstream.feature_cache import CacheKey, FeatureCache
from s3prl_stream.downstream.model import DownstreamModel
from s3prl_stream.heads import build_head
from s3prl_stream.tasks import UtteranceClassification
from s3prl_stream.upstreams import Upstream
from s3prl_stream.upstreams.upstream import fingerprint_of


class Counting(Upstream):
    """An upstream of two hidden states, longer than what is valid of them, that counts the utterances it is given."""

    stride = 160
    hidden_size = 80
    num_layers = 1

    def __init__(self) -> None:
        super().__init__()
        self.inner = ss.upstream("logmel80")
        self.scale = torch.nn.Parameter(torch.ones(80))
        self.utterances = 0

    def forward(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        self.utterances += len(wavs)
        feat = torch.nn.functional.pad(self.inner(wavs, lengths)[0], (0, 0, 0, 2), value=9.0)
        return [feat, feat * self.scale]

    def num_frames(self, lengths: Any) -> Tensor:
        return self.inner.num_frames(lengths)


def run(out: Path, upstream: Upstream, **settings: Any) -> list[float]:
    ss.train("ks", classes(), upstream=upstream, out=out, steps=12, device="cpu", quiet=True, **settings)
    return [json.loads(line)["loss"] for line in (out / "losses.jsonl").read_text().splitlines()]


def test_cached_features_change_nothing_and_are_computed_once(tmp_path: Path) -> None:
    """Over ten epochs and over two runs; batches of five clips, which meet others each epoch."""
    plain, first, second = Counting(), Counting(), Counting()
    settings = {"max_batch_size": 5, "balance": False, "valid_where": "part == 'test'", "evaluate_every": 6}
    wanted = run(tmp_path / "plain", plain, **settings)
    assert run(tmp_path / "first", first, cache=tmp_path / "cache", **settings) == wanted
    assert run(tmp_path / "second", second, cache=tmp_path / "cache", **settings) == wanted
    assert (first.utterances, second.utterances) == (12, 0)
    assert plain.utterances > 36
    half = Counting()
    run(tmp_path / "half", half, cache=tmp_path / "cache", precision="bf16", **settings)
    assert 0 < half.utterances < 12  # those that are trained on, which float32 must not get from here either


def test_pieces_of_one_recording_are_told_apart_and_random_stretches_are_not_kept(tmp_path: Path) -> None:
    """A stretch that was cut at random may be one sample longer or shorter: resampling rounds."""
    upstream = Counting()
    task = UtteranceClassification(label="word", categories=["a", "b"])
    head = build_head("linear", level="utterance", input_size=80, output_size=2)
    model = DownstreamModel(upstream, head, task)
    model.use_cache(FeatureCache(tmp_path, "abc"), {"s": "data"}, random_samples=3000)

    def states_of(first_frames: list[int], length: int) -> tuple[Tensor, Tensor]:
        wav = torch.randn(2, length, generator=torch.Generator().manual_seed(0))
        numbers = {"wav_len": torch.tensor([length] * 2), "first_frame": torch.tensor(first_frames)}
        found = model.hidden_states({"key": ["k", "k"], "set": ["s", "s"], "wav": wav, **numbers})[0][0]
        return found, upstream.inner(wav)[0]

    for _ in range(2):
        found, expected = states_of([0, 1600], 1600)
        assert torch.equal(found, expected)
    assert upstream.utterances == 2
    for length in (2999, 3000, 3001):
        states_of([0, 5000], length)
        states_of([0, 5000], length)
    assert upstream.utterances == 2 + 3 * 4


def test_two_sets_of_one_name_are_not_taken_for_each_other(tmp_path: Path) -> None:
    """The clips of one would get the features of the other's where key and length are the same."""
    others = [{**one, "wav": one["wav"][::-1].copy()} for one in classes()._samples]
    settings: dict[str, Any] = {"balance": False, "evaluate_every": 6, "cache": tmp_path / "cache"}
    with pytest.raises(ss.UsageError, match="two different sets are called 'memory'"):
        run(tmp_path / "run", Counting(), valid=ss.MemoryShards(others), **settings)
    backwards = Counting()
    run(tmp_path / "run", backwards, valid=ss.MemoryShards(others, "backwards"), **settings)
    assert backwards.utterances == 24


def key(number: int) -> CacheKey:
    return CacheKey("data", f"clip{number}", 0, 1600)


def test_features_come_back_bit_by_bit_also_in_another_process_s_cache(tmp_path: Path) -> None:
    states = torch.randn(3, 7, 5)
    cache = FeatureCache(tmp_path, "abc")
    assert cache.get(key(0)) is None
    cache.put(key(0), states)
    again = FeatureCache(tmp_path, "abc")
    for one in (cache, again):
        found = one.get(key(0))
        assert found is not None
        assert torch.equal(found, states)
        assert one.get(key(0)._replace(data="packed anew")) is None
        assert one.get(key(0)._replace(num_samples=1601)) is None
    again.put(key(1), states * 2)  # into a part of its own
    assert sorted(path.name for path in (tmp_path / "abc").glob("*.bin")) == ["part-00000.bin", "part-00001.bin"]
    assert len(FeatureCache(tmp_path, "abc")) == 2


def test_a_disk_that_is_full_before_the_limit_is_told_and_what_is_whole_stays(tmp_path: Path) -> None:
    states = torch.zeros(1, 100, 25)  # 10 kB
    cache = FeatureCache(tmp_path, "abc")
    cache.put(key(0), states)
    with files_of_at_most(15_000), pytest.raises(ss.UsageError, match=r"abc: cannot be written .* lower its limit"):
        cache.put(key(1), states)
    assert (cache.get(key(0)) is None, cache.get(key(1)) is None) == (False, True)
    cache.put(key(1), states + 1)
    for one in (cache, FeatureCache(tmp_path, "abc")):
        found = one.get(key(1))
        assert found is not None
        assert torch.equal(found, states + 1)


def test_the_limit_holds_and_other_upstreams_make_room(tmp_path: Path) -> None:
    states = torch.zeros(1, 100, 25)  # 10 kB
    old = FeatureCache(tmp_path, "old", max_gigabytes=35e-6)
    for number in range(5):
        old.put(key(number), states)
    assert len(old) == 3
    new = FeatureCache(tmp_path, "new", max_gigabytes=35e-6)
    for number in range(5):
        new.put(key(number), states)
    assert len(new) == 3
    assert not (tmp_path / "old").exists()
    assert old.get(key(0)) is not None  # who has its files open reads on
    total = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert 30_000 < total < 35_000 + 1_000


def test_as_many_others_make_room_as_it_takes_and_nothing_is_kept_twice(tmp_path: Path) -> None:
    for seconds, name in enumerate(("used", "oldest", "older")):
        FeatureCache(tmp_path, name, max_gigabytes=35e-6).put(key(0), torch.zeros(1, 100, 25))
        os.utime(tmp_path / name, (seconds, seconds))
    assert FeatureCache(tmp_path, "used", max_gigabytes=35e-6).get(key(0)) is not None  # so it is not the oldest
    new = FeatureCache(tmp_path, "new", max_gigabytes=35e-6)
    for _ in range(2):
        new.put(key(0), torch.zeros(1, 200, 25))  # 20 kB, of which 5 kB are free
        assert len(new) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "used"]
    assert next((tmp_path / "new").glob("*.bin")).stat().st_size == 20_000
    again = FeatureCache(tmp_path, "new", max_gigabytes=35e-6)
    for number in (1, 2):
        again.put(key(number), torch.zeros(1, 100, 25))  # with "used" gone there is room for one
    assert len(again) == 2
    assert len(FeatureCache(tmp_path, "new")) == 2  # its own made no room


def test_what_is_no_cache_is_never_deleted(tmp_path: Path) -> None:
    """A folder with other things in it may be named; room is made of features alone, and they alone are counted."""
    (tmp_path / "corpus/part-00000").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name in ("corpus/one.wav", "corpus/part-00000.bin", "notes.txt"):
        (tmp_path / name).write_bytes(bytes(100_000))
    old = FeatureCache(tmp_path, "old", max_gigabytes=35e-6)
    old.put(key(0), torch.zeros(1, 100, 25))
    (tmp_path / "old/kept.txt").write_text("who put this here?")
    FeatureCache(tmp_path / "corpus", "elsewhere").put(key(0), torch.zeros(1, 100, 25))
    (tmp_path / "linked").symlink_to(tmp_path / "corpus/elsewhere")
    before = sorted(tmp_path.rglob("*"))
    new = FeatureCache(tmp_path, "new", max_gigabytes=1e-9)
    new.put(key(0), torch.zeros(1, 100, 25))
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "new"])
    with pytest.raises(ss.UsageError, match="limit of -1 GB"):
        FeatureCache(tmp_path, "new", max_gigabytes=-1)


def test_a_folder_that_another_process_deletes_is_made_again(tmp_path: Path) -> None:
    one, other = FeatureCache(tmp_path, "one", max_gigabytes=15e-6), FeatureCache(tmp_path, "other")
    one.put(key(0), torch.zeros(1, 100, 25))
    tight = FeatureCache(tmp_path, "tight", max_gigabytes=15e-6)
    (tmp_path / "other").rmdir()
    tight.put(key(0), torch.zeros(1, 100, 25))
    other.put(key(1), torch.ones(1, 2, 3))
    assert not (tmp_path / "one").exists()
    assert len(FeatureCache(tmp_path, "other")) == 1


def test_runs_close_their_caches_and_keep_no_random_stretches(tmp_path: Path) -> None:
    """Files that stay open would end a long sweep; a stretch that is cut at random never comes again."""
    for longest in ("crop_seconds", "max_batch_seconds"):
        cut: dict[str, Any] = {longest: 0.22, "max_batch_size": 5, "balance": False}
        run(tmp_path / longest, Counting(), cache=tmp_path / "of" / longest, **cut)
        assert open_below(tmp_path / "of") == []
    (tmp_path / "not-a-run").mkdir()
    (tmp_path / "not-a-run/notes.txt").touch()
    with pytest.raises(ss.UsageError, match=r"not-a-run: holds"):
        run(tmp_path / "not-a-run", Counting(), cache=tmp_path / "of/crop_seconds")
    assert open_below(tmp_path / "of") == []
    for longest in ("crop_seconds", "max_batch_seconds"):
        kept = FeatureCache(tmp_path / "of" / longest, fingerprint_of(Counting()))
        assert len(kept) == 3  # the clips of 0.20 s are whole; those of 0.22 s as good as
    assert len(open_below(tmp_path / "of")) == 2


def test_a_set_is_judged_from_the_cache_and_each_noise_has_features_of_its_own(tmp_path: Path) -> None:
    run(tmp_path / "run", Counting(), balance=False)
    computed = []
    quiet, loud = ({"noise": "gaussian", "snr": (ratio, ratio)} for ratio in (20.0, 0.0))
    for noise in ({}, {}, quiet, quiet, loud):
        upstream, settings = Counting(), {"device": "cpu", **noise}
        found = ss.evaluate(tmp_path / "run", classes(), upstream=upstream, cache=tmp_path / "cache", **settings)
        computed.append(upstream.utterances)
        assert found == ss.evaluate(tmp_path / "run", classes(), upstream=Counting(), **settings)
    assert computed == [12, 0, 12, 0, 12]
    assert open_below(tmp_path / "cache") == []
    full: dict[str, Any] = {"device": "cpu", "cache": tmp_path / "full", "cache_gigabytes": 0.0}
    ss.evaluate(tmp_path / "run", classes(), upstream=Counting(), **full)
    assert not list((tmp_path / "full").rglob("*.bin"))
    run(tmp_path / "tuned", Counting(), finetune=True)
    with pytest.raises(ss.UsageError, match="tuned: cache: its upstream was trained"):
        ss.evaluate(tmp_path / "tuned", classes(), upstream=Counting(), **full)


def test_damage_costs_the_entry_alone(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "abc")
    for number in range(3):
        cache.put(key(number), torch.full((1, 4, 2), float(number)))
    cache.close()
    data, lines = tmp_path / "abc/part-00000.bin", tmp_path / "abc/part-00000.jsonl"
    damaged = bytearray(data.read_bytes())
    damaged[40] ^= 1  # of the second
    data.write_bytes(damaged)
    lines.write_bytes(lines.read_bytes()[:-5])  # a kill in the middle of the last line
    again = FeatureCache(tmp_path, "abc")
    found = [again.get(key(number)) for number in range(3)]
    assert [one is None for one in found] == [False, True, True]
    again.put(key(1), torch.ones(1, 4, 2))  # computed anew once, not in each epoch
    assert again.get(key(1)) is not None
    again.close()
    for path in (tmp_path / "abc").glob("part-00001.*"):
        path.unlink()
    data.write_bytes(damaged[:40])
    assert len(FeatureCache(tmp_path, "abc")) == 1
    line = lines.read_bytes().splitlines(keepends=True)[0]
    places = [(b'"offset": 0', b'"offset":-1'), (b"[1, 4, 2]", b"[1,-4, 2]"), (b'"crc32c": ', b'"crc32c": 1e9')]
    damaged_places = [line.replace(*place) for place in places]
    for garbage in (b"\0\0\0\n", b"{}\n", b"[1]\n", b"\xff\n", *damaged_places):
        lines.write_bytes(garbage + lines.read_bytes())
    again = FeatureCache(tmp_path, "abc")
    assert len(again) == 1
    assert again.get(key(0)) is not None
    lines.write_bytes(b"".join(damaged_places))
    assert len(FeatureCache(tmp_path, "abc")) == 0
    data.unlink()
    assert len(FeatureCache(tmp_path, "abc")) == 0


def test_what_the_disk_cannot_read_is_computed_anew_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    cache = FeatureCache(tmp_path, "abc")
    for number in range(2):
        cache.put(key(number), torch.zeros(1, 4, 2))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        assert [cache.get(key(number)) for number in range(2)] == [None, None]
        patch.setattr(Path, "read_bytes", fail)
        assert len(FeatureCache(tmp_path, "abc")) == 0
    told = f"cache {tmp_path}/abc: cannot be read (Input/output error); what is in it is computed anew"
    assert caplog.messages == [told, told]  # by each of the two
    assert FeatureCache(tmp_path, "abc").get(key(0)) is not None


def test_features_are_not_given_for_those_of_a_clip_whose_name_was_damaged_into_theirs(tmp_path: Path) -> None:
    FeatureCache(tmp_path, "abc").put(key(0), torch.zeros(1, 4, 2))
    lines = tmp_path / "abc/part-00000.jsonl"
    lines.write_bytes(lines.read_bytes().replace(b"clip0", b"clip1"))
    assert FeatureCache(tmp_path, "abc").get(key(1)) is None


def test_the_fingerprint_is_of_weights_and_settings() -> None:
    one, two = Counting(), Counting()
    assert fingerprint_of(one) == fingerprint_of(Counting())
    two.scale.data[3] += 1e-6
    assert fingerprint_of(one) != fingerprint_of(two)
    within = Counting()
    within.inner = ss.upstream("fbank80")  # as wide, and without weights
    assert fingerprint_of(one) != fingerprint_of(within)
    names = ("logmel80", "fbank80", "spectrogram")
    assert len({fingerprint_of(ss.upstream(name)) for name in names}) == 3


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ss.UsageError, match="is a file"):
        FeatureCache(tmp_path / "file", "abc")
