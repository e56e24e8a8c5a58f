from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import s3prl_stream as ss
from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.pipes import Categories, EncodeCategory, EncodeMultiLabel, EncodeMultipleCategory

WAV = torch.zeros(1600)


def test_ids_are_those_of_the_sorted_labels_of_all_samples() -> None:
    data = [{"label": label} for label in ("no", "yes", "maybe", "no")]
    chain = EncodeCategory(train_category_encoder=True)(data)  # type: ignore[call-arg]
    assert [sample["class_id"] for sample in chain] == [1, 2, 0, 1]
    assert list(chain.categories or ()) == ["maybe", "no", "yes"]
    assert chain([{"label": "yes"}]).categories == chain.categories, "those of the training data serve other data"
    numbers = EncodeCategory(label_name="n", encoded_target_name="y")([{"n": 10}, {"n": 9}])  # type: ignore[call-arg]
    assert [sample["y"] for sample in numbers] == [1, 0]


@pytest.mark.parametrize("label", ["other", None, ["yes"], np.array(["yes", "no"]), torch.tensor([1, 2])])
def test_a_label_that_is_none_of_them_is_damage(label: Any) -> None:
    with pytest.raises(SampleError) as caught:
        list(EncodeCategory(categories=["yes", "no"])([{"label": label}]))
    assert caught.value.reason == ("no_label" if label is None else "unknown_label")


def test_several_labels_each_among_its_own() -> None:
    rows = [("on", "lamp"), ("off", "lamp"), ("on", "heat")]
    lists = EncodeMultipleCategory()([{"labels": list(row)} for row in rows])
    columns = EncodeMultipleCategory(labels=("action", "object"))([{"action": a, "object": o} for a, o in rows])
    for chain in (lists, columns):
        assert torch.stack([sample["class_ids"] for sample in chain]).tolist() == [[1, 1], [0, 1], [1, 0]]
        assert [len(slot) for slot in chain.categories or ()] == [2, 2]
    with pytest.raises(SampleError, match="1 labels, expected 2"):
        list(lists([{"labels": ["on"]}]))


def test_any_number_of_labels() -> None:
    chain = EncodeMultiLabel()([{"labels": ["dog", "rain", "dog"]}, {"labels": []}, {"labels": ["cat"]}])
    assert torch.stack([sample["binary_labels"] for sample in chain]).tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]


def test_labels_of_a_stream_are_its_index_column_and_batches_have_them() -> None:
    data = {
        str(number): {"wav": WAV, "label": "ab"[number % 2], "speaker": number % 3, "split": "x" if number < 4 else "y"}
        for number in range(6)
    }
    stream = ss.ShardStream(data, shuffle=False, max_batch_size=6, epochs=1).load_audio()
    chain = stream.encode_category().encode_categories(("label", "speaker"))
    chain = chain.encode_category("speaker", categories=[0, 1, 2, 3])
    (batch,) = ss.Loader(chain.select({"y": "class_id", "pair": "class_ids", "x": "wav", "x_len": "wav_len"}))
    assert batch["y"].dtype == torch.int64
    assert batch["y"].tolist() == [0, 1, 2, 0, 1, 2]
    assert batch["pair"].tolist() == [[0, 0], [1, 1], [0, 2], [1, 0], [0, 1], [1, 2]]
    assert batch["x_len"].tolist() == [1600] * 6
    assert "speaker" not in batch
    part = ss.ShardStream(data, where="split == 'y'").load_audio().encode_category("speaker")
    assert list(part.stage("encode_category").categories) == [1, 2]
    with pytest.raises(UsageError, match=r"no column 'labels' .* the index has"):
        ss.ShardStream(data).load_audio().encode_multilabel("labels")


def test_an_empty_batch_has_the_labels_of_others() -> None:
    data = [{"wav": WAV, "label": "a", "labels": ["x"]}]
    chain = ss.ShardStream(data, epochs=1).load_audio().encode_category().encode_multilabel(categories=["x"])
    (empty,) = ss.Loader(chain, rank=1, world_size=2)
    assert (empty["weight"], empty["class_id"].shape, empty["class_id"].dtype) == (0.0, (0,), torch.int64)
    assert (empty["binary_labels"].shape, empty["binary_labels"].dtype) == ((0, 0), torch.float32)


def test_labels_of_a_packed_set(sample_set: Path) -> None:
    chain = ss.ShardStream(str(sample_set), max_batch_size=4, epochs=1).load_audio().encode_category("digit")
    batch = next(iter(ss.Loader(chain)))
    assert list(chain.stage("encode_category").categories) == list(range(10))
    assert batch["class_id"].tolist() == batch["digit"].tolist()


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(UsageError, match="not known before they are read"):
        EncodeCategory()(sample for sample in [{"label": "a"}])
    with pytest.raises(UsageError, match=r"EncodeCategory, learning from 'speaker' of all samples: .*there are none"):
        EncodeCategory(label="speaker")([{"speaker": None}])
    with pytest.raises(UsageError, match="samples have 1 or 2 labels under 'labels'; expected the same number"):
        EncodeMultipleCategory()([{"labels": ["a", "b"]}, {"labels": ["a"]}])
    with pytest.raises(UsageError, match="train_category_encoder=False has no meaning here; say it by categories"):
        EncodeCategory(train_category_encoder=False)  # type: ignore[call-arg]


@pytest.mark.parametrize("pipe", [EncodeMultiLabel, EncodeMultipleCategory])
def test_a_text_is_no_list_of_labels(pipe: Any) -> None:
    with pytest.raises(UsageError, match="labels of a sample are a list; found 'dog'"):
        pipe()([{"labels": "dog"}])
    slots = [["dog"]] if pipe is EncodeMultipleCategory else ["dog"]
    with pytest.raises(SampleError, match="must be a list of labels; found 'dog'"):
        list(pipe(categories=slots)([{"labels": "dog"}]))


def test_numbers_of_numpy_are_numbers() -> None:
    chain = EncodeCategory()([{"label": np.int64(7)}, {"label": 3}])
    assert [sample["class_id"] for sample in chain] == [1, 0]


def test_categories_sort_numbers_before_texts_and_hash_by_content() -> None:
    assert Categories(["b", 10, "a", 9, None]).labels == (9, 10, "a", "b")
    assert (
        Categories("ba" for _ in range(2)).fingerprint == Categories(["ba"]).fingerprint != Categories([1]).fingerprint
    )
