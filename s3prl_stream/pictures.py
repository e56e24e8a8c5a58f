"""Pictures of a run: its losses, and what it makes of a masked spectrogram. Needs matplotlib (the extra `plots`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError

# F frames, D bins.
F32: TypeAlias = npt.NDArray[np.float32]


class Curve(NamedTuple):
    """Values over steps."""

    label: str
    steps: Sequence[int]
    values: Sequence[float]


class Panel(NamedTuple):
    """Scores that share a scale."""

    title: str
    label: str
    """Of the axis at the left."""
    curves: dict[str, list[tuple[float, float, float]]]
    """Name -> (place, mean, spread), from left to right."""


def draw_curves(
    curves: Sequence[Curve],
    label: str,
    file: str | Path,
    *,
    others: Sequence[Curve] = (),
    other_label: str = "",
) -> None:
    """Draw curves over their steps into a PNG.

    Args:
        curves: on the axis at the left.
        label: of that axis.
        file: where the picture goes.
        others: on an axis at the right.
        other_label: of that axis.
    """
    with picture(file, 8, 4) as figure:
        axes = figure.subplots()
        for curve in curves:
            axes.plot(curve.steps, curve.values, label=curve.label, marker="." if len(curve.steps) < 20 else None)
        axes.set(xlabel="step", ylabel=label)
        if others:
            right = axes.twinx()
            for curve in others:
                right.plot(curve.steps, curve.values, color="tab:gray", alpha=0.6, linewidth=1, label=curve.label)
            right.set(ylabel=other_label)
        figure.legend(loc="outside upper right", ncols=4)


def draw_layer_weights(weights: Sequence[float], file: str | Path) -> None:
    """Draw how much a head takes of each hidden state (they add up to 1) as bars into a PNG."""
    with picture(file, 8, 3) as figure:
        axes = figure.subplots()
        axes.bar(range(len(weights)), weights)
        axes.axhline(1 / len(weights), color="tab:gray", linewidth=1, linestyle="--")  # where they began
        axes.set(xlabel="hidden state", ylabel="weight", xticks=range(len(weights)))


def draw_losses(
    whole: Sequence[tuple[int, float]], killed: Sequence[tuple[int, float]], killed_after: int, file: str | Path
) -> None:
    """Draw two runs' losses over their steps, the second dashed on top of the first, into a PNG.

    Args:
        whole, killed: (step, loss) of each step.
        killed_after: step at which the second run was killed.
        file: where the picture goes.
    """
    with picture(file, 8, 4) as figure:
        axes = figure.subplots()
        axes.plot([step for step, _ in whole], [loss for _, loss in whole], color="tab:blue", label="undisturbed")
        axes.plot(
            [step for step, _ in killed],
            [loss for _, loss in killed],
            "--",
            color="tab:orange",
            label="killed and resumed",
        )
        axes.axvline(killed_after, color="gray", linewidth=1, label="SIGKILL")
        axes.set(xlabel="step", ylabel="mean L1 over the masked part")
        axes.legend()


def draw_reconstruction(
    feat_FD: F32,
    masked_FD: F32,
    reconstructed_FD: F32,
    title: str,
    file: str | Path,
    *,
    names: tuple[str, str, str] = ("spectrogram", "masked", "reconstruction"),
) -> None:
    """Draw a log-mel spectrogram, its masked version and its reconstruction under each other into a PNG.

    Args:
        feat_FD, masked_FD, reconstructed_FD: float32 [F, D], frames of 10 ms.
        title: one line above them.
        file: where the picture goes.
        names: of the three.
    """
    rows = tuple(zip(names, (feat_FD, masked_FD, reconstructed_FD), strict=True))
    with picture(file, 8, 7) as figure:
        lowest, highest = float(feat_FD.min()), float(feat_FD.max())
        for axes, (name, picture_FD) in zip(figure.subplots(len(rows), sharex=True), rows, strict=True):
            extent = (0, len(picture_FD) / 100, 0, picture_FD.shape[1])
            axes.imshow(picture_FD.T, origin="lower", aspect="auto", extent=extent, vmin=lowest, vmax=highest)
            axes.set(ylabel="mel bin", title=name)
        axes.set(xlabel="seconds")
        figure.suptitle(title)


def draw_scores(panels: Sequence[Panel], label: str, file: str | Path, *, ticks: Sequence[str] | None) -> None:
    """Draw means with bars of their spread into a PNG, panels side by side.

    Args:
        panels: each with its own scale.
        label: of the axis below.
        file: where the picture goes.
        ticks: names of the places 0, 1 ...; None: places are numbers above 0, on a logarithmic axis.
    """
    with picture(file, max(6, 4 * len(panels)), 4) as figure:
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for name, points in panel.curves.items():
                places, means, spreads = zip(*points, strict=True)
                axes.errorbar(places, means, yerr=spreads, label=name, marker="o", capsize=3)
            axes.set(title=panel.title, xlabel=label, ylabel=panel.label)
            if ticks is None:
                axes.set_xscale("log")
            else:
                axes.set_xticks(range(len(ticks)), ticks)
            if any(panel.curves):
                axes.legend()


@contextlib.contextmanager
def picture(file: str | Path, width_inches: float, height_inches: float) -> Iterator[Any]:
    """A figure to draw into, which is then written; its folder is made, once there is something to write there."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("pictures need matplotlib: pip install 's3prl-stream[plots]'") from None
    # A Figure of one's own, not pyplot: no window system and no global state.
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    yield figure
    Path(file).parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=120)
