"""A linear probe: what do frozen features know about a label?

Hidden states are averaged over the frames of each utterance, standardised on the training part, and a multinomial
logistic regression with an L2 penalty is fitted by L-BFGS. Nothing is chosen on the test part: the penalty, and the
layer where "best layer" is reported, are chosen on a validation part of the training utterances, split off in the way
the test part was; then the probe is fitted again on all training utterances.

N utterances, H hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from s3prl_stream.errors import StreamError, UsageError
from s3prl_stream.loader import Loader
from s3prl_stream.padding import is_valid
from s3prl_stream.probe_question import Bools, Fold, Key, Question
from s3prl_stream.shards.shardset import ShardSet, as_shard_set
from s3prl_stream.stream import ShardStream
from s3prl_stream.upstreams import BASELINE, Upstream, is_run, upstream
from s3prl_stream.upstreams.upstream import checked_states

Extracted: TypeAlias = tuple[list[Key], dict[str, npt.NDArray[np.float32]], int]

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
MAX_ITERATIONS = 200


@dataclass(frozen=True)
class ProbeRow:
    """Accuracy of one kind of features, over seeds and folds."""

    features: str
    layer: str
    accuracy: float
    """Mean over seeds (and held-out groups, where each is held out in turn), 0 to 1."""
    spread: float
    """Standard deviation over the seeds (of their means over the held-out groups)."""
    chosen_layers: tuple[int, ...]
    """The layers used, sorted; 0 is the first hidden state."""


@dataclass(frozen=True)
class ProbeResult:
    """The rows of the table and what they were measured on."""

    label: str
    classes: int
    utterances: int
    without_label: int
    """Utterances left out because they have no such label."""
    damaged: int
    """Utterances left out because they could not be read."""
    train: int
    """Mean number of training utterances."""
    test: int
    """Mean number of test utterances."""
    chance: float
    """Accuracy of always answering the class that is most frequent in training."""
    seeds: int
    split: str
    rows: tuple[ProbeRow, ...]


def probe(
    shards: Any,
    run: str | Path | Upstream,
    *,
    label: str,
    holdout: str | None = None,
    test_where: str | None = None,
    where: str | None = None,
    center: str | None = None,
    seeds: int = 3,
    encoder: nn.Module | None = None,
    device: str | None = None,
    max_batch_seconds: float = 120.0,
) -> ProbeResult:
    """Probe a pretrained encoder, an untrained one of the same shape, and the log-mel.

    Args:
        shards: `open_shards(...)`, or what a `ShardStream` accepts.
        run: output folder of `pretrain`, or "logmel80" for the baseline alone. Or any other name that `ss.upstream`
            knows, or an upstream, which are then compared with the baseline only.
        label: index column to be predicted.
        holdout: "COLUMN=VALUE,VALUE": these are the test part; "COLUMN": each of its values in turn.
        test_where: expression that selects the test part. Without either a random quarter, by seed.
        where: expression that selects the utterances to be used at all.
        center: index column, such as "speaker": from all features of one of its values their mean is subtracted.
            That needs no labels, and shows how much of the accuracy an offset of each speaker costs.
        seeds: how many. A seed changes the untrained weights, the start of the fit, the validation part, and the test
            part where that is random.
        encoder: a fresh instance, if the run was made with an encoder of one's own.
        device: where the encoder computes; None: the GPU if there is one.
        max_batch_seconds: of a batch while extracting.

    Raises:
        UsageError: an unknown column or value, a label of measures, fewer than two classes, an empty part.
        StreamError: a hidden state is not finite.
    """
    shard_set = as_shard_set(shards)
    question = Question(shard_set, label=label, holdout=holdout, test_where=test_where, center=center, seeds=seeds)
    question.check(where)
    upstreams = {BASELINE: upstream(BASELINE)}
    if isinstance(run, Upstream):
        upstreams["pretrained"] = run
    elif str(run) != BASELINE:
        for seed in range(seeds if is_run(run) else 0):
            upstreams[f"untrained/{seed}"] = upstream(
                run, trained=False, seed=1000 + seed, encoder=encoder, device=device
            )
        upstreams["pretrained"] = upstream(run, encoder=encoder, device=device)
    return probe_pooled(
        question, extract_pooled(shard_set, upstreams, where=where, max_batch_seconds=max_batch_seconds)
    )


def probe_pooled(asked: Question, extracted: Extracted) -> ProbeResult:
    """The second half of `probe`, for several questions to features that were extracted once; errors of `probe`.

    Args:
        asked: of the set.
        extracted: by `extract_pooled`. There is a row for each kind of features: "NAME" is used for all seeds,
            "NAME/0", "NAME/1" ... are one kind, of which each seed has its own.
    """
    keys, pooled, damaged = extracted
    rows = [row for row, key in enumerate(keys) if asked.labels[key] is not None]
    without_label = len(keys) - len(rows)
    keys = [keys[row] for row in rows]
    pooled = {name: features[:, rows] for name, features in pooled.items()}
    if asked.centers is not None:
        groups = [asked.centers[key] for key in keys]
        pooled = {name: _centered(features, groups) for name, features in pooled.items()}
    names, folds = asked.folds(keys)
    classes = np.array([names.index(str(asked.labels[key])) for key in keys])
    used = [fold for some in folds.values() for fold in some]
    with _one_thread():
        rows_of_table = _table(pooled, classes, folds)
    return ProbeResult(
        label=asked.label,
        classes=len(names),
        utterances=len(keys),
        without_label=without_label,
        damaged=damaged,
        train=round(float(np.mean([(~fold.test).sum() for fold in used]))),
        test=round(float(np.mean([fold.test.sum() for fold in used]))),
        chance=float(np.mean([_chance(classes, fold) for fold in used])),
        seeds=asked.seeds,
        split=asked.split,
        rows=tuple(rows_of_table),
    )


def extract_pooled(
    shards: ShardSet, upstreams: dict[str, Upstream], *, where: str | None = None, max_batch_seconds: float = 120.0
) -> Extracted:
    """Mean over frames of each hidden state of each upstream, in one pass over the set.

    Returns:
        ((set, key) of the utterances, sorted; upstream -> float32 [layers + 1, N, H]; damaged utterances left out).
    """
    stream = ShardStream(
        shards, epochs=1, max_batch_seconds=max_batch_seconds, too_long="crop", where=where
    ).load_audio(sample_rate=16_000, dtype="float32")
    loader = Loader(stream, rank=0, world_size=1)  # whoever asks gets all of it, one of several ranks too
    keys: list[Key] = []
    parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in upstreams}
    for batch in loader:
        if not batch["key"]:
            continue
        keys.extend(zip(batch["set"], batch["key"], strict=True))
        for name, one in upstreams.items():
            with torch.inference_mode():
                parts[name].append(_mean_over_frames(one, batch["wav"], batch["wav_len"]))
    if not keys:
        raise UsageError(f"probe: none of the {len(loader.damaged)} selected utterances could be read")
    order = sorted(range(len(keys)), key=keys.__getitem__)
    pooled = {name: np.concatenate(features, axis=1)[:, order] for name, features in parts.items()}
    for name, features in pooled.items():
        if not np.isfinite(features).all():  # no fit would say so
            layer, row, _ = np.argwhere(~np.isfinite(features))[0]
            raise StreamError(f"probe: hidden state {layer} of {name} is not finite for {keys[order[row]][1]}")
    return [keys[row] for row in order], pooled, len(loader.damaged)


def _centered(features: npt.NDArray[np.float32], groups: Sequence[str | None]) -> npt.NDArray[np.float32]:
    """[layers + 1, N, H] less the mean of each of the N utterances' group."""
    _, group = np.unique([str(one) for one in groups], return_inverse=True)
    centered = np.empty_like(features)
    for number in range(int(group.max()) + 1):
        of_group = features[:, group == number]
        centered[:, group == number] = of_group - of_group.mean(axis=1, keepdims=True)
    return centered


def fit_and_score(
    features: npt.NDArray[np.float32],
    classes: npt.NDArray[np.int64],
    train: Bools,
    test: Bools,
    *,
    l2: float,
    seed: int,
) -> float:
    """Accuracy on `test` of a logistic regression fitted on `train`.

    Args:
        features: [N, H]; standardised here with the mean and deviation of the training rows.
        classes: [N], from 0.
        train, test: [N].
        l2: weight of half the squared L2 norm of the weights, against the mean cross-entropy.
        seed: of the start.
    """
    mean, deviation = features[train].mean(axis=0), features[train].std(axis=0)
    scaled = torch.from_numpy((features - mean) / np.where(deviation > 1e-8, deviation, 1.0)).float()
    targets = torch.from_numpy(classes)
    num_classes = int(classes.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(num_classes, scaled.shape[1], generator=generator) * 0.01).requires_grad_()
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")
    train_rows, test_rows = torch.from_numpy(train), torch.from_numpy(test)
    inputs_NH = scaled[train_rows]
    wanted_NC = nn.functional.one_hot(targets[train_rows], num_classes).float()

    @torch.no_grad()
    def penalised() -> Tensor:
        """The gradient is written out: on matrices this small autograd takes as long again."""
        logs_NC = nn.functional.linear(inputs_NH, weight, bias).log_softmax(dim=1)
        wrong_NC = (logs_NC.exp() - wanted_NC) / len(inputs_NH)
        weight.grad, bias.grad = wrong_NC.T @ inputs_NH + l2 * weight, wrong_NC.sum(dim=0)
        return -(logs_NC * wanted_NC).sum() / len(inputs_NH) + 0.5 * l2 * weight.square().sum()

    optimizer.step(penalised)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        answers = nn.functional.linear(scaled[test_rows], weight, bias).argmax(dim=1)
    return float((answers == targets[test_rows]).double().mean())


@contextmanager
def _one_thread() -> Iterator[None]:
    """A probe's matrices are small: with two threads torch took 10 to 100 times as long (measured), mostly waiting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _mean_over_frames(one: Upstream, wav_BT: Tensor, wav_len_B: Tensor) -> npt.NDArray[np.float32]:
    """float32 [layers + 1, B, H]."""
    frames_B = one.num_frames(wav_len_B)
    hidden_states = checked_states(one, one(wav_BT, wav_len_B), len(wav_BT), int(frames_B.max()))
    frames_B = frames_B.to(hidden_states[0].device)
    valid_BF1 = is_valid(frames_B, hidden_states[0].shape[1])[..., None]
    means = [torch.where(valid_BF1, hidden, 0.0).sum(dim=1) / frames_B[:, None] for hidden in hidden_states]
    return torch.stack(means).float().cpu().numpy()


def _table(
    pooled: dict[str, npt.NDArray[np.float32]], classes: npt.NDArray[np.int64], folds: dict[int, list[Fold]]
) -> list[ProbeRow]:
    rows = []
    for kind in dict.fromkeys(name.partition("/")[0] for name in pooled):
        of_seed = {seed: pooled[kind] if kind in pooled else pooled[f"{kind}/{seed}"] for seed in folds}
        scores: dict[str, list[float]] = {"last": [], "best": []}
        chosen: dict[str, set[int]] = {"last": set(), "best": set()}
        for seed, features in of_seed.items():
            results = [_score_fold(features, classes, fold, seed) for fold in folds[seed]]
            for which in scores:
                scores[which].append(float(np.mean([result[which][0] for result in results])))
                chosen[which].update(result[which][1] for result in results)
        for which in ("last",) if kind == BASELINE else ("last", "best"):
            spread = float(np.std(scores[which], ddof=1)) if len(folds) > 1 else 0.0
            layers = tuple(sorted(chosen[which]))
            layer = "-" if kind == BASELINE else which
            rows.append(ProbeRow(kind, layer, float(np.mean(scores[which])), spread, layers))
    return rows


def _score_fold(
    features: npt.NDArray[np.float32], classes: npt.NDArray[np.int64], fold: Fold, seed: int
) -> dict[str, tuple[float, int]]:
    """ "last" and "best" -> (accuracy on the test part, layer)."""
    fitted = ~fold.test & ~fold.validation
    on_validation = {
        (layer, l2): fit_and_score(features[layer], classes, fitted, fold.validation, l2=l2, seed=seed)
        for layer in range(len(features))
        for l2 in PENALTIES
    }
    last = len(features) - 1
    result = {}
    for which, layers in (("last", [last]), ("best", list(range(last, -1, -1)))):
        layer, l2 = max(((layer, l2) for layer in layers for l2 in PENALTIES), key=on_validation.__getitem__)
        result[which] = (fit_and_score(features[layer], classes, ~fold.test, fold.test, l2=l2, seed=seed), layer)
    return result


def _chance(classes: npt.NDArray[np.int64], fold: Fold) -> float:
    most_frequent = np.bincount(classes[~fold.test]).argmax()
    return float((classes[fold.test] == most_frequent).mean())
