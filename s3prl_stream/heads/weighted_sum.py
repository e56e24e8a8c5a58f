"""The featurizer: one learned weight for each hidden state of an upstream.

Yang et al., "SUPERB: Speech processing Universal PERformance Benchmark", Interspeech 2021, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3prl_stream.errors import UsageError


class WeightedSum(nn.Module):
    """Hidden states [B, F, H] each -> their sum [B, F, H], weighted by a softmax of weights that begin equal.

    Args:
        num_states: hidden states of the upstream, its input to the first layer included.
        normalize: bring each frame of each state to mean 0 and deviation 1 first, so that loud layers do not decide.
    """

    def __init__(self, num_states: int, *, normalize: bool = False) -> None:
        super().__init__()
        self.normalize = normalize
        self.scores = nn.Parameter(torch.zeros(num_states))

    def forward(self, hidden_states: Sequence[Tensor]) -> Tensor:
        """[B, F, H] for each state -> [B, F, H]."""
        if len(hidden_states) != len(self.scores):
            raise UsageError(
                f"the upstream gave {len(hidden_states)} hidden states; there are {len(self.scores)} weights"
            )
        if self.normalize:
            hidden_states = [F.layer_norm(hidden, hidden.shape[-1:]) for hidden in hidden_states]
        weights = torch.softmax(self.scores, dim=0)
        return torch.stack([weight * hidden for weight, hidden in zip(weights, hidden_states, strict=True)]).sum(dim=0)

    def weights(self) -> list[float]:
        """The weight of each state; they add up to 1."""
        return [float(weight) for weight in torch.softmax(self.scores.detach().double(), dim=0)]
