"""The root of a chain that stands alone, without a plan: whatever gives dicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from s3prl_stream.errors import ChainError, SampleError, UsageError
from s3prl_stream.pipes.key_names import under_own_names
from s3prl_stream.pipes.kinds import as_tensor, kind_of
from s3prl_stream.pipes.outline import Outline, outline_of
from s3prl_stream.pipes.run_stages import through
from s3prl_stream.pipes.stage import Root, Samples, Source, Stage
from s3prl_stream.rng import identity, in_epoch, is_identity
from s3prl_stream.sample import Sample
from s3prl_stream.timing import StageClock


class PlainSource(Root):
    """A list, any iterable or another loader's pipe: samples come in its order, without plan or resume.

    A sample without a key (nor WebDataset's "__key__") gets its position as key. A dict {key: sample} is a list of
    samples with keys. Numeric numpy arrays become tensors (of the same memory where possible), so stages see no other
    kind of array.

    The epoch is how often the chain has been read before, or what `set_epoch` says. Chains that go out from one stage
    are counted each by itself, so what they share draws the same for all: a crop, and a noisy copy of it. The workers
    of a torch DataLoader begin to count anew each time they are started: with `num_workers` > 0, call `set_epoch`
    before each epoch; persistent workers count on by themselves, and hear of no `set_epoch`. A list or
    dict is divided among them by position, a torch IterableDataset divides itself, and anything else is refused
    there, since every worker would yield all of it.
    """

    def __init__(self, samples: Samples) -> None:
        first = _first(samples)
        if first is not None and not isinstance(first, Mapping):
            what = (
                "it may be one sample: give [sample], or call SampleFunction(stage)(sample)"
                if isinstance(samples, Mapping)
                else 'a file is {"key": NAME, "wav_path": PATH}'
                if isinstance(first, str | Path)
                else "settings are given by name"
            )
            raise ChainError(
                f"a {type(samples).__name__} that begins with a {type(first).__name__} is not a source of samples, "
                f"which are dicts; {what}."
            )
        self.samples = samples
        self._fixed_epoch: int | None = None
        self._is_used_up = False

    def set_epoch(self, epoch: int) -> None:
        """Fix the epoch of every iteration from now on."""
        self._fixed_epoch = epoch

    def known_keys(self) -> Mapping[str, str] | None:
        """Of a list or dict: the keys of its first sample, with the types of its arrays."""
        first = _first(self.samples)
        if first is None:
            return None
        tags = dict.fromkeys(("key", "epoch", "set", "identity"), "any")
        return {**tags, **{key: kind_of(value) for key, value in first.items()}}

    def __iter__(self) -> Iterator[Sample]:
        return self.run(())

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"{type(self.samples).__name__} of samples"

    def column(self, name: str) -> Iterator[Any]:
        """Of a list or a dict."""
        if not isinstance(self.samples, Sequence | Mapping):
            return super().column(name)
        return (sample.get(name) for sample in self._with_keys())

    def outlines(self, stages: Sequence[Stage]) -> Iterator[Outline]:
        """Of a list or a dict."""
        if not isinstance(self.samples, Sequence | Mapping):
            return super().outlines(stages)
        epoch = self._next_epoch(stages)
        # what the first stage to name it calls the waveform, or its file
        names = {key: name for stage in reversed(stages) for key, name in stage.names.items()}
        known = (self._tagged(position, sample, epoch) for position, sample in enumerate(self._with_keys()))
        return (self._outline(sample, names) for sample in known)

    def _outline(self, sample: Sample, names: Mapping[str, str]) -> Outline:
        with naming(sample):
            return outline_of(under_own_names(sample, names))._replace(sample=sample)

    def run(self, stages: Sequence[Stage]) -> Iterator[Sample]:
        """Samples in the source's own order; a damaged one raises, and a generator that has been read before."""
        epoch = self._next_epoch(stages)
        _end_of(self, stages).times_read += 1
        clock = StageClock()
        this_worker, num_workers = self._share_of_worker()
        position = -1
        for position, sample in enumerate(self._with_keys()):
            if position % num_workers != this_worker:
                continue
            known = self._tagged(position, sample, epoch)
            with naming(known):
                made = through(stages, known, clock)
            yield from made
        if isinstance(self.samples, Iterator):
            if position < 0 and self._is_used_up:
                raise UsageError(
                    f"this {type(self.samples).__name__} has been read to its end and gives nothing a second time. "
                    "Give a list, or an object whose __iter__ begins anew."
                )
            self._is_used_up = True

    def _next_epoch(self, stages: Sequence[Stage]) -> int:
        return _end_of(self, stages).times_read if self._fixed_epoch is None else self._fixed_epoch

    def _tagged(self, position: int, sample: Sample, epoch: int) -> Sample:
        return tagged(sample, str(sample.get("key", sample.get("__key__", position))), seed=0, epoch=epoch)

    def _share_of_worker(self) -> tuple[int, int]:
        """Which of how many equal shares of the positions this process yields."""
        worker = get_worker_info()
        if worker is None or worker.num_workers == 1 or isinstance(self.samples, IterableDataset):
            return 0, 1
        if not isinstance(self.samples, Sequence | Mapping):
            raise UsageError(
                f"a {type(self.samples).__name__} cannot be divided among {worker.num_workers} DataLoader workers: "
                "each would yield all of it. Make it a list or a torch IterableDataset, or use num_workers=0."
            )
        return worker.id, worker.num_workers

    def _with_keys(self) -> Iterator[Sample]:
        is_dict = isinstance(self.samples, Mapping)
        items: Iterable[Any] = self.samples.items() if isinstance(self.samples, Mapping) else enumerate(self.samples)
        for key, sample in items:
            if not isinstance(sample, Mapping):
                raise UsageError(f"item {key!r} of the source is a {type(sample).__name__}; a sample is a dict")
            yield {"key": key, **sample} if is_dict else dict(sample)


def tagged(sample: Mapping[str, Any], key: str, *, seed: int, epoch: int) -> Sample:
    """A sample with who it is, so that stages can draw for it, and with arrays as tensors.

    One that comes out of another chain stays who it is, and is drawn for anew in each epoch of this one.

    Raises:
        UsageError: it has an "identity" that is none of a chain's.
    """
    given = sample.get("identity")
    name = identity(seed=seed, set_name="", epoch=epoch, key=key, first_frame=0, draw=0)
    if given is not None and is_identity(given):
        name = in_epoch(given, seed=seed, epoch=epoch)
    elif given is not None:
        raise UsageError(
            f"sample {key!r} has 'identity': {given!r:.80}. From the value of that name a chain's random draws follow: "
            "call yours otherwise."
        )
    tensors = {key: as_tensor(value) for key, value in sample.items()}
    found = {"key": key, "epoch": epoch, "set": "", "identity": name, **tensors}
    found["identity"] = name
    return found


@contextmanager
def naming(sample: Sample) -> Iterator[None]:
    """Errors about this sample say which it is: without a loader, nothing else does."""
    try:
        yield
    except SampleError as error:
        key, message = sample["key"], str(error.args[0])
        if message.startswith(f"{key}:"):
            raise
        path = next((sample[name] for name in ("wav_path", "audio_path") if sample.get(name) is not None), None)
        where = "" if path is None or str(path) == key or str(path) in message else f" ({path})"
        raise SampleError(f"{key}{where}: {message}", reason=error.reason) from error


def _end_of(root: PlainSource, stages: Sequence[Stage]) -> Source:
    """Where the chain of these stages is read."""
    return stages[-1] if stages else root


def _first(samples: Samples) -> Any:
    """The first sample of a list or a dict; None of an empty one, and of anything else."""
    if isinstance(samples, Mapping):
        return next(iter(samples.values()), None)
    return samples[0] if isinstance(samples, Sequence) and samples else None
