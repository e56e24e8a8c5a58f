"""A probe of the network that is being trained, now and then: is what it learns of use?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from s3prl_stream.errors import UsageError
from s3prl_stream.probe import probe
from s3prl_stream.probe_question import Question
from s3prl_stream.recipes.recipe import Recipe
from s3prl_stream.settings import fit_fields
from s3prl_stream.shards.shardset import as_shard_set, open_shards
from s3prl_stream.trainer.loop import Hook
from s3prl_stream.trainer.ranks import Ranks
from s3prl_stream.upstreams.runs import upstream_of


@dataclass(frozen=True)
class ProbeSettings:
    """What to ask of the frozen features on the way, see `probe`."""

    label: str | None = None
    """Index column to be predicted; None: nothing is asked."""
    every: int = 1000
    """Steps."""
    data: str | None = None
    """A set; None: the one that is trained on."""
    holdout: str | None = None
    """As in "speaker=ada,bruno"; these are the test part."""
    test_where: str | None = None
    """Instead: an expression that selects the test part."""
    where: str | None = None
    """Which clips to use at all."""
    seeds: int = 1
    """Fits, whose accuracy is averaged."""

    def __post_init__(self) -> None:
        fit_fields("probe", self)
        if self.every < 1:
            raise UsageError(f"probe.every is {self.every}; it must be at least 1")
        given = [name for name in ("data", "holdout", "test_where", "where") if getattr(self, name) is not None]
        if self.label is None and given:
            raise UsageError(f"probe.{given[0]} is given, but no probe.label: there is nothing to ask")


def early_probe(settings: ProbeSettings, shards: Any) -> Callable[[Recipe, nn.Module], Hook]:
    """For `pretrain(hooks=)`: gives the accuracy on the last layer, and that of log-mel beside it.

    The first rank does it; the others wait, however long it takes.

    Args:
        settings: what to ask.
        shards: the set, where `settings` names none.

    Raises:
        UsageError: no label, or a question that cannot be asked of the set, see `probe`.
    """
    data = as_shard_set(shards) if settings.data is None else open_shards(settings.data)
    if settings.label is None:
        raise UsageError("probe: give a label")
    asked: dict[str, Any] = {name: getattr(settings, name) for name in ("label", "holdout", "test_where", "seeds")}
    Question(data, **asked).check(settings.where)  # now, and not after so many steps

    def make(recipe: Recipe, objective: nn.Module) -> Hook:
        trained, ranks = upstream_of(recipe, objective), Ranks()
        meet = ranks.patient_meeting()

        def ask(_step: int) -> dict[str, float]:
            figures = {}
            if ranks.is_first:
                result = probe(data, trained, where=settings.where, **asked)
                found = {row.features: row.accuracy for row in result.rows if row.layer != "best"}
                figures = {"probe_accuracy": found["pretrained"], "probe_logmel80": found["logmel80"]}
            meet()
            return figures

        return Hook(settings.every, ask)

    return make
