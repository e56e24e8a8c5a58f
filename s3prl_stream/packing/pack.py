"""`pack`: a corpus becomes a set of shards. The format is described in shards/README.md.

First a plan (`packplan.py`), then every shard by itself (`pack_shard.py`), by as many processes as there are, then
index and manifest (`finish.py`). The bytes depend on the corpus, the settings and the libraries' versions alone: not on
the number of processes, how often they were killed, the order in which the corpus is listed, or the folder it lies in.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from s3prl_stream.audio.source import Channel
from s3prl_stream.errors import StreamError, UsageError
from s3prl_stream.packing.engines import ENGINES, Engine, Processes, ThisProcess, ray_cluster
from s3prl_stream.packing.finish import NothingPacked, finish, nothing_packed
from s3prl_stream.packing.listing import Listing, list_utterances
from s3prl_stream.packing.outfolder import find_finished, name_of_folder, refuse_strangers, whole_left_out
from s3prl_stream.packing.pack_shard import ShardTask
from s3prl_stream.packing.packplan import PackPlan, make_plan, other_plan
from s3prl_stream.packing.settings import PackSettings
from s3prl_stream.packing.workfolder import (
    finished_shards,
    is_finished,
    local_clips,
    read_plan,
    remove_empty_folders,
    remove_unfinished,
    remove_work,
    write_plan,
)
from s3prl_stream.sample import Utterance
from s3prl_stream.shards.claims import BEAT_SECONDS, LEASE_SECONDS, POLL_SECONDS, Claims, new_owner
from s3prl_stream.shards.extra_files import entries_of, files_of
from s3prl_stream.shards.layout import MANIFEST, set_name
from s3prl_stream.shards.left_out import LeftOut
from s3prl_stream.shards.manifest import library_versions, origin_of
from s3prl_stream.shards.scratch import scratch_folder, writing_in
from s3prl_stream.shards.workers import Progress, Workers, check_num_workers, tell_nobody
from s3prl_stream.stores.store import Store, open_store
from s3prl_stream.stores.whole_files import explaining_writes

if TYPE_CHECKING:
    from s3prl_stream.shards.shardset import ShardSet

_PLAN, _FINISH = "plan", "finish"
"""What is claimed besides shards."""


class PackReport(NamedTuple):
    """What a set holds and what was left out of it."""

    url: str
    """Folder or URL of the set."""
    already_there: bool
    """The very same set was finished before; nothing was done."""
    manifest: dict[str, Any]
    left_out: list[LeftOut]

    @property
    def damaged(self) -> list[LeftOut]:
        """Utterances whose audio could not be read whole."""
        return [one for one in self.left_out if one.kind == "damaged"]


def pack(
    corpus: Iterable[Utterance],
    out: str | Path,
    *,
    codec: str = "flac",
    sample_rate: int = 16_000,
    channel: Channel = "first",
    shard_mb: float = 512,
    num_workers: int = 0,
    seed: int = 0,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    split_seconds: float | None = None,
    split: str = "length",
    decode: bool = True,
    thresholds: Mapping[str, float] | None = None,
    refuse: Iterable[str] = (),
    name: str | None = None,
    corpus_name: str | None = None,
    licence: str | None = None,
    engine: str = "local",
    restart: bool = False,
) -> ShardSet:
    """Pack a corpus into byte-reproducible shards, and open them.

    Every file is really decoded; a damaged one costs itself: it is listed in `left_out.jsonl` with its reason. Loudness
    is left alone. What is encoded has 16 bits: deeper and float samples are rounded, and those beyond full scale
    clipped and counted in the index column `clipped_share`.

    A pack that was killed goes on when it is called again, and several may work into one folder or bucket, from any
    number of machines: each packs the shards that no other has claimed.

    Args:
        corpus: utterances; see `s3prl_stream.corpora`.
        out: folder of the set: new, empty, with this set unfinished (it goes on) or finished (nothing is done).
            Or a URL (s3://, gs://, az://): each worker makes one shard in the system's temporary folder and uploads it.
        codec: "flac", "wav" (16 bits), "opus", or "original": whole files of one channel at the wanted rate (FLAC, WAV,
            Ogg Vorbis, Opus, MP3) keep their bytes; others become FLAC, which the manifest counts (`reencoded`).
        sample_rate: of the packed audio (Hz).
        channel: "first", "mean", or the number of a channel from 0.
        shard_mb: wanted size of a shard (10**6 bytes).
        num_workers: processes that read headers and pack shards; 0: this one.
        seed: of the order.
        min_seconds, max_seconds: utterances beyond these lengths are skipped, counted and listed.
        split_seconds: longer utterances are cut into pieces no longer than this, with a number behind their key,
            `first_second` in their metadata and without their text.
        split: "length": into equal pieces; "silence": in the middle of their longest silences, for which they are
            decoded twice.
        decode: False, with codec="original": what fits is neither decoded nor measured, its header is believed.
        thresholds: finding -> value beyond which it is one, in place of those of `packing.quality.THRESHOLDS`.
        refuse: findings for which a clip is left out and listed; by default they are only told in the index.
        name: of the set; None: that of the folder.
        corpus_name, licence: free text for the manifest.
        engine: "local", or "ray": the shards are packed by the Ray cluster that RAY_ADDRESS names, or this machine's.
        restart: remove what an unfinished pack of another plan has left here, and begin anew.

    Raises:
        UsageError: nothing to pack, a wrong setting, two utterances of one key, or a folder that holds something else.
        ShardError: not one file could be packed, or the set cannot be written.
    """
    refused: Any = (refuse,) if isinstance(refuse, str) else refuse
    settings = PackSettings(
        codec, sample_rate, channel, shard_mb, seed, min_seconds, max_seconds, split_seconds, split, decode,
        thresholds or {}, tuple(refused) if isinstance(refused, Iterable) else refused,
    )  # fmt: skip
    pack_set(
        corpus, out, settings, num_workers=num_workers, name=name, corpus_name=corpus_name, licence=licence,
        engine=engine, restart=restart,
    )  # fmt: skip
    from s3prl_stream.shards.shardset import open_shards

    return open_shards(out)


def pack_set(
    corpus: Iterable[Utterance],
    out: str | Path,
    settings: PackSettings,
    *,
    num_workers: int = 0,
    name: str | None = None,
    corpus_name: str | None = None,
    licence: str | None = None,
    engine: str = "local",
    restart: bool = False,
    progress: Progress | None = None,
) -> PackReport:
    """`pack`, with a report in place of the opened set, and with progress. Arguments and errors are those of `pack`."""
    store = open_store(out)
    name = set_name(name_of_folder(out), name)
    check_num_workers(num_workers)
    if engine not in ENGINES:
        raise UsageError(f"engine is {engine!r}, expected one of {', '.join(ENGINES)}.")
    refuse_strangers(store)
    about = origin_of(name, corpus_name, licence)
    job = _Pack(out, name, settings, about, files_of(corpus), progress or tell_nobody, restart)
    try:
        with Workers(num_workers) as workers:
            return job.run(corpus, workers, engine)
    finally:
        with contextlib.suppress(OSError):
            remove_empty_folders(store)


@dataclass
class _Pack:
    """One call of `pack_set`."""

    out: str | Path
    name: str
    settings: PackSettings
    about: dict[str, Any]
    extra: dict[str, bytes]
    tell: Progress
    restart: bool

    @property
    def _store(self) -> Store:
        """A new one each time: other packs replace files, and a store holds every file to what it was."""
        return open_store(self.out)

    def run(self, corpus: Iterable[Utterance], workers: Workers, engine: str) -> PackReport:
        """List, plan, pack, finish."""
        is_finished = self._store.size(MANIFEST) is not None
        with contextlib.ExitStack() as stack:
            owner = new_owner()
            with explaining_writes(self._store.url):
                scratch = stack.enter_context(scratch_folder(self._store, owner, inside=not is_finished))
            listing = list_utterances(corpus, scratch / "list.arrow", lambda done: self.tell("listing", done, None))
            with explaining_writes(self._store.url):
                if is_finished:
                    report = self._finished_before(self._new_plan(listing, scratch, workers))
                    if report is not None:
                        return report
                packing = stack.enter_context(self._engine(engine, workers))  # may not be there, so before the plan
                claims = stack.enter_context(Claims(self.out, owner))
                plan = self._plan(listing, scratch, workers, claims)
                return self._pack(plan, claims, scratch, packing)

    def _pack(self, plan: PackPlan, claims: Claims, scratch: Path, engine: Engine) -> PackReport:
        try:
            report = self._finished_before(plan)
            if report is not None:
                return report
            self._pack_shards(plan, engine, claims, scratch)
            return self._finish(plan, claims, scratch)
        except (StreamError, OSError):
            report = self._finished_before(plan)  # by another pack, that has cleaned up behind it
            if report is None:
                raise
            return report

    def _new_plan(self, listing: Listing, scratch: Path, workers: Workers) -> PackPlan:
        told = functools.partial(self.tell, "headers")
        return make_plan(listing, scratch, self.name, self.settings, workers, told)

    def _plan(self, listing: Listing, scratch: Path, workers: Workers, claims: Claims) -> PackPlan:
        """The plan that lies in the set, or a new one, which then lies there."""
        found = read_plan(self._store)
        asked = (self.name, self.settings.as_json(), library_versions(), listing.digest)
        if found is not None and (found.name, found.packing, found.libraries, found.listing) == asked:
            return found
        plan = self._new_plan(listing, scratch, workers)
        if not plan.clips:
            raise NothingPacked(nothing_packed(plan, []))
        while not claims.take(_PLAN):
            claims.wait()
            claims.of_others()  # removes the claim of one who was killed
        try:
            return self._plan_that_lies_there(plan, scratch, claims)
        finally:
            claims.give_back(_PLAN)

    def _plan_that_lies_there(self, plan: PackPlan, scratch: Path, claims: Claims) -> PackPlan:
        """This one, or the same made by another pack meanwhile; one at a time looks and writes."""
        found = read_plan(self._store)
        if found is not None:
            how = other_plan(found, plan)
            if how is None:
                return found
            if not self.restart:
                raise UsageError(
                    f"{self._store.url} holds an unfinished pack of another set: {how}. Give the same again to go on "
                    "with it, or begin anew with restart=True (--restart), which removes its shards."
                )
            self._wait_until_alone(claims)
            remove_unfinished(self._store, found.name)
        if self._store.size(MANIFEST) is None:
            write_plan(self._store, plan, scratch)
        return plan

    def _wait_until_alone(self, claims: Claims) -> None:
        stop_at = time.monotonic() + LEASE_SECONDS + BEAT_SECONDS
        while not claims.is_alone():
            if time.monotonic() > stop_at:
                raise UsageError(f"{self._store.url}: another pack is working there. Stop it before you begin anew.")
            claims.wait()

    def _finished_before(self, plan: PackPlan) -> PackReport | None:
        """The report of the set if it is there and complete."""
        manifest = find_finished(self._store, plan.identity)
        if manifest is None:
            return None
        if manifest.get("files", []) != entries_of(self.extra):
            raise UsageError(
                f"{self._store.url} holds this set with other extra files. Choose another folder, or remove that one."
            )
        with contextlib.suppress(StreamError, OSError):  # a set of which one may only read
            remove_work(self._store)
        return PackReport(self._store.url, True, manifest, whole_left_out(self._store))

    def _engine(self, name: str, workers: Workers) -> contextlib.AbstractContextManager[Engine]:
        if name == "ray":
            return ray_cluster()
        return contextlib.nullcontext(Processes(workers) if workers.num_workers else ThisProcess(self._tell_clips))

    def _tell_clips(self, clips_done: int) -> None:
        self.tell("packing", min(self._before + clips_done, self._total), self._total)

    def _pack_shards(self, plan: PackPlan, engine: Engine, claims: Claims, scratch: Path) -> None:
        """Until all are finished, by whomever; what others have claimed is left to them as long as they live."""
        claimed, running = claims.of_others(), set[int]()
        self._total = sum(plan.clips)
        self._done = finished_shards(self._store, plan)
        self._before = sum(plan.clips[number] for number in self._done)
        self._tell_clips(0)
        while len(self._done) < len(plan.clips):
            for number in range(len(plan.clips)):
                if len(running) >= engine.slots:
                    break
                what = _claim_name(number)
                if number in self._done or number in running or what in claimed:
                    continue
                if not claims.take(what):
                    claimed.add(what)
                elif is_finished(self._store, plan.name, plan.digest, number):
                    claims.give_back(what)
                    self._note_done(plan, number)
                elif self._store.size(MANIFEST) is not None:
                    return
                else:
                    running.add(number)
                    engine.submit(self._task(plan, engine, number, scratch))
            is_idle = not running
            for number in engine.wait(POLL_SECONDS):
                claims.give_back(_claim_name(number))
                running.discard(number)
                self._done.add(number)
            self._tell_clips(engine.clips_done)
            if is_idle and len(self._done) < len(plan.clips):  # the rest is with others
                claims.wait()
                if self._store.size(MANIFEST) is not None:
                    return
                claimed = claims.of_others()
                for number in finished_shards(self._store, plan) - self._done:
                    self._note_done(plan, number)

    def _note_done(self, plan: PackPlan, number: int) -> None:
        """Somebody else has done it."""
        self._done.add(number)
        self._before += plan.clips[number]

    def _task(self, plan: PackPlan, engine: Engine, number: int, scratch: Path) -> ShardTask:
        here = engine.shares_this_machine or not self._store.is_remote
        places = (str(scratch), local_clips(self._store, scratch)) if here else (None, None)
        return ShardTask(self._store, plan.name, plan.digest, number, self.settings, plan.columns, *places)

    def _finish(self, plan: PackPlan, claims: Claims, scratch: Path) -> PackReport:
        while True:
            is_ours = claims.take(_FINISH)
            report = self._finished_before(plan)  # also if it is: the one who had it may just have ended
            if report is not None:
                return report._replace(already_there=False)
            if is_ours:
                break
            claims.wait()
            claims.of_others()  # removes the claim of one who was killed
        try:
            store = writing_in(scratch, self._store)
            manifest = finish(store, plan, self.about, self.extra, scratch, self.tell)
        except NothingPacked:
            remove_unfinished(self._store, plan.name)
            raise
        remove_work(self._store)
        return PackReport(self._store.url, False, manifest, whole_left_out(self._store))


def _claim_name(number: int) -> str:
    return f"{number:06d}"
