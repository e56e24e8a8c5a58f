"""What a sweep found: a score for each cell, and over its seeds a table, a file for other programs, and a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from s3prl_stream.pictures import Panel, draw_scores
from s3prl_stream.trainer.checkpoint import at_once, write_json, write_whole

AXES = ("task", "data", "upstream", "head", "subset", "noise", "snr")
"""What may differ from cell to cell beside the seed, in the order of the table."""


@dataclass(frozen=True)
class Score:
    """The figures of one cell."""

    settings: Mapping[str, str]
    """Axis -> value."""
    seed: int
    hours: float
    """Of audio that could be trained on."""
    figures: Mapping[str, float]
    best: str
    """Which of them counts."""
    run: str
    """Folder of the training."""


@dataclass(frozen=True)
class Row:
    """The scores of several seeds."""

    settings: Mapping[str, str]
    hours: float
    seeds: int
    best: str
    mean: Mapping[str, float]
    spread: Mapping[str, float]
    """Standard deviation over the seeds; 0 for one."""


@dataclass(frozen=True)
class Sweep:
    """All scores, in the order of the grid."""

    scores: Sequence[Score]

    def rows(self) -> list[Row]:
        """One for each setting."""
        together: dict[tuple[str, ...], list[Score]] = {}
        for score in self.scores:
            together.setdefault(tuple(score.settings[axis] for axis in AXES), []).append(score)
        return [_row(some) for some in together.values()]

    def varying(self) -> list[str]:
        """The axes with more than one value."""
        return [axis for axis in AXES if len({score.settings[axis] for score in self.scores}) > 1]

    def table(self) -> str:
        """In Markdown: what differs, hours of audio, and each figure as mean +- standard deviation over the seeds."""
        rows, axes = self.rows(), self.varying()
        figures = list(dict.fromkeys(name for row in rows for name in (row.best, *row.mean)))
        lines = [[*axes, "hours", "seeds", *figures]]
        for row in rows:
            told = [_told(row, name) for name in figures]
            lines.append([*(row.settings[axis] or "-" for axis in axes), f"{row.hours:.3g}", str(row.seeds), *told])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = [" | ".join(f"{word:<{width}}" for word, width in zip(line, widths, strict=True)) for line in lines]
        rule = "-|-".join("-" * width for width in widths)
        return "\n".join(f"| {line} |" for line in (shown[0], rule, *shown[1:]))

    def write(self, folder: Path) -> None:
        """`sweep.json`, `sweep.csv` (a line for each cell) and `sweep.md` (the table)."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "sweep.json", self.as_json())
        figures = list(dict.fromkeys(name for score in self.scores for name in score.figures))
        with at_once(folder / "sweep.csv") as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*AXES, "seed", "hours", *figures, "run"])
            for one in self.scores:
                values = [one.figures.get(name, "") for name in figures]
                writer.writerow([*(one.settings[axis] for axis in AXES), one.seed, one.hours, *values, one.run])
        write_whole(folder / "sweep.md", f"{self.table()}\n".encode())

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"rows": [asdict(row) for row in self.rows()], "cells": [asdict(score) for score in self.scores]}

    def draw(self, file: Path) -> None:
        """Write the picture; UsageError if matplotlib is missing."""
        panels, label, ticks = self.picture()
        with at_once(file) as unfinished:
            draw_scores(panels, label, unfinished, ticks=ticks)

    def picture(self) -> tuple[list[Panel], str, list[str] | None]:
        """The figure that counts, against hours if the amount varies, else the ratio, the upstream, or what does.

        What else varies makes curves; tasks have a panel each, since their figures differ.

        Returns:
            (panels, the label of the axis below, names of its places 0, 1 ... or None if they are hours).
        """
        varying = self.varying()
        across = next((axis for axis in ("subset", "snr", "upstream", *varying) if axis in varying), "upstream")
        rows = sorted(self.rows(), key=lambda row: _place(row, across))
        ticks = list(dict.fromkeys(row.settings[across] or "clean" for row in rows))
        inside = {across, "task", "noise" if across == "snr" else ""}
        panels: dict[str, Panel] = {}
        for row in rows:
            panel = panels.setdefault(row.settings["task"], Panel(row.settings["task"], row.best, {}))
            name = ", ".join(row.settings[axis] or "-" for axis in varying if axis not in inside)
            place = row.hours if across == "subset" else ticks.index(row.settings[across] or "clean")
            panel.curves.setdefault(name, []).append((place, row.mean[row.best], row.spread[row.best]))
        label = {"subset": "hours of audio", "snr": "signal-to-noise ratio, dB"}.get(across, across)
        return list(panels.values()), label, None if across == "subset" else ticks


def _row(scores: Sequence[Score]) -> Row:
    values = {name: [one.figures[name] for one in scores] for name in scores[0].figures}
    return Row(
        settings=scores[0].settings,
        hours=scores[0].hours,
        seeds=len(scores),
        best=scores[0].best,
        mean={name: fmean(some) for name, some in values.items()},
        spread={name: stdev(some) if len(some) > 1 else 0.0 for name, some in values.items()},
    )


def _told(row: Row, figure: str) -> str:
    if figure not in row.mean:
        return "-"
    return f"{row.mean[figure]:.4f}" + (f" +- {row.spread[figure]:.4f}" if row.seeds > 1 else "")


def _place(row: Row, axis: str) -> float:
    """By which rows are sorted along an axis; those of equal places stay in their order."""
    if axis == "subset":
        return row.hours
    ratio = row.settings["snr"].split(",")[0]
    return (float(ratio) if ratio else float("inf")) if axis == "snr" else 0.0
