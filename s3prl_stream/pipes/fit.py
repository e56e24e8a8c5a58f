"""Whether a stage fits the chain before it: what does not is refused when the chain is built, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from s3prl_stream.errors import ChainError, UsageError
from s3prl_stream.pipes.kinds import fits, how_to_get

if TYPE_CHECKING:
    from s3prl_stream.pipes.stage import Root, Source, Stage

USUAL_GIVERS = {
    "wav": "load_audio",
    "feat": "features",
    "tokens": "tokenize",
    "masked_feat": "mask",
    "tags": "tag_frames",
}
"""Key -> the stage to think of where it is missing."""
CALLED_HERE = {"id": "key"}
"""S3PRL's name of what every sample has -> ours."""


def check_fit(stage: Stage, source: Source, before: Sequence[Stage]) -> None:
    """What a stage declares, against the chain that it is to be bound to.

    Args:
        stage: the new one.
        source: what it will read from.
        before: the stages of that chain, root first.

    Raises:
        ChainError: it does not fit.
    """
    _check_takes(stage, source, before)
    _check_frames(stage, before)
    _check_side(stage, before)


def _check_takes(stage: Stage, source: Source, before: Sequence[Stage]) -> None:
    known = source.known_keys()
    if known is None:
        return
    root = cast("Root", before[0].source if before else source)
    for key, wanted in stage.takes.items():
        if key not in known:
            if wanted == "nested" and not root.knows_nested:
                continue
            taker = next((one for one in reversed(before) if key in one.removes), None)
            lost = "nothing before it provides" if taker is None else f"{type(taker).__name__} has removed"
            giver_name = USUAL_GIVERS.get(key)
            raise ChainError(
                f"{type(stage).__name__} takes {key!r} ({wanted}), which {lost}. "
                f"{type(source).__name__} gives: {', '.join(sorted(known))}."
                + (root.why_not(key) if taker is None else "")
                + (f" Put .{giver_name}() before it?" if giver_name is not None else "")
                + (f" What S3PRL calls {key!r} is {CALLED_HERE[key]!r} here." if key in CALLED_HERE else "")
            )
        if not fits(known[key], wanted):
            giver = next((one for one in reversed(before) if key in one.provides), source)
            raise ChainError(
                f"{type(stage).__name__} takes {key!r} as {wanted}, but {type(giver).__name__} "
                f"provides it as {known[key]}." + ("" if before else how_to_get(wanted))
            )


def _check_frames(stage: Stage, before: Sequence[Stage]) -> None:
    """A waveform that this stage cuts or stretches must not have been counted in frames before."""
    framed = ((one, key) for one in before for key, kind in one.provides.items() if " [F" in kind)
    giver, key = next(framed, (None, ""))
    if giver is not None and not stage.keeps_length:
        raise ChainError(
            f"{type(stage).__name__} changes how long a waveform is, and stands behind {type(giver).__name__}: "
            f"{key!r} would stay that of the waveform before. Put {type(stage).__name__} before it."
        )


def _check_side(stage: Stage, before: Sequence[Stage]) -> None:
    """Behind `.on(device)` there are batches."""
    marker = next((one for one in before if one.moves), None)
    if marker is None:
        return
    if not stage.works_on_batches:
        raise ChainError(
            f"{type(stage).__name__} works on samples, and stands behind .{marker.describe()}, where there are "
            "batches: put it before."
        )
    if stage.names:
        raise ChainError(
            f"{type(stage).__name__} stands behind .{marker.describe()} and gives keys other names "
            f"({', '.join(stage.names.values())}): that is for samples; put it before."
        )


def check_names(stage: Stage) -> None:
    """Two values of a stage must not have one name, or one of them would be lost.

    Raises:
        UsageError: they would.
    """
    given = [stage.names.get(key, key) for key in stage.provides]
    for names in (list(stage.names.values()), given):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UsageError(
                f"{type(stage).__name__}: two of its keys would be called {twice!r}; give each its own name"
            )
