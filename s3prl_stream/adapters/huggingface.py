"""Hugging Face: `StreamTrainer(model, settings, args, Updates(stream, settings)).train()`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from s3prl_stream.adapters.judged import judged_model
from s3prl_stream.adapters.updates import UpdateLoss, Updates, limit_gradients, rate_schedule
from s3prl_stream.downstream.judge import answers_to
from s3prl_stream.errors import StateError
from s3prl_stream.loader import Loader
from s3prl_stream.pipes.stage import Source
from s3prl_stream.sample import Batch
from s3prl_stream.trainer.optimizer import build_optimizer
from s3prl_stream.trainer.settings import TrainSettings

CURSOR = "s3prl_stream cursor"
"""Its name among the `stateful_callbacks` of `trainer_state.json`, the file that is written last in a checkpoint."""


class StreamTrainer(Trainer):
    """A `Trainer` of an objective on a stream.

    Args:
        objective: batch -> `Loss`, such as the model of `ss.training_parts`.
        settings: how to train: steps, rate, clipping, optimizer. What `args` say of these does not count.
        args: what else there is to say: where to, what to log and save, bf16 ... Under torchrun each process is a rank;
            several GPUs in one process are not used.
        updates: what to train on.
        judged: a stream that ends, of the validation part; every rank judges all of it.
        **trainer: what else a `Trainer` takes, such as `callbacks`.
    """

    def __init__(
        self,
        objective: nn.Module,
        settings: TrainSettings,
        args: TrainingArguments,
        updates: Updates,
        judged: Source | None = None,
        **trainer: Any,
    ) -> None:
        args.max_steps = settings.num_steps
        args.gradient_accumulation_steps = 1  # an item is all of an update
        args.max_grad_norm = 0.0  # see limit_gradients
        args.ignore_data_skip = True  # the cursor is there already: a skip would pass over what was not trained on
        args._n_gpu = min(args.n_gpu, 1)
        self.update_loss = UpdateLoss(objective, settings)
        super().__init__(self.update_loss, args, eval_dataset=judged, **trainer)
        self.settings = settings
        self.updates = updates
        self.add_callback(_Between(self))
        self.under_way: Sequence[Batch] = ()

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **named: Any) -> Any:
        """See `Trainer.train`.

        Raises:
            StateError: the checkpoint has no cursor. A kill while one was written leaves it incomplete.
        """
        if resume_from_checkpoint is True:
            newest: Any = get_last_checkpoint
            resume_from_checkpoint = newest(self.args.output_dir) or True
        if isinstance(resume_from_checkpoint, str):
            self.updates.load_state_dict(_cursor_in(Path(resume_from_checkpoint)))
        return super().train(resume_from_checkpoint, *args, **named)

    def get_train_dataloader(self) -> Any:
        """The updates, which shard themselves by rank."""
        return self.updates

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Any:
        """The loss of an update."""
        self.under_way = inputs
        loss = model(inputs)
        return (loss.mean, loss) if return_outputs else loss.mean

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The figures of the task on the validation part, or on another stream that ends, such as `eval_accuracy`."""
        model = judged_model(self.update_loss)
        stream: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        answers = answers_to(model, Loader(stream, rank=0, world_size=1), self.args.device)
        figures = {f"{metric_key_prefix}_{name}": value for name, value in model.task.score(answers).items()}
        self.log(figures)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """That of the settings."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(model or self.update_loss, self.settings)
        return self.optimizer

    def create_scheduler(
        self,
        num_training_steps: int,  # noqa: ARG002
        optimizer: torch.optim.Optimizer | None = None,
    ) -> Any:
        """The rates of the settings."""
        if self.lr_scheduler is None:
            self.lr_scheduler = rate_schedule(unwrapped(optimizer or self.optimizer), self.settings)
            self._created_lr_scheduler = True
        return self.lr_scheduler


class _Between(TrainerCallback):
    """What is to happen between the pieces of an update, and the cursor's way into the checkpoints."""

    def __init__(self, trainer: StreamTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        limit_gradients(unwrapped(self.trainer.optimizer), self.trainer.settings)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.trainer.updates.done(self.trainer.under_way)
        state.stateful_callbacks[CURSOR] = self.trainer.updates.state_dict()


def _cursor_in(checkpoint: Path) -> dict[str, Any]:
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
        cursor: dict[str, Any] = state["stateful_callbacks"][CURSOR]
    except (OSError, ValueError, KeyError) as error:
        raise StateError(
            f"{checkpoint}: trainer_state.json has no cursor ({error!r}). Delete this checkpoint to use an older one."
        ) from error
    return cursor


def unwrapped(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer that accelerate has wrapped."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner
