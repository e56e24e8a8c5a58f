"""An update of the weights: the gradient of the mean loss over all elements of all ranks' batches, and a step along it.

Nothing in it waits for the device: what it decides (to leave out an update) is decided there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from s3prl_stream.models.draws import seed_torch
from s3prl_stream.objectives.loss import Loss
from s3prl_stream.sample import Batch
from s3prl_stream.trainer.optimizer import apply_update, build_optimizer, learning_rate, trained_parameters
from s3prl_stream.trainer.ranks import Ranks, kept_buffers
from s3prl_stream.trainer.settings import TrainSettings
from s3prl_stream.trainer.to_device import ToDevice


class Updater:
    """Makes the updates of an objective.

    Args:
        objective: batch -> `Loss`, on the device.
        settings: how to train.
        ranks: those that share the updates.
        device: where.

    Attributes:
        optimizer: of the objective.
    """

    def __init__(self, objective: nn.Module, settings: TrainSettings, ranks: Ranks, device: torch.device) -> None:
        self.optimizer = build_optimizer(objective, settings)
        self._objective = objective
        self._buffers = kept_buffers(objective)
        self._settings = settings
        self._ranks = ranks
        self._to_device = ToDevice(device)

    def update(self, step: int, batches: Sequence[Batch], seconds: Sequence[float]) -> Tensor:
        """One update, or none where it had better be left out.

        Args:
            step: its number, from 1.
            batches: those of this rank.
            seconds: audio of each set in them.

        Returns:
            float64, of all ranks: loss, norm of the gradient, number of elements, batches without memory, seconds of
            each set.
        """
        sums = self._to_device({"sums": torch.tensor([0.0, 0.0, 0.0, *seconds], dtype=torch.float64)})["sums"]
        counts = BatchCounts(self._buffers, self._settings.update_batches // self._ranks.world_size)
        self._add_gradients(step, [self._to_device(batch) for batch in batches], sums, counts)
        figures = self._update_weights(step, sums)
        counts.settle(_is_update(figures))
        return figures

    def _add_gradients(self, step: int, batches: Sequence[Batch], sums: Tensor, counts: BatchCounts) -> None:
        """Gradients of the sum of the loss over all elements of this rank's batches.

        A batch that exhausts the memory is counted and ends the rank's part; the update will be left out.

        Args:
            step: of the update.
            batches: on the device.
            sums: float64; gets the loss at 0, the number of elements at 1, the batches without memory at 2.
            counts: of the update.
        """
        self._objective.zero_grad(set_to_none=True)
        is_bf16 = self._settings.precision == "bf16"
        for turn, batch in enumerate(batches):
            # of the batch in the update: batch b belongs to rank b % world
            seed_draws(self._settings, step, turn * self._ranks.world_size + self._ranks.rank)
            try:
                with torch.autocast(sums.device.type, torch.bfloat16, enabled=is_bf16):
                    loss: Loss = self._objective(batch)
                total = loss.mean * loss.num_elements
                torch.autograd.backward(total)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                sums[2] += 1
                break
            counts.take()
            sums[0] += total.detach()
            sums[1] += loss.num_elements

    def _update_weights(self, step: int, sums: Tensor) -> Tensor:
        """A step by the mean gradient over all elements of all ranks; what `update` returns."""
        parameters = trained_parameters(self._objective)
        for parameter in parameters:
            if parameter.grad is None:  # no part in any loss here, but perhaps on another rank
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self._ranks.sum(sums)
        self._ranks.sum_gradients(gradients)
        num_elements = sums[1].clamp(min=1)
        loss = sums[0] / num_elements
        norm = nn.utils.get_total_norm(gradients).double() / num_elements
        figures = torch.cat([torch.stack([loss, norm]), sums[1:]])
        factor = (self._settings.clip_norm / (norm + 1e-6)).clamp(max=1.0) / num_elements
        torch._foreach_mul_(gradients, factor.float())
        rate = learning_rate(step, self._settings)
        apply_update(self.optimizer, rate=rate, left_out=~_is_update(figures))
        return figures


def seed_draws(settings: TrainSettings, step: int, place: int) -> None:
    """Have all that an objective draws on a batch follow from the run's seed, the step and its place in the update."""
    seed_torch("train", settings.seed, step, place)


class BatchCounts:
    """What batch norms count in one update: of each batch from where the update began, then the mean of that.

    So it is the same on any number of ranks, of which one sees several batches one after another and of which many see
    one each. Numbers of batches, and flags, are those after one batch: an update counts as one. Made before the update.

    Args:
        buffers: `kept_buffers`; what does not change in a batch stays as it is.
        num_batches: of this rank in a whole update. Fewer, at the end of a finite stream, count as nothing new.
    """

    def __init__(self, buffers: Sequence[Tensor], num_batches: int) -> None:
        self._num_batches = num_batches
        self._buffers = buffers
        self._before = [buffer.clone() for buffer in buffers]
        self._after = [buffer.clone() for buffer in buffers]

    # .data: a batch norm's backward, if it is to come, holds its buffers, though in training it does not use them

    def take(self) -> None:
        """After each batch: note what it has counted, and take it back."""
        for buffer, before, after in zip(self._buffers, self._before, self._after, strict=True):
            is_new = buffer != before  # else no difference: of what is infinite, as in a mask, it would be no number
            if buffer.is_floating_point():
                after += torch.where(is_new, buffer - before, 0.0) / self._num_batches
            else:
                after.copy_(torch.where(is_new, buffer, after))
            buffer.data.copy_(before)

    def settle(self, good: Tensor) -> None:
        """In the end; nothing is counted unless the update was good: a value that is not finite would stay for good."""
        for buffer, before, after in zip(self._buffers, self._before, self._after, strict=True):
            buffer.data.copy_(torch.where(good, after, before))


def _is_update(figures: Tensor) -> Tensor:
    """Scalar bool on the device: False for an update that had better be left out, by what `update` returns."""
    # without any data momentum and decay would move the weights
    return figures[:2].isfinite().all() & (figures[2] > 0) & (figures[3] == 0)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """True for torch's error on a GPU and for the allocator's on a CPU, which has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
