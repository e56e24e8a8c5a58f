"""Speech data pipelines whose stream is a pure function of (index, seed, epoch).

Names are resolved when they are first used, so `import s3prl_stream` loads neither torch nor an audio library.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Loader": "s3prl_stream.loader",
    "MemoryShards": "s3prl_stream.shards.memory",
    "SampleError": "s3prl_stream.errors",
    "SequentialTars": "s3prl_stream.sequential_tars",
    "ShardError": "s3prl_stream.errors",
    "ShardStream": "s3prl_stream.stream",
    "Stage": "s3prl_stream.pipes.stage",
    "StateError": "s3prl_stream.errors",
    "StreamError": "s3prl_stream.errors",
    "UsageError": "s3prl_stream.errors",
    "Utterance": "s3prl_stream.sample",
    "assert_resumable": "s3prl_stream.resumable",
    "build_encoder": "s3prl_stream.recipes",
    "evaluate": "s3prl_stream.downstream.evaluate",
    "export_s3prl": "s3prl_stream.recipes.s3prl_export",
    "extract": "s3prl_stream.extraction",
    "index_shards": "s3prl_stream.indexing.foreign",
    "open_shards": "s3prl_stream.shards.shardset",
    "pack": "s3prl_stream.packing.pack",
    "predict": "s3prl_stream.downstream.evaluate",
    "pretrain": "s3prl_stream.recipes.pretrain",
    "repair": "s3prl_stream.checking.repair",
    "subset": "s3prl_stream.shards.subset",
    "sweep": "s3prl_stream.downstream.sweep",
    "train": "s3prl_stream.downstream.train",
    "training_parts": "s3prl_stream.downstream.parts",
    "upstream": "s3prl_stream.upstreams",
    "verify": "s3prl_stream.checking.verify",
}
_MODULES = ("corpora", "pipes")

__all__ = sorted([*_HOME, *_MODULES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"s3prl_stream.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 's3prl_stream' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
