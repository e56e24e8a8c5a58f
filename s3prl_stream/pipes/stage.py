"""The stage contract: what a pipe is, and how pipes are bound into a chain.

A stage is its configuration. `stage(source)` and `source.name(**config)` bind a copy of it to a source, so one
stage object can serve two chains. Each declares the keys it takes and provides; a chain that does not fit is
refused when it is built. This is the only file that imports torch's IterDataPipe.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
from torch.utils.data import IterDataPipe

from s3prl_stream.errors import ChainError, UsageError
from s3prl_stream.pipes.chained_methods import ChainedMethods
from s3prl_stream.pipes.described import described, parameters_of
from s3prl_stream.pipes.fit import check_fit, check_names
from s3prl_stream.pipes.key_names import renamed
from s3prl_stream.pipes.kinds import UNTYPED
from s3prl_stream.pipes.outline import Outline, outlines_after
from s3prl_stream.rng import sample_rng
from s3prl_stream.sample import Sample

if TYPE_CHECKING:
    from typing_extensions import Self

Samples: TypeAlias = Iterable[Sample] | Mapping[str, Sample]
"""What a chain can begin with: a list, another loader's pipe, any iterable of samples, or {key: sample}."""


class Source(ChainedMethods, IterDataPipe[Sample]):
    """Anything a stage can be bound to. Iterating it yields samples (flat dicts)."""

    splits: bool = False
    """True if samples may come out that are only a piece of an utterance, so that its text no longer fits them."""
    times_read: int = 0
    """How often the chain that ends here has been read; without a plan, that is the next epoch."""

    def __str__(self) -> str:
        return repr(self)

    def __getattr__(self, attribute_name: str) -> Any:
        """A chained method, which torch finds in its table of pipes; of a name that is none, the nearest is told."""
        try:
            return super().__getattr__(attribute_name)
        except AttributeError:
            is_asked_by_python = attribute_name.startswith("_")
            near = [] if is_asked_by_python else difflib.get_close_matches(attribute_name, self.functions, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AttributeError(f"a {type(self).__name__} has no {attribute_name!r}{hint}") from None

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


class Stage(Source):
    """One step of a chain.

    The first argument of every stage is the source to read from; None: it is bound later, by `stage(source)`.

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
    """True if the waveform that comes out is as long as the one that came in; if not, the stage is refused behind those
    that provide an array "[F, ...]": counted in frames of the waveform."""
    takes: Mapping[str, str] = {}
    """Key -> "dtype [dims]" of a CPU tensor, with | between alternatives of dtype; "any"; or "nested": a list or an
    object, of which the index of a set does not say whether samples have it."""
    provides: Mapping[str, str] = {}
    stretch: float = 1.0
    """At most how many times as long a waveform is after this stage; the plan's budget of seconds is divided by it."""
    removes: frozenset[str] = frozenset()
    """Keys that samples may no longer have after this stage, so that nothing later can rely on them."""

    source: Source | None = None
    """What it is bound to."""
    stage_id: str = ""
    """Its name in a chain: "crop", a second one "crop#1"."""
    names: Mapping[str, str] = {}
    """Key of this stage -> what the chain calls it, where that is another; set by parameters such as `wav_name`."""
    name_parameters: ClassVar[Mapping[str, str]] = {}
    """Parameter -> key of this stage, see `chained`."""

    def __init__(self, source: Samples | None = None) -> None:
        self.source = None
        self.stage_id = self.own_name()
        if self.names:
            check_names(self)
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

    def own_name(self) -> str:
        """The functional name; of a class that has none, its own."""
        return self.functional_name or type(self).__name__

    # ---- binding -------------------------------------------------------------------------------

    def __call__(self, source: Samples) -> Self:
        """A copy of this stage that reads from `source`."""
        bound = copy.copy(self)
        bound._bind(source)
        return bound

    def _bind(self, source: Samples) -> None:
        if isinstance(source, str | bytes) or not isinstance(source, Iterable):
            hint = f" Write {self.positional}=..." if self.positional else ""
            if not isinstance(source, str | bytes) and hasattr(source, "__getitem__"):
                hint = " A map-style dataset is none either: call SampleFunction(stage) in its __getitem__."
            raise ChainError(
                f"{type(self).__name__}: {source!r} is not a source of samples; settings are given by name.{hint}"
            )
        if not isinstance(source, Source):
            from s3prl_stream.pipes.plain_source import PlainSource  # a root, so it is built on this file

            source = PlainSource(source)
        if not isinstance(source, Stage | Root):
            raise ChainError(
                f"{type(self).__name__} stands behind .collate(), whose batches end a chain: put it before"
            )
        self.source, self.times_read = source, 0
        # by the name: two stages of one identifier would draw the same numbers
        name = self.own_name()
        before = stages_of(self.source)
        earlier = sum(stage.own_name() == name for stage in before)
        self.stage_id = f"{name}#{earlier}" if earlier else name
        check_fit(self, self.source, before)
        self.check_chain(self.source)
        self.prepare(self.source)

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
        outlines = root_of(self).outlines(stages)
        for stage in stages:
            outlines = outlines_after(stage, outlines)
        return sum(1 for _ in outlines)

    def set_epoch(self, epoch: int) -> None:
        """Fix the epoch from which the stages' random draws follow (used alone; a plan has its own)."""
        root_of(self).set_epoch(epoch)

    # ---- describing ----------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """The constructor's parameters and their values, and other names of keys where they were given."""
        # one that is called like a chained method is kept under its name with an underscore
        kept = {name: f"_{name}" if f"_{name}" in vars(self) else name for name in parameters_of(type(self))}
        lost = next((name for name, attribute in kept.items() if not hasattr(self, attribute)), None)
        if lost is not None:
            raise ChainError(
                f"{type(self).__name__} does not keep its parameter {lost!r}: a stage is its configuration, so write "
                f"self.{lost} = {lost} in its constructor."
            )
        own = {name: getattr(self, attribute) for name, attribute in kept.items()}
        given = {name: self.names[key] for name, key in self.name_parameters.items() if key in self.names}
        return {**own, **given}

    def describe(self) -> str:
        """One line, the same for the same configuration: name, parameters, fingerprints of resources."""
        values = ", ".join(f"{name}={described(value)}" for name, value in self.config().items())
        return f"{self.stage_id}({values})"

    def keys_line(self) -> str:
        """What this stage takes, gives and drops, in one line."""
        parts = []
        for verb, kinds in (("takes", self.takes), ("gives", self.provides)):
            if kinds:
                parts.append(f"{verb} {', '.join(k if v in UNTYPED else f'{k} {v}' for k, v in kinds.items())}")
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

    def why_not(self, key: str) -> str:  # noqa: ARG002
        """What else is to be said of a key that `known_keys` does not name: a sentence, after a blank."""
        return ""

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

    def outlines(self, stages: Sequence[Stage]) -> Iterator[Outline]:  # noqa: ARG002
        """The samples that a chain of these stages begins with the next time, without their waveforms.

        Raises:
            TypeError: they cannot be known without running the chain.
        """
        raise TypeError(
            f"the number of pieces of the samples of a {type(self).__name__} cannot be known without running it"
        )

    def collated(self, chain: Source) -> Source:  # noqa: ARG002
        """The chain's batches, where a plan says what a batch is."""
        raise ChainError(
            f"a chain that begins with a {self!r} has no planned batches: begin it with ShardStream(samples)"
        )


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
        ChainError: the chain's first stage is not bound to a source, or it is no chain.
    """
    if not isinstance(source, Source):
        hint = " .map(), .filter() and the like are torch's: a function of your own goes into a Stage, as its emit()."
        raise ChainError(
            f"{source!r:.200} is no chain; begin one by ShardStream(...), or bind a stage to it."
            + hint * isinstance(source, IterDataPipe)
        )
    node: Source | None = source
    while isinstance(node, Stage):
        node = node.source
    if node is not None and not isinstance(node, Root):
        raise ChainError("this chain has ended with .collate(), for a plain torch loader: give the chain before it")
    if node is None:
        raise ChainError("the first stage of this chain is not bound to a source: write stage(source) first.")
    return node


def chain_fingerprint(stages: Sequence[Stage]) -> str:
    """16 hexadecimal digits that change when a stage, its settings or its resources change."""
    return hashlib.blake2b("\n".join(s.describe() for s in stages).encode(), digest_size=8).hexdigest()
