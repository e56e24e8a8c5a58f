"""One short run under four trainers, with all that draws in it (noise, dropout, SpecAugment), two batches an update and
a rate that rises and falls. What the trainers themselves are told of all this is wrong, and does not count.

    python one_run.py TRAINER FOLDER KILLED_AT     # as a process that kills itself in an update; 0: it does not
    torchrun --nproc-per-node 2 one_run.py TRAINER FOLDER 0     # as two ranks, with a batch of each update

Whatever trains, `FOLDER/seen-RANK.jsonl` gets a line for each update that is begun: its clips and its loss.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from downstream.synthetic import classes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import s3prl_stream as ss
from s3prl_stream.adapters import UpdateLoss, Updates, limit_gradients, rate_schedule
from s3prl_stream.downstream.parts import TrainingParts
from s3prl_stream.downstream.streams import seconds_by_set
from s3prl_stream.trainer.loop import train
from s3prl_stream.trainer.optimizer import build_optimizer
from s3prl_stream.trainer.settings import TrainSettings

STEPS, SAVED_EVERY = 20, 4
CLIPS = 13  # three batches in an epoch, of 5, 5 and 3 clips or so: no epoch ends with an update
SEEN = f"seen-{os.environ.get('RANK', 0)}.jsonl"
RANKS = int(os.environ.get("WORLD_SIZE", "1"))
SETTINGS: dict[str, Any] = {
    "upstream": "logmel80", "device": "cpu", "seed": 3, "steps": STEPS, "balance": False, "max_batch_size": 5,
    "update_batches": 2, "optimizer": "adamw", "lr": 2e-2, "clip_norm": 0.5, "noise": "gaussian", "snr": (5, 20),
    "head": "rnn", "head.project_size": 16, "head.hidden_size": 16, "head.num_layers": 1, "head.dropout": 0.3,
    "head.spec_augment": True, "normalize": True,
}  # fmt: skip


def parts_of(steps: int = STEPS) -> TrainingParts:
    """What is trained."""
    parts = ss.training_parts("ks", classes(CLIPS), **{**SETTINGS, "steps": steps})
    return dataclasses.replace(
        parts, settings=dataclasses.replace(parts.settings, schedule="linear", warmup_share=0.25)
    )


def ours(folder: Path) -> list[float]:
    """The losses of our own loop."""
    parts = parts_of()
    train(
        parts.model, ss.Loader(parts.stream), parts.settings, run=folder, set_names=["memory"],
        seconds_by_set=seconds_by_set, quiet=True,
    )  # fmt: skip
    return [json.loads(line)["loss"] for line in (folder / "losses.jsonl").read_text().splitlines()]


def own_loop(_: Path, steps: int, stop_after: int | None = None, states: dict[str, Any] | None = None) -> list[float]:
    """The losses of a loop of one's own, see `loop`."""
    parts = parts_of()
    return loop(parts.model, parts.stream, parts.settings, stop_after or steps, {} if states is None else states)


def loop(objective: nn.Module, stream: Any, settings: TrainSettings, steps: int, states: dict[str, Any]) -> list[float]:
    """The losses of so many updates from the states of another loop; leaves its own there, and fetches a bit ahead."""
    loss_of, updates = UpdateLoss(objective, settings), Updates(stream, settings)
    optimizer = build_optimizer(loss_of, settings)
    rates = rate_schedule(optimizer, settings)
    objects: dict[str, Any] = {"loss": loss_of, "updates": updates, "optimizer": optimizer, "rates": rates}
    for name, state in states.items():
        objects[name].load_state_dict(state)
    if RANKS > 1:
        torch.distributed.init_process_group("gloo")
    wrapped = DistributedDataParallel(loss_of) if RANKS > 1 else loss_of
    losses: list[float] = []
    for batches in updates:
        if len(losses) == steps:
            break
        optimizer.zero_grad()
        found = wrapped(batches)
        found.mean.backward()
        limit_gradients(optimizer, settings)
        optimizer.step()
        rates.step()
        updates.done(batches)
        losses.append(found.mean.item())
    states.update({name: one.state_dict() for name, one in objects.items()})
    if RANKS > 1:
        torch.distributed.destroy_process_group()
    return losses


def lightning(folder: Path, steps: int, killed_at: int | None = None) -> list[float]:
    """The losses that Lightning saw from where it stood."""
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import ModelCheckpoint

    from s3prl_stream.adapters.lightning import StreamData, StreamModule

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            losses.append(trainer.callback_metrics["train_loss"].item())

    losses: list[float] = []
    parts = parts_of()
    module = StreamModule(parts.model, parts.settings)
    recorded(module.update_loss, folder, killed_at)
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", devices=RANKS, default_root_dir=folder, logger=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[Losses(), ModelCheckpoint(folder / "checkpoints", every_n_train_steps=SAVED_EVERY, save_top_k=-1)],
    )  # fmt: skip
    saved = sorted((folder / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    newest = saved[-1] if saved else None
    trainer.fit(module, StreamData(parts.stream, parts.settings), ckpt_path=newest, weights_only=True)
    return losses


def huggingface(folder: Path, steps: int, killed_at: int | None = None) -> list[float]:
    """The losses in the log of Hugging Face's Trainer."""
    from transformers import TrainingArguments

    from s3prl_stream.adapters.huggingface import StreamTrainer

    parts = parts_of(steps)
    args = TrainingArguments(
        output_dir=str(folder / "checkpoints"), logging_steps=1, save_steps=SAVED_EVERY, report_to="none",
        disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, max_steps=3, gradient_accumulation_steps=3,
        max_grad_norm=1e-3, learning_rate=1.0,
    )  # fmt: skip
    trainer = StreamTrainer(parts.model, parts.settings, args, Updates(parts.stream, parts.settings))
    recorded(trainer.model, folder, killed_at)
    trainer.train(resume_from_checkpoint=any((folder / "checkpoints").glob("checkpoint-*")))
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def speechbrain(folder: Path, steps: int, killed_at: int | None = None) -> list[float]:
    """The losses that SpeechBrain saw from where it stood."""
    from speechbrain.utils.checkpoints import Checkpointer
    from speechbrain.utils.distributed import ddp_init_group

    from s3prl_stream.adapters.speechbrain import StreamBrain

    class Told(StreamBrain):
        def on_fit_batch_end(self, batch: Any, outputs: Any, loss: Any, should_step: bool) -> None:
            losses.append(loss.item())

    losses: list[float] = []
    parts = parts_of(steps)
    if RANKS > 1:
        ddp_init_group({"distributed_backend": "gloo"})
    options = {"device": "cpu", "ckpt_interval_steps": SAVED_EVERY, "noprogressbar": True}
    options |= {"optimizer_step_limit": 3, "grad_accumulation_factor": 3, "max_grad_norm": 1e-3}
    brain = Told(parts.model, parts.settings, options, checkpointer=Checkpointer(folder / "checkpoints"))
    recorded(brain.modules["update_loss"], folder, killed_at)
    brain.fit(range(1), Updates(parts.stream, parts.settings))
    return losses


TRAINERS: dict[str, Callable[..., list[float]]] = {
    "lightning": lightning,
    "huggingface": huggingface,
    "speechbrain": speechbrain,
}


def recorded(loss: nn.Module, folder: Path, killed_at: int | None) -> None:
    """Write down each update that is begun; and be killed in one of them."""
    assert isinstance(loss, UpdateLoss)
    folder.mkdir(parents=True, exist_ok=True)

    def write(_: nn.Module, arguments: tuple[Any, ...], found: Any) -> None:
        (batches,) = arguments
        step = int(batches[0]["batch_index"]) // 2 + 1
        clips = [row for batch in batches for row in zip(batch["epoch"].tolist(), batch["key"], strict=True)]
        line = {"step": step, "clips": clips, "loss": found.mean.item()}
        with (folder / SEEN).open("a") as log:
            log.write(json.dumps(line) + "\n")
        if step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    loss.register_forward_hook(write)


def seen(folder: Path) -> list[dict[str, Any]]:
    """The lines of the updates."""
    return [json.loads(line) for line in (folder / SEEN).read_text().splitlines()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    trained_by = TRAINERS.get(sys.argv[1], own_loop)
    found = trained_by(Path(sys.argv[2]), STEPS, int(sys.argv[3]))
    Path(sys.argv[2], f"losses-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(found))
