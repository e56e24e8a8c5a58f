"""What is trained downstream: upstream, weighted sum, head and task as one module. B batch, F frames, H hidden."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from s3prl_stream.downstream.feature_cache import CacheKey, FeatureCache
from s3prl_stream.errors import UsageError
from s3prl_stream.heads import WeightedSum
from s3prl_stream.objectives.loss import Loss, sum_of_zeros
from s3prl_stream.sample import Batch
from s3prl_stream.tasks import Task
from s3prl_stream.upstreams.upstream import Upstream, alone, checked_states


class DownstreamModel(nn.Module):
    """Waveforms to a loss, or to the outputs of the head.

    A frozen upstream is no part of the module's weights: checkpoints stay small and name it instead. On a CPU, or with
    a cache, it sees one utterance at a time, so that no bit of the features depends on the batch or on the cache.

    Args:
        upstream: in evaluation mode; a frozen one goes along when the model is moved.
        head: ([B, F, H], [B]) -> (outputs, their lengths).
        task: of the head's level.
        normalize: of the weighted sum, see `WeightedSum`.
        finetune: train the upstream too.
    """

    def __init__(
        self, upstream: Upstream, head: nn.Module, task: Task, *, normalize: bool = False, finetune: bool = False
    ) -> None:
        super().__init__()
        self.finetune = finetune
        self.featurizer = WeightedSum(upstream.num_layers + 1, normalize=normalize)
        self.head = head
        self.task = task
        if finetune:
            self.trained_upstream = upstream
        self._upstream = (upstream,)  # in a tuple, so that the module does not take it for a part of itself
        self._cache: FeatureCache | None = None
        self._fingerprint_of_set: Mapping[str, str] = {}
        self._random_samples: int | None = None

    @property
    def upstream(self) -> Upstream:
        return self._upstream[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DownstreamModel:
        """Whoever moves the module to a device moves a frozen upstream too."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not self.finetune:
            self.upstream._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def use_cache(
        self, cache: FeatureCache, fingerprint_of_set: Mapping[str, str], *, random_samples: int | None = None
    ) -> None:
        """Keep hidden states of utterances of these sets, by the names of the sets in a batch.

        Waveforms of `random_samples` are taken for stretches that were cut at random: these are not kept, since they
        never come again.
        """
        self._cache = cache
        self._fingerprint_of_set = fingerprint_of_set
        self._random_samples = random_samples

    def forward(self, batch: Batch) -> Loss:
        """The loss of a batch with `wav`, `wav_len` and the columns of the task; 0 for an empty one."""
        if not len(batch["key"]):
            return Loss(sum_of_zeros(self), torch.zeros((), dtype=torch.int64, device=next(self.parameters()).device))
        outputs, len_B = self.outputs(batch)
        return self.task.loss(outputs, len_B, batch)

    def outputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the head gives, and its lengths."""
        hidden_states, len_B = self.hidden_states(batch)
        outputs = self.head(self.featurizer(hidden_states), len_B)
        if not isinstance(outputs, tuple) or len(outputs) != 2:
            raise UsageError(
                f"head {type(self.head).__name__} gave a {type(outputs).__name__}, expected two tensors: the outputs, "
                "[B, F, C] or [B, C], and their lengths [B]"
            )
        return outputs

    def hidden_states(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """[B, F, H] of each state, and valid frames [B]."""
        wav_BT, device = batch["wav"], next(self.parameters()).device
        frames_B = self.upstream.num_frames(batch["wav_len"].cpu())
        longest = max(frames_B.tolist(), default=0)
        frames_B = frames_B.to(device)

        def together() -> list[Tensor]:
            given = self.upstream(wav_BT, batch["wav_len"])
            return list(checked_states(self.upstream, given, len(wav_BT), longest))

        if self.finetune:
            return together(), frames_B
        with torch.no_grad():
            if device.type != "cpu" and self._cache is None:
                return together(), frames_B
            rows = [self._states_of(batch, row) for row in range(len(batch["key"]))]
            padded_BFSH = nn.utils.rnn.pad_sequence([states.transpose(0, 1) for states in rows], batch_first=True)
            return list(padded_BFSH.to(device).unbind(dim=2)), frames_B

    def _states_of(self, batch: Batch, row: int) -> Tensor:
        """[states, F, H] of one utterance, on the CPU."""
        length = int(batch["wav_len"][row])
        key = None
        is_random = self._random_samples is not None and abs(length - self._random_samples) <= 1  # resampling rounds
        data = self._fingerprint_of_set.get(batch["set"][row])
        if self._cache is not None and data is not None and not is_random:
            first = int(batch["first_frame"][row]) if "first_frame" in batch else 0
            rounded = " in bfloat16" if torch.is_autocast_enabled(batch["wav"].device.type) else ""
            key = CacheKey(data + rounded, batch["key"][row], first, length)
            found = self._cache.get(key)
            if found is not None:
                return found
        states = alone(self.upstream, batch["wav"][row, :length])
        if self._cache is not None and key is not None:
            self._cache.put(key, states)
        return states
