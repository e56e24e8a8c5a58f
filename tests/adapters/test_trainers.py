"""Lightning, Hugging Face's Trainer and SpeechBrain: the losses of our loop, killed and resumed, each clip once."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import one_run
from adapters.one_run import CLIPS, SAVED_EVERY, SETTINGS, STEPS, TRAINERS, ours, seen
from downstream.synthetic import classes

import s3prl_stream as ss
from s3prl_stream.adapters import Updates
from s3prl_stream.downstream.judge import answers_to
from s3prl_stream.downstream.streams import judged_stream
from s3prl_stream.shards.shardset import as_shard_set

pytestmark = [
    pytest.mark.slow,
    # of the trainers themselves, with the versions that are installed
    pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning", "default::UserWarning"),
]
KILLED_AT = 11
TOLERANCE = 1e-5  # relative: an update sums its batches in another order than our loop


@pytest.fixture(scope="module")
def our_losses(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return ours(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module", params=TRAINERS)
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    """Name of the trainer, folder and losses of a run from beginning to end."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, TRAINERS[request.param](folder, STEPS)


def test_the_losses_are_those_of_our_loop(undisturbed: tuple[str, Path, Any], our_losses: list[float]) -> None:
    _, folder, losses = undisturbed
    assert losses == pytest.approx(our_losses, rel=TOLERANCE)
    assert [line["loss"] for line in seen(folder)] == pytest.approx(our_losses, rel=TOLERANCE)


def test_a_killed_run_goes_on_mid_epoch_with_the_ledger_exact(
    undisturbed: tuple[str, Path, Any], tmp_path: Path
) -> None:
    """SIGKILL in update 11, the newest checkpoint of update 8, which ends in the middle of an epoch."""
    name, folder, losses = undisturbed
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, one_run.__file__, name, str(tmp_path), str(KILLED_AT)]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert [line["step"] for line in seen(tmp_path)] == list(range(1, KILLED_AT + 1))
    again = TRAINERS[name](tmp_path, STEPS)
    lines = seen(tmp_path)
    resumed = lines[KILLED_AT:]
    assert [line["step"] for line in resumed] == list(range(2 * SAVED_EVERY + 1, STEPS + 1))
    in_the_weights = lines[: 2 * SAVED_EVERY] + resumed
    assert in_the_weights == seen(folder)
    assert again[-len(resumed) :] == losses[-len(resumed) :]  # Hugging Face's log has those before as well

    delivered = Counter((epoch, key) for line in in_the_weights for epoch, key in line["clips"])
    assert set(delivered.values()) == {1}
    full = max(epoch for epoch, _ in delivered)  # the last one has not ended
    keys = set(as_shard_set(classes(CLIPS)).table()["key"].to_pylist())
    assert {one for one in delivered if one[0] < full} == set(itertools.product(range(full), keys))
    begun_at_resume = {epoch for epoch, _ in resumed[0]["clips"]} & {epoch for epoch, _ in lines[7]["clips"]}
    assert begun_at_resume, "the checkpoint is to lie in the middle of an epoch"


def counted(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many answers the task of a model is asked for the figures of, each time."""
    given: list[int] = []
    score = model.task.score
    monkeypatch.setattr(model.task, "score", lambda answers: (given.append(len(answers)), score(answers))[1])
    return given


def test_lightnings_epochs_are_a_number_of_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Lightning has fetched when an epoch ends is not lost, also not behind a checkpoint at its end."""
    import lightning.pytorch as pl

    from s3prl_stream.adapters.lightning import StreamData, StreamModule

    def fitted(epochs: int, checkpoint: Path | None) -> Any:
        parts = ss.training_parts("ks", classes(CLIPS), **SETTINGS, valid_where="part == 'test'")
        module = StreamModule(parts.model, parts.settings)
        one_run.recorded(module.update_loss, tmp_path, None)
        trainer = pl.Trainer(
            max_epochs=epochs, limit_train_batches=3, accelerator="cpu", devices=1, default_root_dir=tmp_path,
            logger=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
            num_sanity_val_steps=0,
        )  # fmt: skip
        data = StreamData(parts.stream, parts.settings, parts.judged)
        judged.append(counted(parts.model, monkeypatch))
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        return trainer

    judged: list[list[int]] = []
    trainer = fitted(2, None)
    assert 0 <= trainer.callback_metrics["valid_accuracy"] <= 1
    assert judged == [[3, 3]]  # each clip once in each epoch
    fitted(4, trainer.checkpoint_callback.best_model_path)
    assert [line["step"] for line in seen(tmp_path)] == list(range(1, 13))


def test_hugging_face_judges_and_refuses_a_checkpoint_without_cursor(tmp_path: Path) -> None:
    from transformers import TrainerCallback, TrainingArguments

    from s3prl_stream.adapters.huggingface import CURSOR, StreamTrainer

    def trained(steps: int) -> Any:
        parts = ss.training_parts("ks", classes(CLIPS), **{**SETTINGS, "steps": steps}, valid_where="part == 'test'")
        args = TrainingArguments(
            output_dir=str(tmp_path), eval_strategy="steps", eval_steps=2, save_steps=2, report_to="none",
            disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
        )  # fmt: skip
        return StreamTrainer(parts.model, parts.settings, args, Updates(parts.stream, parts.settings), parts.judged)

    class Told(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            told.append((state.global_step, next(iter(metrics))))

    told: list[tuple[int, str]] = []
    trainer = trained(4)
    trainer.add_callback(Told())
    trainer.train()
    assert [line["step"] for line in trainer.state.log_history if "eval_accuracy" in line] == [2, 4]
    other = judged_stream(as_shard_set(classes(8)))
    wanted = trainer.model.objective.task.score(
        answers_to(trainer.model.objective, ss.Loader(other), torch.device("cpu"))
    )
    assert trainer.evaluate(other, metric_key_prefix="test")["test_accuracy"] == wanted["accuracy"]
    assert told == [(2, "eval_accuracy"), (4, "eval_accuracy"), (4, "test_accuracy")]
    state = tmp_path / "checkpoint-4" / "trainer_state.json"
    written = json.loads(state.read_text())
    assert written["stateful_callbacks"].pop(CURSOR)["next_batch"] == 8
    state.write_text(json.dumps(written))
    with pytest.raises(ss.StateError, match=r"checkpoint-4: trainer_state.json has no cursor \(KeyError"):
        trained(6).train(resume_from_checkpoint=True)
    state.write_text(json.dumps(written)[:99])  # as a kill leaves it
    with pytest.raises(ss.StateError, match=r"checkpoint-4: trainer_state.json has no cursor \(JSONDecodeError"):
        trained(6).train(resume_from_checkpoint=True)
    state.unlink()
    with pytest.raises(ss.StateError, match=r"checkpoint-4: .* Delete this checkpoint to use an older one"):
        trained(6).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_speechbrain_has_epochs_and_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of three updates; a checkpoint at its end is where the next process begins."""
    from speechbrain.core import Stage
    from speechbrain.utils.checkpoints import Checkpointer
    from speechbrain.utils.epoch_loop import EpochCounter

    from s3prl_stream.adapters.speechbrain import StreamBrain

    class Saving(StreamBrain):
        def on_stage_end(self, stage: Any, stage_loss: Any, epoch: int | None = None) -> None:
            super().on_stage_end(stage, stage_loss, epoch)
            if stage == Stage.VALID:
                self.checkpointer.save_checkpoint(meta=self.figures)

    def fitted(epochs: int) -> StreamBrain:
        parts = ss.training_parts("ks", classes(CLIPS), **SETTINGS, valid_where="part == 'test'")
        counter = EpochCounter(epochs)
        checkpointer = Checkpointer(tmp_path, recoverables={"epochs": counter})
        brain = Saving(parts.model, parts.settings, {"device": "cpu", "noprogressbar": True}, checkpointer=checkpointer)
        one_run.recorded(brain.modules["update_loss"], tmp_path, None)
        judged.append(counted(parts.model, monkeypatch))
        brain.fit(counter, Updates(parts.stream, parts.settings, epoch_updates=3), parts.judged)
        return brain

    judged: list[list[int]] = []
    assert 0 <= fitted(2).figures["accuracy"] <= 1
    assert judged == [[3, 3]]  # each clip once in each epoch
    fitted(4)
    assert [line["step"] for line in seen(tmp_path)] == list(range(1, 13))
    cursor = max(tmp_path.glob("CKPT*"), key=lambda folder: folder.stat().st_mtime_ns) / "cursor.ckpt"
    cursor.write_text(cursor.read_text()[:40])
    with pytest.raises(ss.StateError, match=r"cursor\.ckpt: cannot be read .* Delete this checkpoint to use an older"):
        fitted(5)
    cursor.unlink()
    with pytest.raises(RuntimeError, match="missing a load path for cursor"):
        fitted(5)  # what a kill has left is refused


def test_only_tasks_are_judged(tmp_path: Path) -> None:
    from s3prl_stream.adapters.judged import judged_model
    from s3prl_stream.adapters.updates import UpdateLoss

    parts = ss.training_parts("ks", classes(CLIPS), **SETTINGS)
    assert judged_model(UpdateLoss(parts.model, parts.settings)) is parts.model
    with pytest.raises(ss.UsageError, match="only the model of a task"):
        judged_model(UpdateLoss(torch.nn.Linear(1, 1), parts.settings))
