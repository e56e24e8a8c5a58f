"""The stage contract: what a pipe is, how pipes are bound into a chain, and the one way a chain is run.

A stage is its configuration. `stage(source)` and `source.name(**config)` bind a copy of it to a source, so one
stage object can serve two chains. Each declares the keys it takes and provides; a chain that does not fit is
refused when it is built. This is the only file that imports torch's IterDataPipe.
"""

from __future__ import annotations

import copy
import difflib
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from torch.utils.data import IterableDataset, IterDataPipe, get_worker_info

from s3prl_stream.errors import ChainError, SampleError, UsageError
from s3prl_stream.pipes.key_names import emit_under_names, renamed
from s3prl_stream.pipes.outline import Outline, outline_of
from s3prl_stream.pipes.s3prl_arguments import Translate
from s3prl_stream.rng import identity, sample_rng
from s3prl_stream.sample import Sample
from s3prl_stream.timing import StageClock

if TYPE_CHECKING:
    from typing_extensions import Self

    from s3prl_stream.pipes.lexicon import Lexicon
    from s3prl_stream.pipes.noise_bank import NoiseBank
    from s3prl_stream.pipes.rooms import RirBank
    from s3prl_stream.pipes.tokenizers import Tokenizer

_UNTYPED = ("any", "nested")

USUAL_GIVERS = {
    "wav": "load_audio",
    "feat": "features",
    "tokens": "tokenize",
    "masked_feat": "mask",
    "tags": "tag_frames",
}
"""Key -> the stage to think of where it is missing."""

DamageHandler = Callable[[Sample, SampleError], None]

Samples: TypeAlias = Iterable[Sample] | Mapping[str, Sample]
"""What a chain can begin with: a list, another loader's pipe, any iterable of samples, or {key: sample}."""


class Source(IterDataPipe[Sample]):
    """Anything a stage can be bound to. Iterating it yields samples (flat dicts).

    The chained methods below are registered with torch by `@chained` and only declared here, so that type
    checkers and editors see them; a test compares them with the constructors.
    """

    splits: bool = False
    """True if samples may come out that are only a piece of an utterance, so that its text no longer fits them."""

    def __str__(self) -> str:
        return repr(self)

    def known_keys(self) -> Mapping[str, str] | None:
        """Keys of the samples that come out, with their types ("float32 [T]", or "any"); None: unknown."""
        return None

    def stage(self, stage_id: str) -> Any:
        """The stage of this chain with this name, such as "tokenize" (a second one is "tokenize#1").

        Raises:
            UsageError: there is none.
        """
        stages = {stage.stage_id: stage for stage in stages_of(self)}
        if stage_id not in stages:
            raise UsageError(f"this chain has no stage {stage_id!r}; it has {', '.join(stages) or 'none'}")
        return stages[stage_id]

    def collate(self) -> Source:  # type: ignore[override]  # torch's own is a table entry, see `chained`
        """Padded batches for a plain torch loader: `DataLoader(stream.collate(), batch_size=None)`."""
        return root_of(self).collated(self)

    if TYPE_CHECKING:
        # fmt: off
        def load_audio(self, *, sample_rate: int | None = 16_000, dtype: str = "float32",
                       channel: str | int = "first", sox_effects: Sequence[Sequence[str | float]] | None = None,
                       crop_segment: bool = False) -> Stage: ...
        def load_feat(self, *, layer: int | None = None, dtype: str = "float32") -> Stage: ...
        def norm_wav(self, *, target_db: float = -25.0) -> Stage: ...
        def add_noise(self, *, noise: str | NoiseBank = "gaussian", snr: Sequence[float] | float = (3.0, 20.0),
                      prob: float = 1.0, voices: Sequence[int] | int = 1) -> Stage: ...
        def reverberate(self, *, rooms: str | RirBank = "simulated", rt60: Sequence[float] | float = (0.2, 0.8),
                        drr_db: Sequence[float] | float = (0.0, 15.0), max_seconds: float = 2.0,
                        prob: float = 1.0) -> Stage: ...
        def random_gain(self, *, gain_db: Sequence[float] | float = (-6.0, 6.0), prob: float = 1.0) -> Stage: ...
        def perturb_speed(self, *, factors: Sequence[float] = (0.9, 1.0, 1.1), prob: float = 1.0) -> Stage: ...
        def mix_utterances(self, *, ratio_db: Sequence[float] | float = (-5.0, 5.0), max_share: float = 0.5,
                           prob: float = 0.2) -> Stage: ...
        def spec_augment(self, *, freq_width: Sequence[int] = (0, 50), freq_masks: int = 4,
                         time_width: Sequence[int] = (0, 40), time_masks: int = 2, max_time_share: float = 1.0,
                         warp_frames: int = 5, fill: str = "zero", prob: float = 1.0) -> Stage: ...
        def on(self, device: str = "cuda") -> Stage: ...
        def record_draws(self) -> Stage: ...
        def sox_effects(self, effects: Sequence[Sequence[Any]], *, prob: float = 1.0) -> Stage: ...
        def chunk(self, *, min_seconds: float = 2.5, max_seconds: float | None = None,
                  step_seconds: float | None = None, tail: str = "keep", tokens: str = "drop",
                  sample_rate: int | None = None) -> Stage: ...
        def chunk_frames(self, *, min_frames: int = 2000, max_frames: int | None = None,
                         step_frames: int | None = None, hop_samples: int = 160, tail: str = "keep",
                         tokens: str = "drop", sample_rate: int | None = None) -> Stage: ...
        def crop(self, max_seconds: float | None = None, *, sample_rate: int | None = None) -> Stage: ...
        def tokenize(self, tokenizer: Tokenizer | None = None, *, train_tokenizer: bool = False,
                     vocab_type: str = "character", vocab_size: int | None = None, text: str | None = None,
                     tags: str | None = None, eos: bool = True, max_unknown_share: float = 0.5) -> Stage: ...
        def phonemize(self, lexicon: Lexicon, *, tokenizer: Tokenizer | None = None, text: str | None = None,
                      eos: bool = True, unknown: str = "refuse") -> Stage: ...
        def encode_category(self, label: str = "label", *, categories: Iterable[Any] | None = None) -> Stage: ...
        def encode_categories(self, labels: str | Sequence[str] = "labels", *,
                              categories: Sequence[Iterable[Any]] | None = None) -> Stage: ...
        def encode_multilabel(self, labels: str = "labels", *, categories: Iterable[Any] | None = None) -> Stage: ...
        def tag_frames(self, *, columns: str = "recording", categories: Iterable[Any] | None = None,
                       num_labels: int | None = None, hop_samples: int = 160, like: str | None = None,
                       sample_rate: int | None = None) -> Stage: ...
        def select(self, output_keys: Mapping[str, str] | Sequence[str] = ()) -> Stage: ...
        def features(self, kind: str = "logmel80", *, norm: str = "utterance", deltas: int = 0,
                     feat_name: str = "feat") -> Stage: ...
        def mask(self, kind: str = "tera", *, legacy: bool = False, time_share: float = 0.15,
                 span_frames: int = 7, band_share: float | None = None, overlap: bool = True,
                 noise_prob: float = 0.0) -> Stage: ...
        def mask_spans(self, kind: str = "wav2vec2", *, prob: float | None = None, span_frames: int = 10,
                       min_spans: int = 2, like: str | None = None) -> Stage: ...
        def shift(self, n_future: int = 5) -> Stage: ...
        # fmt: on


class Stage(Source):
    """One step of a chain.

    An author writes a keyword-only constructor which keeps the parameters under their own names and *then* calls
    `super().__init__(source)` (which checks the chain), declares `takes` and `provides`, and implements `emit`.
    Nothing is mutated: a stage returns new dicts.
    """

    functional_name: ClassVar[str] = ""
    positional: ClassVar[str | None] = None
    """The one parameter that the chained call takes without its name, as in `.features("logmel80")`."""
    works_on_batches: ClassVar[bool] = False
    """True of a stage that has a form for padded batches, and can stand behind `.on(device)` (`OnBatch`)."""
    moves: ClassVar[bool] = False
    """True of `.on(device)` itself."""
    in_identity: ClassVar[bool] = True
    """False of a stage that changes nothing a batch is known by: states of chains with and without it are the same."""
    scope: ClassVar[Literal["sample", "batch"]] = "sample"
    """"sample": looks at one sample (1 -> 1, N or 0). "batch": looks at the samples of one planned batch."""
    keeps_count: ClassVar[bool] = True
    """True if every sample gives exactly one sample, so that `len()` can be known."""
    keeps_length: bool = True
    """True if the waveform that comes out is as long as the one that came in."""
    takes: Mapping[str, str] = {}
    """Key -> "dtype [dims]" of a CPU tensor, with | between alternatives of dtype; "any"; or "nested": a list or an
    object, of which the index of a set does not say whether samples have it."""
    provides: Mapping[str, str] = {}
    stretch: float = 1.0
    """At most how many times as long a waveform is after this stage; the plan's budget of seconds is divided by it."""
    removes: frozenset[str] = frozenset()
    """Keys that samples may no longer have after this stage, so that nothing later can rely on them."""

    names: Mapping[str, str] = {}
    """Key of this stage -> what the chain calls it, where that is another; set by parameters such as `wav_name`."""
    name_parameters: ClassVar[Mapping[str, str]] = {}
    """Parameter -> key of this stage, see `chained`."""

    def __init__(self, source: Samples | None = None) -> None:
        self.source: Source | None = None
        self.stage_id = self.functional_name
        if self.names:
            self.takes, self.provides = renamed(self.takes, self.names), renamed(self.provides, self.names)
            self.removes = frozenset(self.names.get(key, key) for key in self.removes)
        if source is not None:
            self._bind(source)

    # ---- what an author writes -----------------------------------------------------------------

    def emit(self, sample: Sample) -> Iterable[Sample]:
        """The samples that one sample becomes (scope "sample")."""
        raise NotImplementedError(f"{type(self).__name__} must implement emit()")

    def emit_batch(self, samples: Sequence[Sample]) -> Iterable[Sample]:
        """The samples that the samples of one planned batch become (scope "batch")."""
        raise NotImplementedError(f"{type(self).__name__} must implement emit_batch()")

    def check_chain(self, source: Source) -> None:
        """What `takes` cannot say about the chain before this stage; raises ChainError. Most need nothing here."""

    def prepare(self, source: Source) -> None:
        """Learn from the data, once, when bound (in the parent process): the categories, the tokenizer ..."""

    def outline(self, before: Outline) -> Iterable[Outline]:
        """What `emit` would make of a sample, as far as number and lengths go, without its waveform.

        Raises:
            TypeError: that cannot be known.
        """
        if not (self.keeps_count and self.keeps_length):
            raise TypeError(f"what {type(self).__name__} makes of a waveform cannot be known without running it")
        return [before]

    def rng(self, sample: Sample) -> np.random.Generator:
        """This stage's random numbers for this sample: a function of identity (seed, set, epoch, key, stretch)."""
        return sample_rng(sample["identity"], self.stage_id)

    def noted(self, sample: Sample, **drawn: Any) -> Sample:
        """The sample with what this stage has drawn for it, where the chain records that (`RecordDraws`)."""
        if "draws" not in sample:
            return sample
        return {**sample, "draws": {**sample["draws"], self.stage_id: drawn}}

    # ---- binding -------------------------------------------------------------------------------

    def __call__(self, source: Samples) -> Self:
        """A copy of this stage that reads from `source`."""
        bound = copy.copy(self)
        bound._bind(source)
        return bound

    def _bind(self, source: Samples) -> None:
        if isinstance(source, str | bytes) or not isinstance(source, Iterable):
            hint = f" Write {self.positional}=..." if self.positional else ""
            raise ChainError(
                f"{type(self).__name__}: {source!r} is not a source of samples; settings are given by name.{hint}"
            )
        self.source = source if isinstance(source, Source) else PlainSource(source)
        earlier = sum(type(stage) is type(self) for stage in stages_of(self.source))
        self.stage_id = f"{self.functional_name}#{earlier}" if earlier else self.functional_name
        self._check_takes(self.source)
        self._check_side(self.source)
        self.check_chain(self.source)
        self.prepare(self.source)

    def _check_takes(self, source: Source) -> None:
        known = source.known_keys()
        if known is None:
            return
        for key, wanted in self.takes.items():
            if key not in known:
                if wanted == "nested" and not root_of(source).knows_nested:
                    continue
                taker = next((s for s in reversed(stages_of(source)) if key in s.removes), None)
                lost = "nothing before it provides" if taker is None else f"{type(taker).__name__} has removed"
                giver_name = USUAL_GIVERS.get(key)
                raise ChainError(
                    f"{type(self).__name__} takes {key!r} ({wanted}), which {lost}. "
                    f"{type(source).__name__} gives: {', '.join(sorted(known))}."
                    + (f" Put .{giver_name}() before it?" if giver_name is not None else "")
                )
            if not _fits(known[key], wanted):
                giver = next((s for s in reversed(stages_of(source)) if key in s.provides), source)
                raise ChainError(
                    f"{type(self).__name__} takes {key!r} as {wanted}, but {type(giver).__name__} "
                    f"provides it as {known[key]}."
                )

    def _check_side(self, source: Source) -> None:
        marker = next((stage for stage in stages_of(source) if stage.moves), None)
        if marker is None:
            return
        if not self.works_on_batches:
            raise ChainError(
                f"{type(self).__name__} works on samples, and stands behind .{marker.describe()}, where there are "
                "batches: put it before."
            )
        if self.names:
            raise ChainError(
                f"{type(self).__name__} stands behind .{marker.describe()} and gives keys other names "
                f"({', '.join(self.names.values())}): that is for samples; put it before."
            )

    def known_keys(self) -> Mapping[str, str] | None:
        """Keys before this stage without those it removes, plus what it provides."""
        before = self.source.known_keys() if self.source is not None else None
        if before is None:
            return None
        return {**{key: kind for key, kind in before.items() if key not in self.removes}, **self.provides}

    # ---- running -------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Sample]:
        if self.source is None:
            raise ChainError(f"{type(self).__name__} is not bound to a source: write stage(source) first.")
        return root_of(self).run(stages_of(self))

    def __len__(self) -> int:
        """Number of samples; behind a stage that makes pieces, counted from the lengths in the headers.

        Raises:
            TypeError: it cannot be known without running the chain.
        """
        if self.source is None:
            raise TypeError(f"{type(self).__name__} is not bound to a source and has no length")
        stages = stages_of(self)
        if all(stage.keeps_count for stage in stages):
            return root_of(self).length(stages)
        outlines = root_of(self).outlines()
        for stage in stages:
            outlines = _outlines_after(stage, outlines)
        return sum(1 for _ in outlines)

    def set_epoch(self, epoch: int) -> None:
        """Fix the epoch from which the stages' random draws follow (used alone; a plan has its own)."""
        root_of(self).set_epoch(epoch)

    # ---- describing ----------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """The constructor's parameters and their values, and other names of keys where they were given."""
        parameters = inspect.signature(type(self).__init__).parameters
        # one that is called like a chained method is kept under its name with an underscore
        kept = {name: f"_{name}" if f"_{name}" in vars(self) else name for name in parameters}
        own = {name: getattr(self, kept[name]) for name in parameters if name not in ("self", "source")}
        given = {name: self.names[key] for name, key in self.name_parameters.items() if key in self.names}
        return {**own, **given}

    def describe(self) -> str:
        """One line, the same for the same configuration: name, parameters, fingerprints of resources."""
        values = ", ".join(f"{name}={_describe(value)}" for name, value in self.config().items())
        return f"{self.stage_id}({values})"

    def keys_line(self) -> str:
        """What this stage takes, gives and drops, in one line."""
        parts = []
        for verb, kinds in (("takes", self.takes), ("gives", self.provides)):
            if kinds:
                parts.append(f"{verb} {', '.join(k if v in _UNTYPED else f'{k} {v}' for k, v in kinds.items())}")
        if self.removes:
            parts.append(f"drops {', '.join(sorted(self.removes))}")
        return "; ".join(parts)

    def __repr__(self) -> str:
        try:
            root = root_of(self)
        except ChainError:
            return self.describe()
        keys = root.known_keys()
        lines = [repr(root), f"      gives {', '.join(keys) if keys is not None else 'keys that are not known yet'}"]
        for stage in stages_of(self):
            lines += [f"  .{stage.describe()}", f"      {stage.keys_line()}".rstrip()]
        return "\n".join(line for line in lines if line)


class Root(Source):
    """The beginning of a chain."""

    knows_nested: ClassVar[bool] = True
    """Whether `known_keys` names lists and objects among the metadata too."""

    def run(self, stages: Sequence[Stage]) -> Iterator[Sample]:
        """Feed this root's samples through bound stages, root first."""
        raise NotImplementedError

    def length(self, stages: Sequence[Stage]) -> int:  # noqa: ARG002
        """Number of samples that a chain of these stages begins with."""
        return len(self)

    def set_epoch(self, epoch: int) -> None:
        """Fix the epoch of the next iteration."""
        raise NotImplementedError

    def column(self, name: str) -> Iterator[Any]:
        """The values of one key over all samples, before any stage; None where a sample has none.

        Raises:
            UsageError: they are not known before the samples are read.
        """
        raise UsageError(
            f"the samples of a {type(self).__name__} are not known before they are read, so nothing can be learned "
            f"from their {name!r}: give what is to be learned (categories=, tokenizer=), or begin with a list or a set."
        )

    def outlines(self) -> Iterator[Outline]:
        """The samples of the next epoch without their waveforms.

        Raises:
            TypeError: they cannot be known without running the chain.
        """
        raise TypeError(
            f"the number of pieces of the samples of a {type(self).__name__} cannot be known without running it"
        )

    def collated(self, chain: Source) -> Source:
        """The chain's batches, where a plan says what a batch is."""
        raise ChainError(f"a {chain!r} has no planned batches: begin the chain with ShardStream(samples)")


class PlainSource(Root):
    """A list, any iterable or another loader's pipe: samples come in its order, without plan or resume.

    A sample without a key (nor WebDataset's "__key__") gets its position as key. A dict {key: sample} is a list of
    samples with keys. Numeric numpy arrays become tensors (of the same memory where possible), so stages see no other
    kind of array.

    The epoch is the number of the iteration, or what `set_epoch` says. The workers of a torch DataLoader begin
    to count anew each time they are started: with `num_workers` > 0, call `set_epoch` before each epoch. A list or
    dict is divided among them by position, a torch IterableDataset divides itself, and anything else is refused
    there, since every worker would yield all of it.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.epoch = 0
        self._fixed_epoch: int | None = None

    def set_epoch(self, epoch: int) -> None:
        """Fix the epoch of every iteration from now on."""
        self._fixed_epoch = epoch

    def known_keys(self) -> Mapping[str, str] | None:
        """Of a list or dict: the keys of its first sample, with the types of its arrays."""
        if isinstance(self.samples, Mapping):
            first: Any = next(iter(self.samples.values()), None)
        else:
            first = self.samples[0] if isinstance(self.samples, Sequence) and self.samples else None
        if not isinstance(first, Mapping):
            return None
        tags = dict.fromkeys(("key", "epoch", "set", "identity"), "any")
        return {**tags, **{key: _kind_of(value) for key, value in first.items()}}

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

    def outlines(self) -> Iterator[Outline]:
        """Of a list or a dict."""
        if not isinstance(self.samples, Sequence | Mapping):
            return super().outlines()
        epoch = self._next_epoch()
        return (outline_of(self._tagged(i, sample, epoch)) for i, sample in enumerate(self._with_keys()))

    def run(self, stages: Sequence[Stage]) -> Iterator[Sample]:
        """Samples in the source's own order; a damaged one raises."""
        epoch = self._next_epoch()
        self.epoch += 1
        clock = StageClock()
        this_worker, num_workers = self._share_of_worker()
        for position, sample in enumerate(self._with_keys()):
            if position % num_workers != this_worker:
                continue
            if not isinstance(sample, Mapping):
                raise UsageError(f"item {position} of the source is a {type(sample).__name__}; a sample is a dict")
            yield from _through(stages, self._tagged(position, sample, epoch), clock)

    def _next_epoch(self) -> int:
        return self.epoch if self._fixed_epoch is None else self._fixed_epoch

    def _tagged(self, position: int, sample: Sample, epoch: int) -> Sample:
        key = str(sample.get("key", sample.get("__key__", position)))
        name = identity(seed=0, set_name="", epoch=epoch, key=key, first_frame=0, draw=0)
        tensors = {key: as_tensor(value) for key, value in sample.items()}
        return {"key": key, "epoch": epoch, "set": "", "identity": name, **tensors}

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
        if not isinstance(self.samples, Mapping):
            yield from self.samples
            return
        for key, sample in self.samples.items():
            yield {"key": key, **sample}


StageType = TypeVar("StageType", bound=type[Stage])


Alias: TypeAlias = str | tuple[str, Mapping[Any, Any]]
"""Our name of a parameter, or our name and {its value in S3PRL: ours}."""


def chained(
    name: str,
    *,
    aliases: Mapping[str, Alias] | None = None,
    key_names: Mapping[str, str] | None = None,
    refused: Mapping[str, str] | None = None,
    translate: Translate = dict,
) -> Callable[[StageType], StageType]:
    """Class decorator: makes the stage available as `source.name(**config)`.

    Args:
        name: the functional name.
        aliases: S3PRL's name of a parameter -> ours. Both are accepted by the constructor and by the chained call.
        key_names: a parameter, such as "wav_name", -> the key of this stage that it gives another name to ("wav"), so
            that the stage works on keys of another name.
        refused: S3PRL's name of a parameter that has no meaning here -> what to do instead.
        translate: of arguments that are more than other names; before all the others.
    """

    def register(cls: StageType) -> StageType:
        cls.name_parameters = dict(key_names or {})
        cls.__init__ = _accepting(  # type: ignore[method-assign]
            cls.__init__, aliases or {}, cls.name_parameters, refused or {}, translate
        )
        if IterDataPipe.functions.get(name, cls).__module__ != cls.__module__:
            raise ChainError(f"the functional name {name!r} is already taken in torch's table of pipes")
        cls.functional_name = name

        def bind(source: Source, *arguments: Any, **config: Any) -> Stage:
            if len(arguments) > (cls.positional is not None):
                raise UsageError(f".{name}(): settings are given by name, as in .{name}({next(iter(config), 'x')}=...)")
            if arguments and cls.positional is not None:
                config = {cls.positional: arguments[0], **config}
            return cls(**config)(source)

        bind.__module__, bind.__doc__ = cls.__module__, cls.__doc__
        IterDataPipe.register_function(name, bind)
        return cls

    return register


def _accepting(
    init: Callable[..., None],
    aliases: Mapping[str, Alias],
    key_names: Mapping[str, str],
    refused: Mapping[str, str],
    translate: Translate,
) -> Callable[..., None]:
    """The constructor `init` with more names for its parameters; its signature stays as it is written."""
    parameters = inspect.signature(init).parameters

    @functools.wraps(init)
    def init_with_more_names(self: Stage, *arguments: Any, **config: Any) -> None:
        stage = type(self).__name__
        settings: dict[str, Any] = {}
        config = translate(config)
        for given, value in config.items():
            if given in refused:
                raise UsageError(f"{stage}: {given} of S3PRL has no meaning here: {refused[given]}.")
            alias = aliases.get(given, given)
            name, values = (alias, None) if isinstance(alias, str) else alias
            if name in settings or (name != given and name in config):
                raise UsageError(f"{stage}: {given} is another name of {name}; give one of them")
            if values is not None and value not in values:
                raise UsageError(f"{stage}: {given}={value!r} has no meaning here; say it by {name}")
            if name not in key_names and name not in parameters:
                near = difflib.get_close_matches(name, [*parameters, *aliases, *key_names], 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                known = ", ".join(p for p in parameters if p not in ("self", "source"))
                raise UsageError(f"{stage} has no parameter {given!r}{hint} It has: {known or 'none'}.")
            settings[name] = value if values is None else values[value]
        names = {key_names[name]: settings.pop(name) for name in list(settings) if name in key_names}
        self.names = {key: name for key, name in names.items() if key != name}
        try:
            init(self, *arguments, **settings)
        except TypeError as error:  # a setting that is missing, or of a type that cannot be compared
            raise UsageError(f"{stage}: {str(error).replace(f'{stage}.__init__() ', '')}") from error

    return init_with_more_names


def stages_of(source: Source | None) -> list[Stage]:
    """The stages of a chain in the order of the data."""
    stages: list[Stage] = []
    while isinstance(source, Stage):
        stages.append(source)
        source = source.source
    return stages[::-1]


def root_of(source: Source) -> Root:
    """The beginning of a chain.

    Raises:
        ChainError: the chain's first stage is not bound to a source.
    """
    node: Source | None = source
    while isinstance(node, Stage):
        node = node.source
    if not isinstance(node, Root):
        raise ChainError("the first stage of this chain is not bound to a source: write stage(source) first.")
    return node


def chain_fingerprint(stages: Sequence[Stage]) -> str:
    """16 hexadecimal digits that change when a stage, its settings or its resources change."""
    return hashlib.blake2b("\n".join(s.describe() for s in stages).encode(), digest_size=8).hexdigest()


def run_batch(
    stages: Sequence[Stage],
    samples: Iterable[Sample],
    on_damage: DamageHandler,
    clock: StageClock | None = None,
) -> list[Sample]:
    """Run the samples of one planned batch through bound stages; a damaged sample costs itself alone.

    Args:
        stages: root first.
        samples: may raise nothing; reading is a stage's work.
        on_damage: called with the sample as it came in and the SampleError.
        clock: told when each stage begins and ends.
    """
    clock = StageClock() if clock is None else clock
    done = list(samples)
    position = 0
    while position < len(stages):
        if stages[position].scope == "batch":
            clock.on_sample(-1)
            clock.enter(stages[position].stage_id)
            done = list(stages[position].emit_batch(done))
            clock.leave()
            position += 1
            continue
        group = stages[position : _end_of_sample_scope(stages, position)]
        position += len(group)
        survivors: list[Sample] = []
        for sample in done:
            clock.on_sample(sample.get("slot", -1))
            try:
                survivors.extend(_through(group, sample, clock))
            except SampleError as error:
                on_damage(sample, error)
        done = survivors
    return done


def _end_of_sample_scope(stages: Sequence[Stage], start: int) -> int:
    return next((i for i in range(start, len(stages)) if stages[i].scope == "batch"), len(stages))


def _through(stages: Sequence[Stage], sample: Sample, clock: StageClock) -> list[Sample]:
    samples = [sample]
    for stage in stages:
        if stage.scope == "batch":
            raise ChainError(f"{type(stage).__name__} looks at whole batches: it needs a ShardStream as its root")
        clock.enter(stage.stage_id)
        if stage.names:
            samples = [out for one in samples for out in emit_under_names(stage.emit, one, stage.names)]
        else:
            samples = [out for one in samples for out in stage.emit(one)]
        clock.leave()
    return samples


def _outlines_after(stage: Stage, outlines: Iterable[Outline]) -> Iterator[Outline]:
    for before in outlines:
        yield from stage.outline(before)


def _fits(given: str, wanted: str) -> bool:
    if given == "any" or wanted in _UNTYPED:
        return True
    given_dtype, _, given_dims = given.partition(" ")
    wanted_dtypes, _, wanted_dims = wanted.partition(" ")
    same_rank = given_dims.count(",") == wanted_dims.count(",") and bool(given_dims) == bool(wanted_dims)
    return given_dtype in wanted_dtypes.split("|") and same_rank


def _kind_of(value: Any) -> str:
    """Of an array: its type as in `takes`, such as "float64 [?, ?]". Of anything else: "any"."""
    if not hasattr(value, "dtype") or not hasattr(value, "ndim") or value.ndim == 0:
        return "any"
    return f"{str(value.dtype).removeprefix('torch.')} [{', '.join('?' * value.ndim)}]"


def as_tensor(value: Any) -> Any:
    """A numeric numpy array as a tensor, of the same memory where possible; anything else as it is."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return value
    return torch.from_numpy(np.require(value, requirements=["C", "W"]))


def _describe(value: Any) -> str:
    fingerprint = getattr(value, "fingerprint", None)
    return f"<{type(value).__name__} {fingerprint}>" if fingerprint is not None else repr(value)
