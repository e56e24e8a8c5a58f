"""The figures as a section of README.md, ready to be pasted: what loaders cost, waste, lose, and ask of a store."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peers.clips import INT16

OURS = "s3prl_stream"
Loaders = Mapping[str, dict[str, Any]]
Table = tuple[list[str], list[list[str]]]
"""Names of the rows, and columns with their titles."""
WHY_AHEAD = {
    "over dr_flac, CPU s/h": "it reads without checksums",
    "peak memory": "ours keeps the memory of up to 8 batches to use it again",
    "padding": "from buckets that are the same each epoch and batches of unequal size: look at filled and pairs again",
    "filled": "batches by number, so look at the padding",
    "pairs again": "clips of any length meet, so look at the padding",
    "speakers": "clips of any length meet, so look at the padding",
    "requests an hour": "one for a shard, so look at what is read again",
    "MB an hour": "ours has read manifest and index too",
}
"""Column -> why a peer may be ahead of us in it."""
WHY_NOT_WHOLE = {
    "Lhotse Shar": "with workers the sampler lives in them, there is no state to ask for, and the epoch begins anew",
    "HF datasets": "its shuffle buffer is not in its state",
}
"""Loader -> why clips are lost or come twice after a resume."""


def section(found: dict[str, Any]) -> str:
    """Markdown: date, machine and versions, then three tables. The best of each column is bold, whoever it is."""
    bare = {name: f"{one['median']:.2f}" for name, one in found["bare_decode_cpu_s_per_hour"].items()}
    versions = ", ".join(
        f"{name} {version}" for name, version in {"Python": found["python"], **found["versions"]}.items()
    )
    loaders: Loaders = found["loaders"]
    about = f"""\
`tools/bench peers` on {found["date"]}, commit {found["commit"]}, {found["machine"]}: {found["clips"]} clips,
{found["hours"]:.2f} h of FLAC, {found["rounds"]} rounds in turns: median (smallest to largest), the best bold.
{textwrap.fill(versions + ".", 120)}
Batches of 240 s of padded audio, or as many clips as fill them on average; one thread of OpenMP each.

CPU seconds an audio hour over bare decoding of the same clips to the same type, in turns in the same process:
{bare["dr_flac"]} by dr_flac to float32, which all but the int16 row give, {bare[INT16]} to int16,
{bare["soundfile"]} by soundfile. {_aim(loaders)}"""
    waste = """\
What an epoch wastes: padding; the mean batch over the largest, for which a device must have room, and the audio in it
over that room: what both wastes leave; pairs of clips that meet again in the next epoch; speakers in a batch over those
of a uniform draw. Clips that came twice / never in an epoch with 2 workers, and in one that was interrupted at half of
it with 0 and 2 workers."""
    store = f"""\
From Ceph's S3 gateway, 0 workers, counted by a proxy in front of it; an hour of this audio is {_audio(loaders)} MB.
Read again: what a process with an empty disk fetches beyond the clips that are left, at 10, 50 and 90 % of an epoch."""
    tables = [_costs(loaders), _waste(loaders), _store(loaders)]
    first, second, third = (_rows(*table) for table in tables)
    ahead = "; ".join(one for table in tables for one in _ahead(*table))
    not_whole = "; ".join(
        f"{name}: {why}" for name, why in WHY_NOT_WHOLE.items() if _is_not_whole(loaders.get(name, {}))
    )
    waste += f" {not_whole}." if not_whole else ""
    parts = ["### Beside other loaders", about, first, waste, second, store, third]
    return "\n\n".join([*parts, *([f"Ahead of us: {ahead}."] if ahead else [])])


def _is_not_whole(one: dict[str, Any]) -> bool:
    resumed = [one.get(f"resumed_{workers}_workers", {}) for workers in (0, 2)]
    return any(ledger.get("twice") or ledger.get("lost") for ledger in resumed)


def _ahead(names: Sequence[str], columns: Sequence[Sequence[str]]) -> list[str]:
    """In which columns a peer has the best figure, and why."""
    found = []
    for title, *cells in columns:
        best = [name for name, cell in zip(names, cells, strict=True) if cell.startswith("**")]
        ours = [cell for name, cell in zip(names, cells, strict=True) if name.startswith(OURS)]
        if best and set(ours) != {"-"} and not any(name.startswith(OURS) for name in best):
            why = f" ({WHY_AHEAD[title]})" if title in WHY_AHEAD else ""
            found.append(f"{', '.join(best)} in {title}{why}")
    return found


def _aim(loaders: Loaders) -> str:
    """Ours over the best peer's, at the same decoder and type."""
    over = {name: one["dr_flac"]["overhead_cpu_s_per_hour"] for name, one in loaders.items()}
    peers = {name: value["median"] for name, value in over.items() if not name.startswith(OURS)}
    if not peers or OURS not in over:
        return ""
    best, mine = min(peers, key=lambda name: peers[name]), over[OURS]
    ratio, least, most = (mine[a] / over[best][b] for a, b in (("median",) * 2, ("min", "max"), ("max", "min")))
    return f"Ours is {ratio:.2f} of the smallest peer's ({best}), with both spreads {least:.2f} to {most:.2f}."


def _audio(loaders: Loaders) -> str:
    sizes = (one.get("store", {}).get("mb_per_hour_of_audio") for one in loaders.values())
    return next((f"{size:.1f}" for size in sizes if size is not None), "?")


def _costs(loaders: Loaders) -> Table:
    def over(one: dict[str, Any], decoder: str) -> dict[str, float] | None:
        return one[decoder]["overhead_cpu_s_per_hour"] if decoder in one else None

    columns: list[tuple[str, Any, Any]] = [
        ("over dr_flac, CPU s/h", lambda one: over(one, "dr_flac"), min),
        ("over soundfile, CPU s/h", lambda one: over(one, "soundfile"), min),
        ("h/s, 0 workers", lambda one: one["hours_per_second_0_workers"], max),
        ("h/s, 2 workers", lambda one: one["hours_per_second_2_workers"], max),
    ]
    cells = [_column(title, [*map(value, loaders.values())], best, _range) for title, value, best in columns]
    for title, name, form in (("first batch", "first_batch_s", "{:.1f} s"), ("peak memory", "peak_mb", "{:.0f} MB")):
        medians = [one[name]["median"] for one in loaders.values()]
        cells.append(_column(title, medians, min, form.format))
    return list(loaders), cells


def _waste(loaders: Loaders) -> Table:
    columns: list[tuple[str, str, Any, str]] = [
        ("padding", "padding", min, "{:.1%}"),
        ("filled", "filled", max, "{:.2f}"),
        ("audio in it", "used", max, "{:.2f}"),
        ("pairs again", "repeated_pairs", min, "{:.2f}"),
        ("speakers", "speakers_of_uniform", max, "{:.2f}"),
    ]
    cells = [
        _column(title, [one[name] for one in loaders.values()], best, form.format)
        for title, name, best, form in columns
    ]
    for title, name in (
        ("2 workers", "two_workers"),
        ("resumed, 0", "resumed_0_workers"),
        ("resumed, 2", "resumed_2_workers"),
    ):
        ledgers = (one.get(name) for one in loaders.values())
        cells.append([title, *("no resume" if one is None else f"{one['twice']} / {one['lost']}" for one in ledgers)])
    return list(loaders), cells


def _store(loaders: Loaders) -> Table:
    asked = {name: one["store"] for name, one in loaders.items() if "store" in one}
    cells = [
        _column("requests an hour", [one.get("requests_per_hour") for one in asked.values()], min, "{:.0f}".format),
        _column("MB an hour", [one.get("mb_per_hour") for one in asked.values()], min, "{:.1f}".format),
    ]
    for title, name, form in (
        ("read again, MB", "mb_read_again", "{:.1f}"),
        ("requests of the resumed", "requests", "{:.0f}"),
    ):
        resumed = [one.get("resumed", {}) for one in asked.values()]
        cells.append([title, *(" / ".join(form.format(at[name]) for at in one.values()) or "-" for one in resumed)])
    for place, one in enumerate(asked.values(), start=1):
        if "why_not" in one:
            cells[0][place] = one["why_not"]
        elif not one["resumed"]:
            cells[2][place] = "no resume: all of it"
    return list(asked), cells


def _range(one: dict[str, float]) -> str:
    return f"{one['median']:.2f} ({one['min']:.2f} to {one['max']:.2f})"


def _column(
    title: str, values: Sequence[Any], best: Callable[[Sequence[float]], float], text: Callable[[Any], str]
) -> list[str]:
    """The title and a cell for each value; "-" where there is none."""
    numbers = [one["median"] if isinstance(one, dict) else one for one in values]
    known = [number for number in numbers if number is not None]
    cells = [title]
    for value, number in zip(values, numbers, strict=True):
        shown = "-" if value is None else text(value)
        cells.append(f"**{shown}**" if number is not None and number == best(known) else shown)
    return cells


def _rows(names: Sequence[str], columns: Sequence[Sequence[str]]) -> str:
    head, *rows = zip(["loader", *names], *columns, strict=True)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)
