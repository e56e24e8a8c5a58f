"""Self-attention over the frames. B batch, F frames, H hidden."""

from __future__ import annotations

from torch import Tensor, nn

from s3prl_stream.models.transformer import TransformerEncoder


class Transformer(nn.Module):
    """The last hidden state of a small post-norm transformer with sinusoid positions.

    Args:
        input_size: H of the input.
        hidden_size, num_layers, num_heads, ffn_size, dropout, attention_dropout: see `TransformerEncoder`.
    """

    def __init__(
        self,
        input_size: int,
        *,
        hidden_size: int = 256,
        num_layers: int = 2,
        num_heads: int = 4,
        ffn_size: int = 1024,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.output_size = hidden_size
        self.encoder = TransformerEncoder(
            feat_dim=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            ffn_size=ffn_size,
            dropout=dropout,
            attention_dropout=attention_dropout,
        )

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> tuple[Tensor, Tensor]:
        """[B, F, H] -> [B, F, hidden_size], the same lengths."""
        return self.encoder(hidden_BFH, len_B)[-1], len_B
