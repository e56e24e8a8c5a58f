"""Recurrent layers. B batch, F frames, H hidden.

No sequence is packed: what comes after an utterance cannot reach back, and for the other direction each utterance is
turned round within its own length. On a CPU the backward pass through packed sequences of 600 frames takes several
times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s3prl_stream.errors import UsageError
from s3prl_stream.models.exact import exactly

_CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class RNNs(nn.Module):
    """A projection, then recurrent layers with dropout after each; by default the encoder of SUPERB's ASR.

    Args:
        input_size: H of the input.
        project_size: width of the projection; None: none (as in SUPERB's diarization).
        hidden_size: of each direction.
        num_layers: recurrent layers.
        bidirectional: both directions; the output is then twice as wide.
        dropout: after each layer, while training.
        cell: "lstm", "gru" or "rnn".
    """

    def __init__(
        self,
        input_size: int,
        *,
        project_size: int | None = 1024,
        hidden_size: int = 1024,
        num_layers: int = 2,
        bidirectional: bool = True,
        dropout: float = 0.2,
        cell: str = "lstm",
    ) -> None:
        super().__init__()
        if cell not in _CELLS:
            raise UsageError(f"head: recurrent cell {cell!r} is unknown; there are {', '.join(_CELLS)}")
        self.project = nn.Identity() if project_size is None else nn.Linear(input_size, project_size)
        self.output_size = hidden_size * (2 if bidirectional else 1)
        sizes = [input_size if project_size is None else project_size] + [self.output_size] * (num_layers - 1)
        self.layers = nn.ModuleList(_CELLS[cell](size, hidden_size, batch_first=True) for size in sizes)
        self.reversed_layers = nn.ModuleList(
            _CELLS[cell](size, hidden_size, batch_first=True) for size in (sizes if bidirectional else ())
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> tuple[Tensor, Tensor]:
        """[B, F, H] -> [B, F, output_size], the same lengths."""
        hidden_BFH = self.project(hidden_BFH)
        turned_BF1 = turned_frames(len_B, hidden_BFH.shape[1])[..., None]
        for number, layer in enumerate(self.layers):
            output_BFH = exactly(layer, hidden_BFH)[0]
            if self.reversed_layers:
                turned_BFH = hidden_BFH.gather(1, turned_BF1.expand_as(hidden_BFH))
                turned_BFH = exactly(self.reversed_layers[number], turned_BFH)[0]
                output_BFH = torch.cat([output_BFH, turned_BFH.gather(1, turned_BF1.expand_as(turned_BFH))], dim=2)
            hidden_BFH = self.dropout(output_BFH)
        return hidden_BFH, len_B


def turned_frames(len_B: Tensor, num_frames: int) -> Tensor:
    """int64 [B, F]: length - 1 ... 0 in the place of 0 ... length - 1, and padded frames where they are."""
    frame_F = torch.arange(num_frames, device=len_B.device)
    return torch.where(frame_F < len_B[:, None], len_B[:, None] - 1 - frame_F, frame_F)
