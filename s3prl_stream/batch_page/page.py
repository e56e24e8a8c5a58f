"""The page of a batch: one HTML file that needs nothing else, without scripts, and small enough to open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s3prl_stream.batch_page.clip import steps_of
from s3prl_stream.batch_page.markup import Room, escaped, shown, table
from s3prl_stream.batch_page.trace import Trace, trace_batch
from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import PlannedBatch
from s3prl_stream.stream import ShardStream

MOST_CLIPS = 200
"""That are shown; more are listed."""
MOST_BYTES = 48 << 20
"""Of sound and pictures in the page: three waveforms and three pictures of each clip of a batch of 240 s at 16 kHz."""

_COLUMNS = ("set", "key", "shard", "offset", "size", "first_frame", "num_frames", "epoch", "draw")
_ALLOWED = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
"""Nothing is fetched and no script runs, whatever the data say."""

_STYLE = """
:root { color-scheme: light }
body { margin: 0 auto; max-width: 66rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif }
body { color: #1c1c1c; background: #fff }
h1, h2, h3, h4 { line-height: 1.25; overflow-wrap: anywhere }
h1 { font-size: 1.6rem }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; border-top: 2px solid #1c1c1c; padding-top: .75rem }
h3 { font-size: 1.05rem; margin: 0 }
h4 { font-size: 1rem; margin: 1rem 0 0 }
p { margin: .25rem 0 }
code { font-size: .85rem; overflow-wrap: anywhere; color: #505050 }
a { color: #0b4fa8 }
table { border-collapse: collapse; margin: .5rem 0; font-size: .9rem }
caption { text-align: left; font-weight: 600; color: #505050 }
th, td { text-align: left; vertical-align: top; padding: .15rem 1rem .15rem 0; overflow-wrap: anywhere }
th { font-weight: normal; color: #505050; min-width: 6rem }
.list { overflow-x: auto }
.list td, .list th { white-space: nowrap; min-width: 0 }
ol.steps { list-style: none; margin: 1rem 0 0; padding: 0 }
ol.steps > li { border-left: 3px solid #c9d3e4; padding: 0 0 1.25rem 1rem }
figure { margin: .75rem 0 }
figcaption { font-size: .9rem; color: #505050 }
img { display: block; image-rendering: pixelated }
img.waveform { height: 48px }
img.matrix { height: 120px }
img.strip { height: 16px }
audio { display: block; width: min(100%, 24rem); height: 40px; margin: .25rem 0 }
.lost { border-left: 3px solid #b3261e; padding-left: 1rem }
.left-out { color: #8a4b00 }
"""


def write_batch_page(
    path: str | Path,
    root: ShardStream,
    stages: Sequence[Stage],
    delivered: PlannedBatch,
    rows: Sequence[Mapping[str, Any]],
    left_out: Sequence[Mapping[str, Any]],
    *,
    most_clips: int = MOST_CLIPS,
    most_bytes: int = MOST_BYTES,
) -> None:
    """Run a batch through its chain, and write a page with what each stage made of each clip.

    Args:
        path: of the HTML file; one that is there is replaced.
        root, stages: of the chain.
        delivered: the batch without what is left out of it.
        rows: of `Loader.which`, one for each item of `delivered`.
        left_out: such rows with a `reason`, of what is left out.
        most_clips, most_bytes: bounds of the page, see `MOST_CLIPS` and `MOST_BYTES`; it says what they leave out.

    Raises:
        UsageError: the file cannot be written.
        ShardError: a shard cannot be read as a whole.
    """
    file = Path(path)
    if file.is_dir() or not file.parent.is_dir():
        raise UsageError(f"{path}: give a file in a folder that is there, such as batch.html")
    trace = trace_batch(root, stages, delivered)
    damage = [_damage_of(row, trace) for row in rows]
    room = Room(most_bytes)
    sections: list[str] = []
    for slot, row in enumerate(rows[:most_clips]):
        if room.full:
            break
        sections.append(_section(slot, row, damage[slot], steps_of(trace, slot, room)))
    parts = [
        _summary(root, trace, rows, left_out, damage),
        _list_of(rows, damage, len(sections)),
        _list_left_out(left_out),
        *sections,
    ]
    if room.full or len(sections) < len(rows):
        why = f"The page holds at most {most_clips} clips and {most_bytes / 2**20:.3g} MB of sound and pictures"
        parts.append(
            f'<p class="left-out">{why}: {len(rows) - len(sections)} of {len(rows)} clips are only listed.</p>'
        )
    content = _page(f"Batch {delivered.number}", "".join(parts))
    try:
        file.write_bytes(content.encode())
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None


def _damage_of(row: Mapping[str, Any], trace: Trace) -> Mapping[str, Any] | None:
    """What happened to the stretch that a row tells of; None: nothing."""
    names = ("set", "shard", "key", "offset", "epoch", "first_frame", "draw")
    return next((lost for lost in trace.damaged if all(lost[name] == row[name] for name in names)), None)


def _summary(
    root: ShardStream,
    trace: Trace,
    rows: Sequence[Mapping[str, Any]],
    left_out: Sequence[Mapping[str, Any]],
    damage: Sequence[Mapping[str, Any] | None],
) -> str:
    lost = sum(one is not None for one in damage)
    counts = f"{len(rows) - lost} of {len(rows) + len(left_out)} planned"
    facts = {
        "clips delivered": f"{counts}; {lost} damaged, {len(left_out)} left out" if lost or left_out else counts,
        "sets": ", ".join(member.name for member in root.shards.members),
        "seed": root.settings.seed,
        "chain": " > ".join(["read", *(stage.stage_id for stage in trace.stages)]),
    }
    notes = ["Computed anew, stage after stage: clips and draws follow from the seed and the number of the batch."]
    if any(stage.moves for stage in trace.stages):
        notes.append(
            "Stages behind <code>.on</code> are shown as they work on single samples: they have the same draws; white "
            "noise has other values than on the device."
        )
    return f"{table(facts, 'This batch')}{''.join(f'<p>{note}</p>' for note in notes)}"


def _list_of(rows: Sequence[Mapping[str, Any]], damage: Sequence[Mapping[str, Any] | None], num_shown: int) -> str:
    if not rows:
        return "<p>It is empty: nothing of it is delivered.</p>"
    head = "".join(f'<th scope="col">{name}</th>' for name in ("", "state", *_COLUMNS))
    lines = []
    for slot, (row, lost) in enumerate(zip(rows, damage, strict=True)):
        place = f'<a href="#clip-{slot + 1}">{slot + 1}</a>' if slot < num_shown else f"{slot + 1}"
        state = "delivered" if lost is None else f"damaged: {escaped(lost['reason'])}"
        lines.append(_line([place, state, *(shown(row[name]) for name in _COLUMNS)]))
    return _scrolling(f"<caption>Clips, in the order of the batch</caption><tr>{head}</tr>{''.join(lines)}", "Clips")


def _list_left_out(left_out: Sequence[Mapping[str, Any]]) -> str:
    if not left_out:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("reason", *_COLUMNS))
    lines = "".join(_line([shown(row["reason"]), *(shown(row[name]) for name in _COLUMNS)]) for row in left_out)
    return _scrolling(f"<caption>Planned and left out</caption><tr>{head}</tr>{lines}", "Planned and left out")


def _line(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _scrolling(rows: str, label: str) -> str:
    """A wide table; with the keyboard too it can be moved."""
    return f'<div class="list" role="region" aria-label="{label}" tabindex="0"><table>{rows}</table></div>'


def _section(slot: int, row: Mapping[str, Any], lost: Mapping[str, Any] | None, steps: str) -> str:
    place = (
        f"Set {shown(row['set'])}, shard {shown(row['shard'])}, {row['size']} bytes at {row['offset']}; "
        f"frames {row['first_frame']} + {row['num_frames']}; epoch {row['epoch']}, draw {row['draw']}."
    )
    what = "" if lost is None else f'<p class="lost">Damaged ({escaped(lost["reason"])}): {shown(lost["message"])}</p>'
    title = f'<h2 id="clip-{slot + 1}">{slot + 1}. {shown(row["key"])}</h2>'
    return f"<section>{title}<p>{place}</p>{what}{steps}</section>"


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_ALLOWED}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    )
