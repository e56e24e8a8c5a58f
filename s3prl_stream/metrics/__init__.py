"""What tasks are measured by: pure functions of answers and references, with known answers in tests/metrics."""

from __future__ import annotations

from s3prl_stream.metrics.classification import accuracy, mean_average_precision, micro_f1
from s3prl_stream.metrics.detection import max_twv
from s3prl_stream.metrics.diarization import DiarizationError, Turn, diarization_error, median_filter
from s3prl_stream.metrics.edits import cer, error_rate, per, wer
from s3prl_stream.metrics.slots import slot_type_f1, slot_value_cer, slots_of
from s3prl_stream.metrics.verification import equal_error_rate, min_dcf

__all__ = [
    "DiarizationError", "Turn", "accuracy", "cer", "diarization_error", "equal_error_rate", "error_rate", "max_twv",
    "mean_average_precision", "median_filter", "micro_f1", "min_dcf", "per", "slot_type_f1", "slot_value_cer",
    "slots_of", "wer",
]  # fmt: skip
