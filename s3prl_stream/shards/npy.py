"""Features of a clip as the content of a `.npy` member: what `extract` writes and `load_feat` reads.

F frames, L layers, D dimensions.
"""

from __future__ import annotations

import io
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import SampleError

Features: TypeAlias = npt.NDArray[np.float16] | npt.NDArray[np.float32]

DTYPES = ("float16", "float32")
FRAMES_PER_SECOND = "frames_per_second"
"""Metadata of each sample; it is the index's `sample_rate`, as `frames` counts feature frames."""


def encode_features(features: Features) -> bytes:
    """[F, D] or [F, L, D] as the bytes of a .npy file."""
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(features), allow_pickle=False)
    return content.getvalue()


def decode_features(
    data: bytes | memoryview, *, first_frame: int = 0, num_frames: int | None = None, clip_frames: int | None = None
) -> Features:
    """Frames of a .npy file: [F, D] or [F, L, D], float16 or float32, without a copy where the whole is asked for.

    `clip_frames` is what the index says of the whole; None: unknown.

    Raises:
        SampleError(reason="differs"): it has another number of frames.
        SampleError(reason="decode"): no such file, damaged, or of another shape or type.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        header: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(stream)
    except ValueError as error:
        raise SampleError(f"npy of {len(data)} bytes cannot be read: {error}", reason="decode") from None
    wanted = len(shape) in (2, 3) and not fortran and dtype in (np.float16, np.float32)
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not wanted or stream.tell() + expected != len(data):
        raise SampleError(
            f"npy of {len(data)} bytes holds {dtype} {shape}; features are [F, D] or [F, L, D] of float16 or float32, "
            f"and {expected} bytes",
            reason="decode",
        )
    features: Features = np.frombuffer(data, dtype=dtype, offset=stream.tell()).reshape(shape)
    if clip_frames is not None and len(features) != clip_frames:
        raise SampleError(f"npy has {len(features)} frames, the index says {clip_frames}", reason="differs")
    stop = len(features) if num_frames is None else first_frame + num_frames
    if not 0 <= first_frame <= stop <= len(features):
        raise SampleError(f"npy has {len(features)} frames, {first_frame} to {stop} are asked for", reason="decode")
    return features[first_frame:stop]
