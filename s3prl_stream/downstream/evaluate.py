"""A trained run put to use: its figures on a set, and its answers to clips and files."""

from __future__ import annotations

import collections
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from s3prl_stream.collate import collate
from s3prl_stream.downstream.build import build_model, make_task
from s3prl_stream.downstream.columns import contents_of, need_classes, need_columns, rows_called
from s3prl_stream.downstream.feature_cache import FeatureCache
from s3prl_stream.downstream.judge import answers_of, answers_to, unknown_classes
from s3prl_stream.downstream.model import DownstreamModel
from s3prl_stream.downstream.streams import SAMPLE_RATE, Noise, judged_stream
from s3prl_stream.downstream.texts import TextSource
from s3prl_stream.errors import StateError, UsageError, told_of
from s3prl_stream.loader import Loader
from s3prl_stream.pipes.load_audio import LoadAudio
from s3prl_stream.pipes.stage import root_of
from s3prl_stream.recipes.run_folder import SETTINGS, pick_device, read_settings, run_of
from s3prl_stream.shards.selection import compile_selection
from s3prl_stream.shards.shardset import ShardSet, as_shard_set
from s3prl_stream.tasks import Answer, SpeakerVerification
from s3prl_stream.tasks.verification import Trial
from s3prl_stream.trainer.checkpoint import BEST, list_checkpoints, load_weights_into, newest_checkpoint
from s3prl_stream.trainer.to_device import ToDevice
from s3prl_stream.upstreams import Upstream
from s3prl_stream.upstreams import upstream as find_upstream
from s3prl_stream.upstreams.upstream import fingerprint_of


@dataclass(frozen=True)
class Evaluation:
    """How good a run is on a set."""

    task: str
    checkpoint: str
    figures: Mapping[str, float]
    best: str
    """The figure by which a model is chosen."""
    utterances: int
    damaged: int
    """Utterances that could not be used."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Why not -> how many of them."""
    without_label: int = 0
    """Selected utterances that were left out because nothing is known to be true of them."""
    unknown: Mapping[str, int] = field(default_factory=dict)
    """Classes that were not trained on -> how many utterances are of them, which count as missed."""
    layer_weights: Sequence[float] = field(default_factory=tuple)
    """Of the upstream's hidden states."""
    trials_not_scored: Sequence[Trial] = field(default_factory=tuple)
    """Of the trials that were given: those of damaged utterances; the figures are of the others."""


def evaluate(
    run: str | Path,
    shards: Any,
    *,
    where: Any = None,
    trials: Sequence[Trial] | None = None,
    noise: Any = None,
    snr: tuple[float, float] | float = (3.0, 20.0),
    upstream: Upstream | None = None,
    head: nn.Module | None = None,
    device: str | None = None,
    cache: str | Path | None = None,
    cache_gigabytes: float = 20.0,
) -> Evaluation:
    """The figures of a run on a set: of its best weights if it was trained with a validation part, else of its newest.

    Args:
        run: output folder of `train`, or a checkpoint in it.
        shards: `open_shards(...)`, or what a `ShardStream` accepts. Utterances without a label are left out, unless
            trials say what is true.
        where: which part of it.
        trials: of speaker verification, and none but their utterances are scored; None: each utterance with each.
        noise, snr: added to each clip, as in `train`.
        upstream, head: fresh instances, if the run was made with modules rather than names.
        device: where to compute; None: the GPU if there is one.
        cache, cache_gigabytes: folder for hidden states, as in `train`, and its limit. Of noisy clips too: here a clip
            gets the same noise each time.

    Raises:
        UsageError: no such run, a column is missing, nothing can be read, or a cache for an upstream that was trained.
            A trial names an utterance that is not selected, or none can be scored.
    """
    model = load_run(run, upstream=upstream, head=head, device=device)
    if cache is not None and model.finetune:
        raise UsageError(f"{run}: cache: its upstream was trained, so its features are of this run alone")
    judged, added = as_shard_set(shards), Noise.of(noise, snr)
    if trials is not None:
        if not isinstance(model.task, SpeakerVerification):
            raise UsageError(f"{run}: trials are for speaker verification; this run is of another task")
        model.task.trials = trials
        where = rows_called(judged, where, {key for trial in trials for key in trial[1:]}, "trials")
    columns = () if trials is not None else model.task.columns
    need_columns(judged, (*columns, *model.task.optional_columns), "evaluate")
    need_classes(judged, where, model.task, "evaluate")
    stream = judged_stream(judged, where=where, columns=columns, noise=added, texts=TextSource.of_run(run_of(run)))
    loader = Loader(stream, rank=0, world_size=1)
    with _with_cache(model, judged, added, cache, cache_gigabytes):
        answers = answers_to(model, loader, pick_device(device))
    if not answers:
        said = "".join(f"; the first: {one['message']} ({one['reason']})" for one in loader.damaged[:1])
        raise UsageError(f"evaluate: none of the {len(loader.damaged)} selected utterances could be used{said}")
    not_scored: list[Trial] = []
    if isinstance(model.task, SpeakerVerification) and trials is not None:
        model.task.trials, not_scored = _without_damaged(trials, loader.damaged)
    return Evaluation(
        task=str(read_settings(run_of(run))["task"]),
        checkpoint=_checkpoint(run).name,
        figures=model.task.score(answers),
        best=model.task.best.name,
        utterances=len(answers),
        damaged=len(loader.damaged),
        reasons=dict(collections.Counter(one["reason"] for one in loader.damaged)),
        without_label=len(compile_selection(judged, where=where)) - len(root_of(stream)),
        unknown=unknown_classes(model.task, answers),
        layer_weights=tuple(model.featurizer.weights()),
        trials_not_scored=not_scored,
    )


@contextlib.contextmanager
def _with_cache(
    model: DownstreamModel, judged: ShardSet, noise: Noise | None, folder: str | Path | None, max_gigabytes: float
) -> Iterator[None]:
    """Hidden states are kept in the folder, if one is given, as long as the block lasts."""
    if folder is None:
        yield
        return
    with contextlib.closing(FeatureCache(folder, fingerprint_of(model.upstream), max_gigabytes=max_gigabytes)) as kept:
        noisy = "" if noise is None else f" with {noise}"
        model.use_cache(kept, {one.name: contents_of(one) + noisy for one in judged.members})
        yield


def _without_damaged(
    trials: Sequence[Trial], damaged: Sequence[Mapping[str, Any]]
) -> tuple[Sequence[Trial], list[Trial]]:
    """(trials that can be scored, those of an utterance that cannot be used); UsageError if none can."""
    lost = {one["key"] for one in damaged}
    scored = [trial for trial in trials if lost.isdisjoint(trial[1:])]
    not_scored = [trial for trial in trials if not lost.isdisjoint(trial[1:])]
    if not_scored and not scored:
        first = next(one for one in damaged if one["key"] in not_scored[0][1:])
        raise UsageError(
            f"evaluate: none of the {len(trials)} trials can be scored, as clips of them could not be used; the first: "
            f"{first['message']} ({first['reason']})"
        )
    return scored, not_scored


def predict(
    run: str | Path | DownstreamModel,
    audio: Any,
    *,
    where: Any = None,
    upstream: Upstream | None = None,
    head: nn.Module | None = None,
    device: str | None = None,
) -> list[Answer]:
    """What a run says of audio files, or of each clip of a set.

    Args:
        run: output folder of `train`, a checkpoint in it, or what `load_run` gave of it.
        audio: paths of audio files (the key of an answer is the path as given), or a set of shards.
        where: which part of the set.
        upstream, head, device: see `evaluate`.

    Returns:
        An answer for each, without references: a class, a text, turns ... (`Task.answers`); those of a set by set and
        key, without the clips of it that cannot be read.

    Raises:
        UsageError: no such run, or `where` for files.
        SampleError: a file that cannot be read.
    """
    model = run if isinstance(run, DownstreamModel) else load_run(run, upstream=upstream, head=head, device=device)
    used_device = next(model.parameters()).device
    if not _are_files(audio):
        loader = Loader(judged_stream(as_shard_set(audio), where=where), rank=0, world_size=1)
        return answers_to(model, loader, used_device, with_references=False)
    if where is not None:
        raise UsageError("predict: where= (--where) selects clips of a set; files are named one by one")
    answers: list[Answer] = []
    to_device, load_audio = ToDevice(used_device), LoadAudio(sample_rate=SAMPLE_RATE)
    for path in map(str, audio):
        sample = next(iter(load_audio([{"key": path, "wav_path": path}])))
        answers += answers_of(model, to_device(collate([sample])), with_references=False)
    return answers


def load_run(
    run: str | Path, *, upstream: Upstream | None = None, head: nn.Module | None = None, device: str | None = None
) -> DownstreamModel:
    """The model of a run in evaluation mode, with its best weights if there are any, else its newest.

    `run` may be a checkpoint in its folder: then with that one's.

    Raises:
        UsageError: no such run, no checkpoint yet, or a module is missing.
        StateError: the upstream is not the one that the run was trained on.
    """
    folder = run_of(run)
    settings = read_settings(folder) if (folder / SETTINGS).is_file() else {}
    if "task_config" not in settings:
        raise UsageError(f"{run}: no {SETTINGS} of a task in it; give the output folder of `s3prl-stream train`")
    used_device = pick_device(device)
    up = _upstream_of(folder, settings["upstream"]) if upstream is None else upstream
    if not isinstance(up, Upstream):
        raise UsageError(f"upstream: {up!r:.200} is none; give ss.upstream(...)")
    if not settings["finetune"] and fingerprint_of(up) != settings["upstream_fingerprint"]:
        raise StateError(
            f"{run}: was trained on another upstream than {settings['upstream']} is now. Give the old one, perhaps one "
            "of its checkpoints, by upstream=, or by the same `train` command with --upstream"
        )
    if head is None and settings["head"].count(" "):
        raise UsageError(f"{run}: was trained with a head of your own; pass head= ({settings['head']})")
    texts = TextSource.of_run(folder)
    with told_of(str(folder / SETTINGS)):
        task = make_task(settings["kind"], settings["task_config"], None if texts is None else texts.tokenizer)
        model = build_model(
            up.to(used_device).eval(),
            task,
            head or settings["head"],
            settings["recipe_head_settings"],
            normalize=settings["normalize"],
            finetune=settings["finetune"],
            seed=settings["seed"],
        )
    load_weights_into(model, _checkpoint(run))
    return model.to(used_device).eval()


def _upstream_of(run: Path, name: str) -> Upstream:
    """The upstream of a run by the name that the run has for it."""
    try:
        return find_upstream(name)
    except UsageError as error:
        if re.fullmatch(r"[\w.]+ [0-9a-f]{16}", name):
            raise UsageError(f"{run}: was trained on an upstream of your own; pass upstream= ({name})") from None
        raise UsageError(
            f"{run}: its upstream is not there: {error}. If it lies elsewhere, give the same `train` command with "
            "--upstream where it lies now"
        ) from None


def _checkpoint(run: str | Path) -> Path:
    """The one that is named, else the best, else the newest."""
    if run_of(run) != Path(run):
        return Path(run)
    best = list_checkpoints(Path(run), folder=BEST)
    return best[-1] if best else newest_checkpoint(Path(run))


def _are_files(audio: Any) -> bool:
    return (
        isinstance(audio, Sequence) and not isinstance(audio, str) and all(isinstance(one, str | Path) for one in audio)
    )
