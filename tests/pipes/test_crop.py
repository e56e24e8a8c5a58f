from __future__ import annotations

import numpy as np
import pytest

from s3prl_stream.errors import UsageError
from s3prl_stream.pipes import RandomCrop, UnfoldChunkBySec

RATE = 100


def test_a_crop_is_a_stretch_that_begins_anywhere_alike() -> None:
    ramp = np.arange(3 * RATE, dtype=np.float32)
    crops = list(RandomCrop(max_secs=2.5)([{"wav": ramp, "sample_rate": RATE}] * 4000))  # type: ignore[call-arg]
    starts = [int(crop["wav"][0]) for crop in crops]
    assert all(np.array_equal(crop["wav"], ramp[at : at + 250]) for crop, at in zip(crops, starts, strict=True))
    assert [crop["crop_start_seconds"] for crop in crops] == [at / RATE for at in starts]
    counts = np.bincount(starts, minlength=51)
    assert len(counts) == 51
    assert float(np.sum((counts - 4000 / 51) ** 2 / (4000 / 51))) == pytest.approx(50, abs=5 * np.sqrt(2 * 50))


def test_what_is_short_enough_stays_whole_with_its_text() -> None:
    sample = {"wav": np.ones(RATE, np.float32), "sample_rate": RATE, "text": "A", "segments": {"a": [(0, 1)]}}
    for settings in ({"max_seconds": 1}, {"max_seconds": 9}, {}):
        (whole,) = RandomCrop(**settings)([sample])  # type: ignore[arg-type]
        assert (len(whole["wav"]), whole["text"], whole["segments"]) == (RATE, "A", {"a": [(0, 1)]})
    (cut,) = RandomCrop(max_seconds=0.25)([sample])
    assert "text" not in cut
    assert cut["segments"] == [{"start": 0.0, "end": 0.25, "label": "a"}]


def test_the_number_of_chunks_of_crops_is_known_beforehand() -> None:
    clips = [{"key": str(n), "wav": np.zeros(16_000, np.float32), "sample_rate": 16_000} for n in range(8)]
    chain = UnfoldChunkBySec(min_seconds=0.02, max_seconds=0.2)(RandomCrop(max_seconds=0.5)(clips))
    for epoch in range(3):
        chain.set_epoch(epoch)
        assert len(chain) == sum(1 for _ in chain)


def test_another_rate_than_the_expected_is_refused() -> None:
    with pytest.raises(UsageError, match="100 Hz, expected 16000 Hz"):
        list(RandomCrop(sample_rate=16_000)([{"wav": np.ones(9, np.float32), "sample_rate": RATE}]))
