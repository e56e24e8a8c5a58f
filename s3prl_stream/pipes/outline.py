"""How many samples a chain gives, and how long they are, without decoding: what `len()` of a chain rests on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.key_names import under_own_names
from s3prl_stream.sample import Sample

if TYPE_CHECKING:
    from s3prl_stream.pipes.stage import Stage


class Outline(NamedTuple):
    """A sample of which only the metadata and the length of its waveform are known."""

    sample: Sample
    """With `identity`, from which the stages' draws follow; its waveform is not there."""
    num_frames: int
    """Waveform samples per channel."""
    sample_rate: int
    """Hz."""


def outline_of(sample: Sample) -> Outline:
    """From the waveform that is there, or from the header of the file.

    Raises:
        UsageError: there is neither.
        SampleError: the header cannot be read.
    """
    metadata = {key: value for key, value in sample.items() if key not in ("wav", "audio")}
    if sample.get("wav") is not None:
        return Outline(metadata, len(sample["wav"]), int(sample.get("sample_rate", 16_000)))
    if "audio" in sample:
        from s3prl_stream.audio.lengths import length_in

        length = length_in(sample["audio"], sample["codec"])
        first = int(sample.get("first_frame", 0))
        count = sample.get("num_frames")
        return Outline(metadata, length.frames - first if count is None else int(count), length.sample_rate)
    path = next((sample[name] for name in ("wav_path", "audio_path") if sample.get(name) is not None), None)
    if path is None:
        raise UsageError(f"sample {sample['key']!r} has neither wav nor audio nor wav_path, so its length is not known")
    from s3prl_stream.audio.source import probe

    info = probe(str(path))
    return Outline(metadata, info.frames, info.sample_rate)


def outlines_after(stage: Stage, outlines: Iterable[Outline]) -> Iterator[Outline]:
    """What a stage makes of them, under the names that the chain has."""
    for before in outlines:
        if not stage.names:
            yield from stage.outline(before)
            continue
        for after in stage.outline(before._replace(sample=under_own_names(before.sample, stage.names))):
            yield after._replace(sample={**before.sample, "identity": after.sample["identity"]})
