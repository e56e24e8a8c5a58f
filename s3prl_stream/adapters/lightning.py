"""Lightning: `Trainer.fit(StreamModule(model, settings), StreamData(stream, settings))`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from s3prl_stream.adapters.judged import Judged, judged_model
from s3prl_stream.adapters.updates import UpdateLoss, Updates, limit_gradients, rate_schedule
from s3prl_stream.downstream.judge import answers_of
from s3prl_stream.pipes.stage import Source
from s3prl_stream.sample import Batch
from s3prl_stream.tasks import Answer
from s3prl_stream.trainer.optimizer import build_optimizer
from s3prl_stream.trainer.settings import TrainSettings


class StreamModule(pl.LightningModule):
    """An objective with the optimizer, rate and clipping of its settings.

    Logs `train_loss`, and the figures of the task on what `StreamData` has to be judged, such as `valid_accuracy`.

    Args:
        objective: batch -> `Loss`, such as the model of `ss.training_parts`.
        settings: how to train. The Trainer says how long (`max_steps=settings.num_steps`), on what, in which precision
            ("32-true" or "bf16-mixed"), and what to keep.
    """

    def __init__(self, objective: nn.Module, settings: TrainSettings) -> None:
        super().__init__()
        self.settings = settings
        self.update_loss = UpdateLoss(objective, settings)
        self._under_way: Sequence[Batch] = ()
        self._answers: list[Answer] = []

    def training_step(self, batches: Sequence[Batch], batch_idx: int) -> Tensor:  # noqa: ARG002
        """The loss of an update."""
        self._under_way = batches
        mean: Tensor = self.update_loss(batches).mean
        self.log("train_loss", mean, prog_bar=True, sync_dist=True, batch_size=1)
        return mean

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Answers to the clips of a batch."""
        self._answers += answers_of(judged_model(self.update_loss), batch)

    def on_validation_epoch_end(self) -> None:
        """Their figures."""
        answers, self._answers = self._answers, []
        figures = judged_model(self.update_loss).task.score(answers)
        self.log_dict({f"valid_{name}": value for name, value in figures.items()}, sync_dist=True, batch_size=1)

    def configure_optimizers(self) -> Any:
        """Those of the settings."""
        optimizer = build_optimizer(self, self.settings)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": rate_schedule(optimizer, self.settings), "interval": "step"},
        }

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clips."""
        limit_gradients(optimizer, self.settings)

    def optimizer_step(self, *args: Any, **named: Any) -> None:
        """The step, after which the cursor moves on."""
        super().optimizer_step(*args, **named)
        source = self.trainer.train_dataloader
        if isinstance(source, Updates):
            source.done(self._under_way)


class StreamData(pl.LightningDataModule):
    """A stream to train on, whose cursor is in the checkpoints.

    Args:
        stream: an endless chain on a ShardStream.
        settings: those of the module.
        judged: a stream that ends, of the validation part; every rank judges all of it.
        **updates: what else `Updates` take, such as `num_workers`.
    """

    def __init__(self, stream: Source, settings: TrainSettings, judged: Source | None = None, **updates: Any) -> None:
        super().__init__()
        self.updates = Updates(stream, settings, **updates)
        self.judged = judged

    def train_dataloader(self) -> Updates:
        """The batches of an update at a time. The stream shards itself by rank, so Lightning need not."""
        return self.updates

    def val_dataloader(self) -> Any:
        """The validation part, if there is one."""
        return [] if self.judged is None else Judged(self.judged)

    def state_dict(self) -> dict[str, Any]:
        """The cursor."""
        return self.updates.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a cursor."""
        self.updates.load_state_dict(state_dict)
