"""Tasks by kind: a loss, answers and metrics each."""

from __future__ import annotations

from s3prl_stream.tasks.ctc import CtcText
from s3prl_stream.tasks.diarization import Diarization
from s3prl_stream.tasks.frame_classification import FrameClassification
from s3prl_stream.tasks.multi_label import MultiLabel
from s3prl_stream.tasks.slot_classification import SlotClassification
from s3prl_stream.tasks.task import Answer, Best, Task
from s3prl_stream.tasks.utterance_classification import UtteranceClassification
from s3prl_stream.tasks.verification import SpeakerVerification

KINDS: dict[str, type[Task]] = {
    "classify": UtteranceClassification,
    "slots": SlotClassification,
    "multilabel": MultiLabel,
    "verify": SpeakerVerification,
    "ctc": CtcText,
    "frames": FrameClassification,
    "diarize": Diarization,
}
"""Name -> task. Query by example trains nothing and is no such task (`tasks.query_by_example`)."""

__all__ = [
    "KINDS", "Answer", "Best", "CtcText", "Diarization", "FrameClassification", "MultiLabel", "SlotClassification",
    "SpeakerVerification", "Task", "UtteranceClassification",
]  # fmt: skip
