"""S3PRL's side of `tools/bench pretrain`, run by the Python of an environment that has S3PRL 0.4.18.

Reads lines {"case": NAME}, answers each with a JSON line. Its wheel lacks the yaml files of the recipes, so its classes
are built with their published settings, and driven as its runner does: forward, backward, clip at 5, its own AdamW.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import tempfile
import time
import types
from pathlib import Path

os.environ.setdefault("S3PRL_NO_LOG", "1")
import s3prl
import soundfile
import torch
import torchaudio

for name in ("librosa", "librosa.display"):  # only its pictures need it
    sys.modules[name] = types.ModuleType(name)
sys.path.insert(0, os.path.dirname(s3prl.__file__))
torchaudio.load = lambda path: (torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None], 16_000)

TRANSFORMER = {
    "input_dim": -1,
    "hidden_size": 768,
    "num_hidden_layers": 3,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "share_layer": False,
    "pre_layer_norm": False,
}
TASK = {
    "loss": "L1",
    "sequence_length": 1500,
    "position_encoding_size": 768,
    "mask_proportion": 0.15,
    "mask_consecutive_min": 7,
    "mask_consecutive_max": 7,
    "mask_allow_overlap": True,
    "mask_bucket_ratio": 1.5,
    "mask_frequency": 0.2,
    "noise_proportion": 0.0,
}
_MEL = {"feat_type": "mel", "log": True, "delta": 0, "cmvn": True}
AUDIO = {
    "target_level": -25,
    "win_ms": 25,
    "hop_ms": 10,
    "n_freq": 201,
    "n_mels": 80,
    "n_mfcc": 13,
    "input": {**_MEL, "channel": 0},
    "target": {**_MEL, "channel": 1},
}
DISTILLER = {
    "feature_grad_mult": 0.1,
    "encoder_layers": 2,
    "n_tasks": 2,
    "pred_layer_id": [4, 12],
    "cosine_loss": 1.0,
}


class Step:
    """One update on one prepared batch."""

    def __init__(self, model, loss):
        from optimizers import get_AdamW_with_schedule

        self.model, self.loss = model.train(), loss
        self.optimizer = get_AdamW_with_schedule([model], lr=2e-4, total_steps=1000)

    def __call__(self):
        self.loss().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def transformer(num_bins, batch, frames):
    from pretrain.mockingjay.pretrain_expert import TransformerConfig, TransformerForMaskedAcousticModel

    model = TransformerForMaskedAcousticModel(TransformerConfig(TRANSFORMER), num_bins, None)
    target, selected = torch.randn(batch, frames, num_bins), torch.rand(batch, frames, num_bins) < 0.2
    where, attended = torch.randn(frames, 768).expand(batch, -1, -1), torch.ones(batch, frames)
    return Step(model, lambda: model(target * ~selected, where, selected, attended, target)[0])


def apc(batch, frames):
    from upstream.apc.apc import APC

    model = APC(80, hidden_size=512, num_layers=3, dropout=0.1, residual=True)
    feat = torch.randn(batch, frames, 80)

    def loss():
        predicted, _ = model(feat[:, :-5], [frames - 5] * batch, testing=False)
        return torch.nn.functional.l1_loss(predicted, feat[:, 5:])

    return Step(model, loss)


def distiller(batch, seconds):
    """The student alone: the teacher is the same network on both sides."""
    from upstream.distiller.model import DistillerConfig, DistillerModel

    model = DistillerModel(DistillerConfig(DISTILLER))
    wav = torch.randn(batch, int(16_000 * seconds)) * 0.1
    target = torch.randn(batch, 2, int(50 * seconds) - 1, 768)

    def loss():
        predicted = model(wav, torch.ones_like(wav))[2]
        frames = min(predicted.shape[2], target.shape[2])
        predicted, wanted = predicted[:, :, :frames], target[:, :, :frames]
        similarity = torch.nn.functional.cosine_similarity(predicted, wanted, dim=-1)
        return (predicted - wanted).abs().mean() - torch.nn.functional.logsigmoid(similarity).mean()

    return Step(model, loss)


def dataset(recordings):
    """TERA's, over all FLAC files below a folder."""
    from pretrain.mockingjay.dataset import OnlineAcousticDataset
    from upstream.baseline.preprocessor import get_preprocessor

    files = sorted(Path(recordings).rglob("*.flac"))
    folder = tempfile.mkdtemp()
    rows = [f"{number},{file},{soundfile.info(file).frames},0" for number, file in enumerate(files)]
    Path(folder, "all.csv").write_text("\n".join([",file_path,length,label", *rows]) + "\n")
    extracter = get_preprocessor(AUDIO)[0]
    return OnlineAcousticDataset(extracter, TASK, 8, folder, ["all"], 0, libri_root="/", target_level=-25)


def main():
    recordings, threads = sys.argv[1], int(sys.argv[2])
    cases = {
        "tera 300": lambda: transformer(80, 8, 300),
        "tera 1500": lambda: transformer(80, 8, 1500),
        "mockingjay 300": lambda: transformer(240, 8, 300),
        "apc 300": lambda: apc(8, 300),
        "distilhubert 5 s": lambda: distiller(4, 5.0),
    }
    made = {}
    for line in sys.stdin:
        case, hours = json.loads(line)["case"], 0.0
        torch.set_num_threads(1 if case == "data" else threads)
        with contextlib.redirect_stdout(io.StringIO()):
            if case not in made:
                made.clear()
                made[case] = dataset(recordings) if case == "data" else cases[case]()
                if case != "data":
                    made[case]()  # the optimizer's memory
            began, cpu = time.perf_counter(), time.process_time()
            if case == "data":
                for number in range(len(made[case])):
                    hours += float(made[case][number][3].sum()) / 100 / 3600
            else:
                made[case]()
        answer = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - began, "hours": hours}
        answer["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
