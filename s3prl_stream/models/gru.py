"""The encoder of APC and VQ-APC: GRUs in one direction with residual sums.

Frames are not packed: a frame sees its past only, so padding after the end cannot reach a valid frame, and on a CPU the
backward pass through packed sequences costs several times that of a padded batch.

B batch, F frames, D feature bins, H hidden.
"""

from __future__ import annotations

from torch import Tensor, nn

from s3prl_stream.models.sizes import below_one, possible
from s3prl_stream.padding import is_valid


class GruEncoder(nn.Module):
    """Features to hidden states.

    Args:
        feat_dim: D of the input.
        hidden_size: H.
        num_layers: GRUs, 1 or more.
        dropout: of the output of each layer while training.
        residual: each layer but the first adds its input to its output.

    Attributes:
        num_layers: one less than GRUs: the first one's output is hidden state 0, as its input has another size.
    """

    def __init__(
        self,
        *,
        feat_dim: int = 80,
        hidden_size: int = 512,
        num_layers: int = 3,
        dropout: float = 0.1,
        residual: bool = True,
    ) -> None:
        super().__init__()
        possible(feat_dim=feat_dim, hidden_size=hidden_size, num_layers=num_layers)
        below_one(dropout=dropout)
        self.hidden_size = hidden_size
        self.num_layers = num_layers - 1
        self.residual = residual
        self.dropout = nn.Dropout(dropout)
        sizes = [feat_dim] + [hidden_size] * (num_layers - 1)
        self.grus = nn.ModuleList(nn.GRU(size, hidden_size, batch_first=True) for size in sizes)

    def forward(self, feat_BFD: Tensor, feat_len_B: Tensor) -> list[Tensor]:
        """All hidden states.

        Args:
            feat_BFD: float32 [B, F, D], padded with anything finite.
            feat_len_B: int64 [B], valid frames.

        Returns:
            The output of each GRU, [B, F, H]; 0 on padded frames.
        """
        valid_BF1 = is_valid(feat_len_B, feat_BFD.shape[1])[..., None]
        hidden_BFH = feat_BFD
        hidden_states: list[Tensor] = []
        for gru in self.grus:
            output_BFH = self.dropout(gru(hidden_BFH)[0])
            hidden_BFH = output_BFH + hidden_BFH if self.residual and hidden_states else output_BFH
            hidden_states.append(hidden_BFH * valid_BF1)
        return hidden_states
