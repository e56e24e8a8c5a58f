"""Recurrent layers. B batch, F frames, H hidden."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from s3prl_stream.errors import UsageError

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
        self.bidirectional = bidirectional
        self.output_size = hidden_size * (2 if bidirectional else 1)
        sizes = [input_size if project_size is None else project_size] + [self.output_size] * (num_layers - 1)
        self.layers = nn.ModuleList(
            _CELLS[cell](size, hidden_size, batch_first=True, bidirectional=bidirectional) for size in sizes
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> tuple[Tensor, Tensor]:
        """[B, F, H] -> [B, F, output_size], the same lengths (1 or more)."""
        hidden_BFH = self.project(hidden_BFH)
        for layer in self.layers:
            hidden_BFH = self.dropout(self._run(layer, hidden_BFH, len_B))
        return hidden_BFH, len_B

    def _run(self, layer: nn.Module, hidden_BFH: Tensor, len_B: Tensor) -> Tensor:
        if not self.bidirectional:  # what comes after the end cannot reach back, and packing costs a CPU much time
            forward_BFH: Tensor = layer(hidden_BFH)[0]
            return forward_BFH
        packed = pack_padded_sequence(hidden_BFH, len_B.cpu(), batch_first=True, enforce_sorted=False)
        both_BFH, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=hidden_BFH.shape[1])
        return both_BFH
