"""An update as our own loop does it, cut into the pieces that any trainer asks for: batches, loss, gradients, rate.

What a trainer gets for one batch is all batches of an update, so it needs no accumulation of its own, and no checkpoint
can fall into the middle of an update. Rate and draws follow from the step, the step from the numbers of the batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from s3prl_stream.errors import UsageError
from s3prl_stream.loader import Loader
from s3prl_stream.objectives.loss import Loss
from s3prl_stream.pipes.stage import Source
from s3prl_stream.sample import Batch
from s3prl_stream.trainer.optimizer import learning_rate
from s3prl_stream.trainer.ranks import Ranks, kept_buffers
from s3prl_stream.trainer.settings import TrainSettings
from s3prl_stream.trainer.update import BatchCounts, seed_draws


class Updates:
    """The batches of a stream, all of an update together, with a cursor that says which updates are in the weights.

    Trainers fetch ahead of their work, so what was fetched says nothing; they call `done` when an update has been made.
    Iterating goes on behind the last update that was.

    Args:
        stream: a chain on a ShardStream, endless (`epochs=None`).
        settings: `update_batches` of them: global batches in an update, which the ranks of torch.distributed share.
        epoch_updates: so many updates are an epoch of the trainer: an iteration ends after each multiple of them;
            None: it does not end.
        **loader: what a `Loader` takes, such as `num_workers`. The loader is made when it is first needed: by then a
            trainer has started its ranks.

    Raises:
        UsageError: `epoch_updates` below 1; when iterated: the ranks cannot share an update evenly, or are not joined.
    """

    def __init__(
        self, stream: Source, settings: TrainSettings, *, epoch_updates: int | None = None, **loader: Any
    ) -> None:
        if epoch_updates is not None and epoch_updates < 1:
            raise UsageError(f"Updates: epoch_updates={epoch_updates} must be 1 or more, or None")
        self.stream = stream
        self.settings = settings
        self.epoch_updates = epoch_updates
        self._loader_settings = loader
        self._loader: Loader | None = None
        self._begun: dict[str, Any] | None = None  # where the iteration began; None: there is none
        self._done: int | None = None  # the last batch of the last update since then; None: no update

    @property
    def loader(self) -> Loader:
        """It deals the batches: `damaged`, `timing()`, `which(...)` and so on are there."""
        if self._loader is None:
            self._loader = Loader(self.stream, **self._loader_settings)
        return self._loader

    def __iter__(self) -> Iterator[list[Batch]]:
        ranks = Ranks()
        if ranks.world_size > 1 and not torch.distributed.is_initialized():
            raise UsageError(
                f"Updates: WORLD_SIZE is {ranks.world_size}, but the ranks do not know each other: each would make all "
                "updates alone. Call torch.distributed.init_process_group before the first update."
            )
        share = ranks.share_of(self.settings.update_batches)
        state = self.state_dict()
        if state != self.loader.state_dict():  # what was fetched and not used is fetched again
            self.loader.load_state_dict(state)
        self._begun, self._done = state, None
        source = iter(self.loader)
        batches = list(itertools.islice(source, share))
        if not batches:  # a finite stream that stood at its end begins anew
            source = iter(self.loader)
            batches = list(itertools.islice(source, share))
        while batches:
            yield batches
            made = int(batches[-1]["batch_index"]) // self.settings.update_batches + 1
            if self.epoch_updates and made % self.epoch_updates == 0:
                return
            batches = list(itertools.islice(source, share))

    def done(self, batches: Sequence[Batch]) -> None:
        """The update of these batches is in the weights."""
        self._done = int(batches[-1]["batch_index"])

    def state_dict(self) -> dict[str, Any]:
        """The cursor, see `Loader.state_dict`."""
        if self._done is None and self._begun is not None:
            return self._begun
        return self.loader.state_dict(after=self._done)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a cursor, see `Loader.load_state_dict`."""
        self.loader.load_state_dict(state)
        self._begun = self._done = None


class UpdateLoss(nn.Module):
    """The loss of an update: over all its elements, on all ranks, with the draws that our loop would make.

    On several ranks it is this rank's part, times their number: the mean over ranks, which data parallel trainers
    take of losses and gradients, is then the loss of the whole update.

    Args:
        objective: batch -> `Loss`, such as a `DownstreamModel`.
        settings: its `seed` and `update_batches`.
    """

    def __init__(self, objective: nn.Module, settings: TrainSettings) -> None:
        super().__init__()
        self.objective = objective
        self.settings = settings

    def forward(self, batches: Sequence[Batch]) -> Loss:
        """The loss of the batches of an update that are this rank's."""
        losses = []
        ranks = Ranks()
        counts = BatchCounts(kept_buffers(self.objective), self.settings.update_batches // ranks.world_size)
        for batch in batches:
            step, place = divmod(int(batch["batch_index"]), self.settings.update_batches)
            seed_draws(self.settings, step + 1, place)
            losses.append(self.objective(batch))
            counts.take()
        total = torch.stack([loss.mean * loss.num_elements for loss in losses]).sum()
        num_elements = torch.stack([loss.num_elements.to(total.device) for loss in losses]).sum()
        ranks.sum(num_elements)
        mean = total * ranks.world_size / num_elements.clamp(min=1)
        counts.settle(mean.detach().isfinite())
        # the gradient of a loss that is not finite may be finite (of |x| at NaN it is 0): not so of this
        return Loss(mean * (mean.detach() * 0 + 1), num_elements)


def limit_gradients(optimizer: torch.optim.Optimizer, settings: TrainSettings) -> None:
    """To be called between the gradient and the step: clips to `clip_norm`, and leaves out what is no update.

    That is one whose gradient is not finite, or without data, by which momentum and decay would move the weights.

    Args:
        optimizer: of `build_optimizer`; its next step does nothing if the update is to be left out.
        settings: of the run.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    gradients = [one.grad for one in parameters if one.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, (settings.clip_norm / (norm + 1e-6)).clamp(max=1.0))
    left_out = ~norm.isfinite() | (norm == 0)
    optimizer.found_inf = left_out.float()  # type: ignore[attr-defined]  # as torch.amp.GradScaler tells its optimizers


def rate_schedule(optimizer: torch.optim.Optimizer, settings: TrainSettings) -> LambdaLR:
    """The rates of our loop as a scheduler of torch, to be stepped after each update."""
    return LambdaLR(optimizer, lambda done: learning_rate(min(done + 1, settings.num_steps), settings) / settings.lr)
