"""Our side of `tools/bench pretrain`: the questions of bench_s3prl.py, answered by the recipes and the loop."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench_floor import floor

from s3prl_stream.loader import Loader
from s3prl_stream.recipes import build_objective, find_recipe
from s3prl_stream.trainer.ranks import Ranks
from s3prl_stream.trainer.settings import TrainSettings
from s3prl_stream.trainer.update import Updater


class Fixed(nn.Module):
    """A teacher that always says the same, at the student's rate."""

    hidden_size, num_layers, stride = 768, 12, 320

    def __init__(self, batch: int, seconds: float) -> None:
        super().__init__()
        self.hidden_states = [torch.randn(batch, int(50 * seconds) - 1, 768)] * 13

    def forward(self, *_: Tensor) -> list[Tensor]:
        return self.hidden_states


def features(num_bins: int, batch: int, frames: int) -> dict[str, Any]:
    """A prepared batch of any of the recipes on features."""
    feat = torch.randn(batch, frames, num_bins)
    selected = torch.rand(batch, frames, num_bins) < 0.2
    return {
        "key": ["x"] * batch,
        "feat": feat,
        "feat_len": torch.full((batch,), frames),
        "masked_feat": feat * ~selected,
        "loss_mask": selected,
        "target_feat": feat.roll(-5, 1),
    }


def step_of(
    name: str, batch: dict[str, Any], teacher: nn.Module | None = None, *, precision: str = "fp32", **changed: Any
) -> Callable[[], object]:
    """One update on it."""
    objective = build_objective(find_recipe(name).having(changed), teacher=teacher).train()
    if name in ("tera", "mockingjay"):
        batch = {key: value for key, value in batch.items() if key != "target_feat"}
    settings = TrainSettings(num_steps=1000, precision=precision)
    updater = Updater(objective, settings, Ranks(), torch.device("cpu"))
    return lambda: updater.update(1, [batch], [])


def distilhubert(batch: int, seconds: float) -> Callable[[], object]:
    wav = torch.randn(batch, int(16_000 * seconds)) * 0.1
    prepared = {"key": ["x"] * batch, "wav": wav, "wav_len": torch.full((batch,), wav.shape[1])}
    teacher = Fixed(batch, seconds)
    return step_of("distilhubert", prepared, teacher, target_layers=(4, 12), init_from_teacher=False)


def epoch(folder: str, *, on_device: bool) -> float:
    """Hours of one pass over the set, as TERA sees it; behind `.on` nothing is done: that is the device's part."""
    stream = find_recipe("tera").stream(folder, epochs=1, device="cpu" if on_device else None)
    loader = Loader(stream)
    loader._builder.tail = None
    for _ in loader:
        pass
    return sum(loader.hours_by_set.values())


def main() -> None:
    folder, threads = sys.argv[1], int(sys.argv[2])
    no_dropout = {"attention_dropout": 0.0}
    cases: dict[str, Callable[[], Callable[[], object]]] = {
        "tera 300": lambda: step_of("tera", features(80, 8, 300)),
        "tera 300 without attention dropout": lambda: step_of("tera", features(80, 8, 300), **no_dropout),
        "tera 1500": lambda: step_of("tera", features(80, 8, 1500)),
        "tera 1500 without attention dropout": lambda: step_of("tera", features(80, 8, 1500), **no_dropout),
        "tera 300 in bf16": lambda: step_of("tera", features(80, 8, 300), precision="bf16"),
        "tera 1500 in bf16": lambda: step_of("tera", features(80, 8, 1500), precision="bf16"),
        "mockingjay 300": lambda: step_of("mockingjay", features(240, 8, 300)),
        "apc 300": lambda: step_of("apc", features(80, 8, 300)),
        "distilhubert 5 s": lambda: distilhubert(4, 5.0),
    }
    made: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        case, hours = json.loads(line)["case"], 0.0
        data = case.startswith("data")
        torch.set_num_threads(1 if data else threads)
        if not data and case not in made:
            made.clear()
            made[case] = cases[case]()
            made[case]()
        began, cpu = time.perf_counter(), time.process_time()
        if data:
            hours = epoch(folder, on_device=case.endswith("device"))
        else:
            made[case]()
        answer: dict[str, Any] = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - began, "hours": hours}
        answer["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        if json.loads(line).get("floor"):
            answer["floor"] = floor(made[case], torch.bfloat16 if case.endswith("bf16") else torch.float32)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
