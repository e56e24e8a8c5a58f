"""What a downstream recipe is, and SUPERB's as settings: nothing here knows a corpus, only what columns it should have.

Yang et al., "SUPERB: Speech processing Universal PERformance Benchmark", Interspeech 2021; numbers are those of
S3PRL's configurations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from s3prl_stream.errors import UsageError
from s3prl_stream.settings import fit_fields, meant
from s3prl_stream.tasks import KINDS


@dataclass(frozen=True)
class TaskRecipe:
    """A task with the head, the stream and the training that it is usually given. All of it may be set otherwise."""

    name: str
    kind: str
    """Of `tasks.KINDS`."""
    labels: tuple[str, ...]
    """Columns to predict: one, or one for each slot."""
    head: str = "linear"
    """Of `heads.KINDS`."""
    head_settings: Mapping[str, Any] = field(default_factory=dict)
    """See `build_head`: `pooling`, `spec_augment` and the settings of the frame layers."""
    task_settings: Mapping[str, Any] = field(default_factory=dict)
    """What else the task's constructor takes."""
    balance: bool = False
    """Draw each class equally often, with replacement."""
    crop_seconds: float | None = None
    """Longer clips are cut to a random stretch of this length."""
    chunk_frames: int | None = None
    """Instead: longer clips are cut into equal pieces of at most so many frames of the upstream; none is left out."""
    min_seconds: float = 0.0
    """Only longer clips are trained on."""
    max_batch_size: int = 32
    """Clips in a batch."""
    max_batch_seconds: float = 480.0
    """Padded seconds in a batch."""
    update_batches: int = 1
    """Batches in an update."""
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: float = 1e-4
    """Constant, without warm-up."""
    clip_norm: float = 1.0
    """Ceiling of the gradient's L2 norm."""
    steps: int = 200_000
    """Updates."""
    evaluate_every: int = 5_000
    """Updates between looks at the validation part."""

    def __post_init__(self) -> None:
        fit_fields(f"task {self.name}", self)
        if self.kind not in KINDS:
            raise UsageError(f"task {self.name}: kind {self.kind!r} is unknown; there are {', '.join(KINDS)}")
        if not self.labels:
            raise UsageError(f"task {self.name}: no label is named; give a column, or several of slots")
        if self.evaluate_every < 1:
            raise UsageError(f"task {self.name}: evaluate_every is {self.evaluate_every}; it must be at least 1")
        if self.kind == "ctc" and self.crop_seconds is not None:
            raise UsageError(f"task {self.name}: crop_seconds is {self.crop_seconds}, and a text is of a whole clip")

    def having(self, settings: Mapping[str, Any]) -> TaskRecipe:
        """With other settings by name; "head.X" and "task.X" set one of `head_settings` and `task_settings`.

        Another head begins without the settings of this one.

        Raises:
            UsageError: no such setting.
        """
        known = {one.name for one in dataclasses.fields(self)} - {"name", "kind", "head_settings", "task_settings"}
        values = {name: value for name, value in settings.items() if "." not in name}
        for name in values:
            if name not in known:
                hint = meant([name], [*sorted(known), "head.X", "task.X"])
                raise UsageError(f"task {self.name} has no setting {name!r}; {hint}")
        same_head = values.get("head", self.head) == self.head
        parts = {"head": dict(self.head_settings) if same_head else {}, "task": dict(self.task_settings)}
        for name, value in settings.items():
            part, dot, inner = name.partition(".")
            if dot:
                if part not in parts or not inner:
                    raise UsageError(f"task {self.name}: setting {name!r} should be head.X or task.X")
                parts[part][inner] = value
        return dataclasses.replace(self, **values, head_settings=parts["head"], task_settings=parts["task"])


_SPEECH_TO_TEXT: dict[str, Any] = {"kind": "ctc", "labels": ("text",)}
_BLSTM = {"spec_augment": True}

RECIPES: dict[str, TaskRecipe] = {
    recipe.name: recipe
    for recipe in (
        TaskRecipe(
            "pr", **_SPEECH_TO_TEXT, task_settings={"metrics": ("per",), "vocabulary": "phonemes"}, max_batch_size=16,
            update_batches=2, lr=1e-2, steps=100_000, evaluate_every=1_000,
        ),
        TaskRecipe(
            "asr", **_SPEECH_TO_TEXT, head="rnn", head_settings=_BLSTM, evaluate_every=2_000,
            task_settings={"metrics": ("wer", "cer"), "vocabulary": "characters"},
        ),
        TaskRecipe(
            "sf", **_SPEECH_TO_TEXT, head="rnn", head_settings=_BLSTM, evaluate_every=2_000,
            task_settings={"metrics": ("slot_type_f1", "slot_value_cer"), "vocabulary": "slots"},
        ),
        TaskRecipe("ks", "classify", ("label",), balance=True),
        TaskRecipe("ic", "slots", ("action", "object", "location")),
        TaskRecipe("sid", "classify", ("speaker",), max_batch_size=8, update_batches=4, crop_seconds=8.0),
        TaskRecipe(
            "er", "classify", ("label",), max_batch_size=4, update_batches=8, steps=30_000, evaluate_every=1_000
        ),
        TaskRecipe(
            "asv", "verify", ("speaker",), head="xvector", max_batch_size=10, update_batches=5, crop_seconds=8.0,
            min_seconds=2.0, optimizer="adamw", clip_norm=1e3, evaluate_every=10_000,
        ),
        TaskRecipe(
            "sd", "diarize", ("segments",), head="rnn", task_settings={"num_speakers": 2}, max_batch_size=8,
            head_settings={
                "project_size": None, "hidden_size": 512, "num_layers": 1, "bidirectional": False, "dropout": 0.0,
            },
            update_batches=4, steps=30_000, evaluate_every=500, chunk_frames=2_000,
        ),
        TaskRecipe("tag", "multilabel", ("labels",)),
        TaskRecipe("frames", "frames", ("segments",)),
    )
}  # fmt: skip
"""SUPERB's tasks that train something, by their abbreviations; "tag" and "frames" are ours, with SUPERB's probe."""


def find_task(task: str | TaskRecipe) -> TaskRecipe:
    """A recipe by name; UsageError for another name."""
    if isinstance(task, TaskRecipe):
        return task
    if task not in RECIPES:
        raise UsageError(f"task {task!r} is unknown; there are {', '.join(RECIPES)}")
    return RECIPES[task]
