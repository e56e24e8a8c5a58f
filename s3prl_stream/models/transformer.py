"""The encoder of Mockingjay, TERA and Audio ALBERT: a post-norm BERT on frames with fixed sinusoid positions.

Numbers equal S3PRL's to 1e-5 (see tests/models). Query, key and value are one matrix, which is one product instead of
three. Attention adds -10000 to padded frames as S3PRL does, which also keeps a row without valid frames finite.

B batch, F frames, D feature bins, H hidden, N attention heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3prl_stream.errors import UsageError
from s3prl_stream.models.attention import self_attention
from s3prl_stream.models.sizes import below_one, possible

NORM_EPS = 1e-12
INIT_STD = 0.02


class TransformerEncoder(nn.Module):
    """Features to hidden states.

    Args:
        feat_dim: D of the input.
        hidden_size: H; a multiple of `num_heads`.
        num_layers: how often attention and feed-forward are applied.
        num_heads: attention heads.
        ffn_size: width of the feed-forward part.
        dropout: of hidden states while training.
        attention_dropout: of attention weights while training. Above 0 attention takes a CPU half as long again,
            because torch's fused kernel cannot do it there (`attention.py`).
        share_layers: one layer's weights for all (Audio ALBERT).

    Raises:
        UsageError: sizes that do not fit together.
    """

    def __init__(
        self,
        *,
        feat_dim: int = 80,
        hidden_size: int = 768,
        num_layers: int = 3,
        num_heads: int = 12,
        ffn_size: int = 3072,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        share_layers: bool = False,
    ) -> None:
        super().__init__()
        self.position_FH: Tensor
        possible(
            feat_dim=feat_dim, hidden_size=hidden_size, num_layers=num_layers, num_heads=num_heads, ffn_size=ffn_size
        )
        below_one(dropout=dropout, attention_dropout=attention_dropout)
        if hidden_size % num_heads:
            raise UsageError(f"encoder: hidden_size {hidden_size} is not a multiple of num_heads {num_heads}")
        self.feat_dim = feat_dim
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.project = nn.Linear(feat_dim, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(hidden_size, num_heads, ffn_size, dropout, attention_dropout)
            for _ in range(1 if share_layers else num_layers)
        )
        self.register_buffer("position_FH", sinusoids(1024, hidden_size), persistent=False)
        self.apply(init_like_bert)

    def forward(self, feat_BFD: Tensor, feat_len_B: Tensor) -> list[Tensor]:
        """All hidden states.

        Args:
            feat_BFD: float32 [B, F, D], padded with anything finite.
            feat_len_B: int64 [B], valid frames.

        Returns:
            `num_layers` + 1 tensors [B, F, H]: after the input projection, then after each layer. Padded frames hold
            numbers without meaning.
        """
        num_frames = feat_BFD.shape[1]
        hidden_BFH = self.project(feat_BFD) + self._positions(num_frames)
        hidden_BFH = self.dropout(self.norm(hidden_BFH))
        bias = attention_bias(feat_len_B, num_frames).to(hidden_BFH.dtype)
        hidden_states = [hidden_BFH]
        for index in range(self.num_layers):
            hidden_BFH = self.layers[index % len(self.layers)](hidden_BFH, bias)
            hidden_states.append(hidden_BFH)
        return hidden_states

    def _positions(self, num_frames: int) -> Tensor:
        if num_frames > len(self.position_FH):
            self.position_FH = sinusoids(2 * num_frames, self.hidden_size).to(self.position_FH)
        return self.position_FH[:num_frames]


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each followed by dropout, a residual sum and a LayerNorm.

    `activation_dropout` is that between the two matrices of the feed-forward part; BERT has none, HuBERT has.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        ffn_size: int,
        dropout: float,
        attention_dropout: float,
        *,
        activation_dropout: float = 0.0,
        norm_eps: float = NORM_EPS,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.attention_out = nn.Linear(hidden_size, hidden_size)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=norm_eps)
        self.ffn_in = nn.Linear(hidden_size, ffn_size)
        self.ffn_out = nn.Linear(ffn_size, hidden_size)
        self.ffn_norm = nn.LayerNorm(hidden_size, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.activation_dropout = nn.Dropout(activation_dropout)

    def forward(self, hidden_BFH: Tensor, bias: Tensor) -> Tensor:
        """[B, F, H] and additive bias [B, 1, 1, F] -> [B, F, H]."""
        attended_BFH = self.attention_out(self._attend(hidden_BFH, bias))
        hidden_BFH = self.attention_norm(hidden_BFH + self.dropout(attended_BFH))
        inner = self.ffn_out(self.activation_dropout(F.gelu(self.ffn_in(hidden_BFH))))
        output_BFH: Tensor = self.ffn_norm(hidden_BFH + self.dropout(inner))
        return output_BFH

    def _attend(self, hidden_BFH: Tensor, bias: Tensor) -> Tensor:
        batch, num_frames, hidden = hidden_BFH.shape
        mixed = self.query_key_value(hidden_BFH).view(batch, num_frames, 3, self.num_heads, hidden // self.num_heads)
        dropout = self.attention_dropout if self.training else 0.0
        return self_attention(mixed, bias, dropout).reshape(batch, num_frames, hidden)


class ReconstructionHead(nn.Module):
    """Last hidden state -> features: Linear, GELU, LayerNorm, Linear (S3PRL's SpecHead)."""

    def __init__(self, hidden_size: int, feat_dim: int = 80) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=NORM_EPS)
        self.output = nn.Linear(hidden_size, feat_dim)
        self.apply(init_like_bert)

    def forward(self, hidden_BFH: Tensor) -> Tensor:
        """[B, F, H] -> [B, F, D]."""
        feat_BFD: Tensor = self.output(self.norm(F.gelu(self.dense(hidden_BFH))))
        return feat_BFD


def sinusoids(num_frames: int, hidden_size: int) -> Tensor:
    """Position table float32 [F, H]: sine of position / 10000^(2i / H) in even columns, its cosine in odd ones."""
    column = torch.arange(hidden_size)
    rate = 10_000.0 ** (-2.0 * (column // 2).double() / hidden_size)
    angle = torch.arange(num_frames).double()[:, None] * rate
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


def attention_bias(lengths_B: Tensor, num_frames: int) -> Tensor:
    """What is added to attention scores, float32 [B, 1, 1, F]: 0 on valid frames, -10000 on padded ones."""
    padded = torch.arange(num_frames, device=lengths_B.device) >= lengths_B[:, None]
    return (padded.float() * -10_000.0)[:, None, None]


def init_like_bert(module: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0, LayerNorm the identity."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INIT_STD)
        nn.init.zeros_(module.bias)
