"""Two runs of `tools/bench peers`: do they agree, and what do both say together?

Compared are ours over a peer's, which machines of other speed share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from peers.compare import spread

OURS = "s3prl_stream"
TIMED = {
    "over dr_flac": ("dr_flac", "overhead_cpu_s_per_hour"),
    "CPU by dr_flac": ("dr_flac", "cpu_s_per_hour"),
    "h/s, 0 workers": ("hours_per_second_0_workers",),
    "h/s, 2 workers": ("hours_per_second_2_workers",),
    "first batch": ("first_batch_s",),
    "peak memory": ("peak_mb",),
}
"""Figure -> where it is in what `compare` finds of a loader."""


class Agreement(NamedTuple):
    """Ours over one peer's, in one figure."""

    figure: str
    peer: str
    earlier: float
    lowest: float
    """Our smallest of the earlier run over the peer's largest."""
    highest: float
    later: float

    @property
    def holds(self) -> bool:
        """The later ratio is within the spread of the earlier run, to the hundredth: as both are printed."""
        return round(self.lowest, 2) <= round(self.later, 2) <= round(self.highest, 2)


def agreements(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> Iterator[Agreement]:
    """All ratios of medians that both runs have.

    Args:
        earlier, later: `results.json` of each.
    """
    both = [name for name in earlier["loaders"] if name in later["loaders"] and name != OURS]
    for figure, place in TIMED.items():
        ours, ours_later = (_at(run["loaders"][OURS], place) for run in (earlier, later))
        for peer in both:
            his, his_later = (_at(run["loaders"][peer], place) for run in (earlier, later))
            yield Agreement(
                figure,
                peer,
                ours["median"] / his["median"],
                ours["min"] / his["max"],
                ours["max"] / his["min"],
                ours_later["median"] / his_later["median"],
            )


def report(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> str:
    """Markdown: every ratio of both runs, those that left the spread marked, and how many did not."""
    found = list(agreements(earlier, later))
    inside = sum(one.holds for one in found)
    lines = [
        f"Ours over a peer's, {earlier['date']} (commit {earlier['commit']}) and {later['date']} (commit "
        f"{later['commit']}): {inside} of {len(found)} ratios are within the spread of the earlier run.",
        "",
        f"| figure | peer | {earlier['date']} (spread) | {later['date']} | |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        spread = f"{one.earlier:.2f} ({one.lowest:.2f} to {one.highest:.2f})"
        mark = "" if one.holds else "outside"
        lines.append(f"| {one.figure} | {one.peer} | {spread} | {one.later:.2f} | {mark} |")
    return "\n".join(lines)


def joined(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the rounds of both, with their spread; all else is that of the later run, if it has it.

    Rounds of one run are minutes apart, and a machine is another one some hours later: five of them have too small a
    spread for a run of another day.

    Raises:
        ValueError: the runs are of other clips, another machine or other versions of the peers.
    """
    for name in ("clips", "hours", "machine", "python", "versions"):
        if earlier[name] != later[name]:
            raise ValueError(f"runs that differ in {name} are not joined: {earlier[name]} and {later[name]}")
    both = _joined(earlier, later)
    names = {name: " and ".join(dict.fromkeys((earlier[name], later[name]))) for name in ("date", "commit")}
    return {**both, **names, "rounds": earlier["rounds"] + later["rounds"]}


def _joined(earlier: Any, later: Any) -> Any:
    if later is None:
        return earlier
    if not isinstance(later, Mapping) or not isinstance(earlier, Mapping):
        return later
    if "each" in later:
        return spread([*earlier["each"], *later["each"]])
    return {name: _joined(earlier.get(name), later.get(name)) for name in {**later, **earlier}}


def _at(loader: Mapping[str, Any], place: tuple[str, ...]) -> Mapping[str, float]:
    found: Any = loader
    for name in place:
        found = found[name]
    return dict(found)
