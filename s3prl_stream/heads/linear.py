"""Frame by frame: one projection, or several layers. B batch, F frames, H hidden."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from s3prl_stream.errors import UsageError

_ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class Linear(nn.Module):
    """A projection to `hidden_size`, as SUPERB's linear probes have it to compare upstreams of any width.

    Args:
        input_size: H of the input.
        hidden_size: H of the output; None: no projection, so that the head is one linear map.
    """

    def __init__(self, input_size: int, *, hidden_size: int | None = 256) -> None:
        super().__init__()
        self.output_size = input_size if hidden_size is None else hidden_size
        self.project = nn.Identity() if hidden_size is None else nn.Linear(input_size, hidden_size)

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> tuple[Tensor, Tensor]:
        """[B, F, H] -> [B, F, hidden_size], the same lengths."""
        return self.project(hidden_BFH), len_B


class LinearWithHiddens(nn.Module):
    """Several linear layers with an activation after each.

    Args:
        input_size: H of the input.
        hidden_sizes: of the layers; none: the input as it is.
        activation: "relu", "gelu", "tanh" or "none".
    """

    def __init__(self, input_size: int, *, hidden_sizes: Sequence[int] = (256, 256), activation: str = "relu") -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise UsageError(f"head: activation {activation!r} is unknown; there are {', '.join(_ACTIVATIONS)}")
        layers: list[nn.Module] = []
        self.output_size = input_size
        for size in hidden_sizes:
            layers += [nn.Linear(self.output_size, size), _ACTIVATIONS[activation]()]
            self.output_size = size
        self.layers = nn.Sequential(*layers)

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> tuple[Tensor, Tensor]:
        """[B, F, H] -> [B, F, the last of hidden_sizes], the same lengths."""
        return self.layers(hidden_BFH), len_B
