"""The public names: sorted, each resolves, none is missing from the list."""

from __future__ import annotations

import s3prl_stream

PROMISED = {
    "Loader",
    "MemoryShards",
    "SampleError",
    "SequentialTars",
    "ShardError",
    "ShardStream",
    "Stage",
    "StateError",
    "StreamError",
    "UsageError",
    "Utterance",
    "assert_resumable",
    "build_encoder",
    "corpora",
    "evaluate",
    "index_shards",
    "open_shards",
    "pack",
    "pipes",
    "predict",
    "pretrain",
    "train",
    "upstream",
}
"""Names that users rely on: taking one away or renaming it needs a line in CHANGELOG.md."""


def test_all_is_sorted_and_each_name_resolves() -> None:
    assert s3prl_stream.__all__ == sorted(set(s3prl_stream.__all__))
    for name in s3prl_stream.__all__:
        assert getattr(s3prl_stream, name) is not None


def test_promised_names_are_listed() -> None:
    assert set(s3prl_stream.__all__) >= PROMISED


def test_a_name_lives_where_the_table_says() -> None:
    for name, home in s3prl_stream._HOME.items():
        found = getattr(s3prl_stream, name)
        assert getattr(found, "__module__", home) == home, f"{name} is defined in {found.__module__}"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(s3prl_stream, "no_such_name")
    assert "no_such_name" not in dir(s3prl_stream)
