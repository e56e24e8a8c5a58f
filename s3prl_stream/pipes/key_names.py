"""Other names for the keys that a stage reads and writes, as in `features(wav_name="speech")`.

A stage is written for one set of keys. What is called otherwise in the samples is put under the stage's own names for
as long as it works, so no stage has to know. The parameters that say so are S3PRL's (`wav_name`, `segments_name` ...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from s3prl_stream.sample import Sample


def emit_under_names(
    emit: Callable[[Sample], Iterable[Sample]], sample: Sample, names: Mapping[str, str]
) -> Iterator[Sample]:
    """What `emit` makes of a sample in which the stage's keys have other names.

    Args:
        emit: of the stage, which knows its own keys only.
        sample: as it is in the chain.
        names: the stage's key -> the key in the chain.
    """
    hidden = {key: sample[key] for key in names if key in sample and key not in names.values()}
    for out in emit(under_own_names(sample, names)):
        yield {**{names.get(key, key): value for key, value in out.items()}, **hidden}


def under_own_names(sample: Sample, names: Mapping[str, str]) -> Sample:
    """The sample as a stage sees it: what the chain calls otherwise stands under the stage's keys."""
    shown = {key: value for key, value in sample.items() if key not in names and key not in names.values()}
    return {**shown, **{key: sample[name] for key, name in names.items() if name in sample}}


def renamed(kinds: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """`takes` or `provides` with the keys of the chain."""
    return {names.get(key, key): kind for key, kind in kinds.items()}
