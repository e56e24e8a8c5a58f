"""SpeechBrain: `StreamBrain(model, settings, checkpointer=...).fit(range(1), Updates(stream, settings))`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from speechbrain.core import Brain, Stage
from speechbrain.utils.distributed import if_main_process
from torch import Tensor, nn

from s3prl_stream.adapters.judged import Judged, judged_model
from s3prl_stream.adapters.updates import UpdateLoss, Updates, limit_gradients, rate_schedule
from s3prl_stream.downstream.judge import answers_of
from s3prl_stream.errors import StateError
from s3prl_stream.json_files import read_json
from s3prl_stream.objectives.loss import Loss
from s3prl_stream.pipes.stage import Source
from s3prl_stream.sample import Batch
from s3prl_stream.tasks import Answer
from s3prl_stream.trainer.optimizer import build_optimizer
from s3prl_stream.trainer.settings import TrainSettings
from s3prl_stream.trainer.to_device import ToDevice


class StreamBrain(Brain):  # type: ignore[misc]
    """A `Brain` of an objective on a stream. Its checkpointer gets the weights, optimizer, rate and cursor.

    Args:
        objective: batch -> `Loss`, such as the model of `ss.training_parts`.
        settings: how to train: steps, rate, clipping, optimizer.
        run_opts: what else there is to say, as a `Brain` takes it: device, precision, `ckpt_interval_steps` (of
            updates) ...
        **brain: what else a `Brain` takes, such as `checkpointer`.

    Attributes:
        figures: of the task on what was judged last (`fit(..., valid_set=parts.judged)`, `evaluate(parts.judged)`).
    """

    def __init__(
        self, objective: nn.Module, settings: TrainSettings, run_opts: Mapping[str, Any] | None = None, **brain: Any
    ) -> None:
        options = {**(run_opts or {}), "optimizer_step_limit": settings.num_steps, "grad_accumulation_factor": 1}
        options["max_grad_norm"] = math.inf  # see limit_gradients; SpeechBrain clips the first group of parameters only
        self.update_loss = UpdateLoss(objective, settings)  # the one in `modules` may be wrapped for several ranks
        super().__init__(modules={"update_loss": self.update_loss}, run_opts=options, **brain)
        self.settings = settings
        self.updates: Updates | None = None
        self.under_way: Sequence[Batch] = ()
        self.answers: list[Answer] = []
        self.figures: dict[str, float] = {}

    def make_dataloader(self, dataset: Any, stage: Stage, *args: Any, **named: Any) -> Any:
        """`Updates` are dealt as they are, and their cursor goes into the checkpoints; a stream that ends is judged."""
        if isinstance(dataset, Source):
            return Judged(dataset)
        if not isinstance(dataset, Updates):
            return super().make_dataloader(dataset, stage, *args, **named)
        self.updates = dataset
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("cursor", dataset, _load_cursor, _save_cursor)
        return dataset

    def init_optimizers(self) -> None:
        """Those of the settings."""
        self.optimizer = build_optimizer(self.modules, self.settings)
        self.optimizers_dict = {"optimizer": self.optimizer}
        self.rates = rate_schedule(self.optimizer, self.settings)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverables(
                {"model": self.update_loss, "optimizer": self.optimizer, "rates": self.rates}
            )

    def compute_forward(self, batch: Any, stage: Stage) -> Loss:
        """The loss of an update, or of a batch that is judged."""
        to_device = ToDevice(torch.device(self.device))
        if stage == Stage.TRAIN:
            self.under_way = batch
            found: Loss = self.modules["update_loss"]([to_device(one) for one in batch])
            return found
        model, batch = judged_model(self.update_loss), to_device(batch)
        self.answers += answers_of(model, batch)
        judged: Loss = model(batch)
        return judged

    def on_stage_end(self, stage: Stage, stage_loss: float | None, epoch: int | None = None) -> None:  # noqa: ARG002
        """Figures of what was judged. Call it, if you override it."""
        if stage != Stage.TRAIN:
            answers, self.answers = self.answers, []
            self.figures = judged_model(self.update_loss).task.score(answers)

    def compute_objectives(self, predictions: Loss, batch: Sequence[Batch], stage: Stage) -> Tensor:  # noqa: ARG002
        """Its mean."""
        return predictions.mean

    def optimizers_step(self) -> None:
        """An update, after which rate and cursor move on."""
        limit_gradients(self.optimizer, self.settings)
        super().optimizers_step()
        self.rates.step()
        if self.updates is not None:
            self.updates.done(self.under_way)


def _save_cursor(updates: Updates, path: Path) -> None:
    if if_main_process():  # it is the same on all
        Path(path).write_text(json.dumps(updates.state_dict()), encoding="utf-8")


def _load_cursor(updates: Updates, path: Path, end_of_epoch: bool) -> None:  # noqa: ARG001
    updates.load_state_dict(read_json(Path(path), StateError, "Delete this checkpoint to use an older one."))
