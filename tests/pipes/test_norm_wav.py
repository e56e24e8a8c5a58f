from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3prl_stream.pipes.norm_wav import NormWav, rms, scale_to_db


@given(
    level=st.floats(1e-4, 1.0), target_db=st.floats(-60.0, 0.0), num_frames=st.integers(10, 3_000), seed=st.integers(0)
)
def test_output_has_the_asked_level(level: float, target_db: float, num_frames: int, seed: int) -> None:
    wav = np.float32(level) * np.random.default_rng(seed).standard_normal(num_frames, dtype=np.float32)
    scaled = scale_to_db(wav, target_db)
    assert scaled.dtype == np.float32
    assert 20 * np.log10(rms(scaled)) == pytest.approx(target_db, abs=1e-3)


def test_scale_is_that_of_s3prl() -> None:
    wav = np.array([0.5, -0.5, 0.5, -0.5], np.float32)
    assert np.array_equal(scale_to_db(wav, -20.0), wav * np.float32(0.1 / (0.5 + 1e-10)))
    (sample,) = NormWav()([{"wav": wav}])
    assert np.array_equal(sample["wav"].numpy(), scale_to_db(wav, -25.0)), "the level of S3PRL's upstreams"


@pytest.mark.parametrize("num_frames", [0, 100])
def test_silence_stays_silence(num_frames: int) -> None:
    silence = np.zeros(num_frames, np.float32)
    assert np.array_equal(scale_to_db(silence, -25.0), silence)
    (sample,) = NormWav()([{"wav": silence}])
    assert np.array_equal(sample["wav"].numpy(), silence)


@pytest.mark.slow
def test_result_does_not_depend_on_the_number_of_threads() -> None:
    code = (
        "import hashlib, numpy as np; from s3prl_stream.pipes.norm_wav import scale_to_db;"
        "wav = np.random.default_rng(0).standard_normal(3_000_001, dtype=np.float32);"
        "print(hashlib.sha256(scale_to_db(wav, -25.0)).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **dict.fromkeys(_THREAD_SETTINGS, threads)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(digests) == 1


_THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
