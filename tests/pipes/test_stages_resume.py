"""Ranks, workers and resuming change no bit of what the stages for labels, pieces, texts and masks give."""

from __future__ import annotations

import numpy as np

import s3prl_stream as ss
from s3prl_stream.pipes import Lexicon

RATE = 16_000


def test_whole_chains_resume() -> None:
    rng = np.random.default_rng(0)
    data = {
        f"clip{number}": {
            "wav": rng.integers(-3000, 3000, int(RATE * (0.5 + 0.1 * (number % 7)))).astype(np.int16),
            "sample_rate": RATE,
            "text": "ONE TWO" if number % 2 else "TWO",
            "label": f"s{number % 3}",
            "segments": [{"start": 0.1, "end": 0.4, "label": "ann"}],
        }
        for number in range(24)
    }
    texts = (
        ss.ShardStream(data, epochs=2, max_batch_seconds=4.0)
        .load_audio()
        .tokenize(train_tokenizer=True)
        .phonemize(Lexicon({"ONE": "W AH1 N", "TWO": "T UW1"}), text="text")
        .encode_category()
        .features("mfcc13", deltas=1)
        .mask("tera", noise_prob=0.5)
    )
    pieces = (
        ss.ShardStream(data, epochs=2, max_batch_seconds=4.0, chunk_seconds=0.5)
        .load_audio(sox_effects=[["gain", "-3"], ["dither"]])
        .chunk(min_seconds=0.1, max_seconds=0.3)
        .crop(0.2)
        .chunk_frames(min_frames=5, max_frames=9, step_frames=4)
        .tag_frames(num_labels=2)
        .mask_spans("hubert", prob=0.5)
        .select({"x": "wav", "y": "tags", "mask": "frame_mask"})
    )
    for chain in (texts, pieces):
        ss.assert_resumable(chain, batches=5)
