"""The loss on batches that are not trained on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from s3prl_stream.models.draws import seed_torch
from s3prl_stream.sample import Batch
from s3prl_stream.trainer.ranks import Ranks
from s3prl_stream.trainer.to_device import ToDevice


def mean_loss(
    objective: nn.Module, batches: Iterable[Batch], *, device: torch.device, precision: str = "fp32"
) -> float:
    """Mean of the loss over all elements of all ranks' batches; NaN if there is none.

    What the objective draws is the same each time: torch is seeded for each batch by its number.

    Args:
        objective: batch -> `Loss`, in evaluation mode.
        batches: finite; those of this rank.
        device: where the objective is.
        precision: "bf16": autocast, as in training.
    """
    ranks, to_device = Ranks(), ToDevice(device)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for turn, batch in enumerate(batches):
            seed_torch("valid", turn * ranks.world_size + ranks.rank)
            loss = objective(to_device(batch))
            sums[0] += loss.mean * loss.num_elements
            sums[1] += loss.num_elements
    ranks.sum(sums)
    total, num_elements = sums.tolist()
    return total / num_elements if num_elements else float("nan")
