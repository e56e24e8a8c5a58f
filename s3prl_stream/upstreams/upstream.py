"""The interface of upstreams: waveforms in, hidden states out, for whatever stands downstream.

B waveforms, T samples at 16 kHz, F frames, D feature bins, H hidden.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from s3prl_stream.errors import UsageError
from s3prl_stream.recipes.front_end import FrontEnd

Wavs: TypeAlias = Sequence[Tensor] | Tensor
Lengths: TypeAlias = Sequence[int] | Tensor


class Upstream(nn.Module):
    """Waveforms -> hidden states.

    Attributes:
        stride: samples from one frame to the next.
        hidden_size: H.
        num_layers: there are `num_layers` + 1 hidden states; number 0 is what goes into the first layer.
    """

    stride: int
    hidden_size: int
    num_layers: int

    @abstractmethod
    def forward(self, wavs: Wavs, lengths: Lengths | None = None) -> list[Tensor]:
        """Hidden states of a batch. What is in a batch beside an utterance does not change its valid frames, unless the
        upstream was asked for S3PRL's own numbers (`legacy`), which depend on it.

        Args:
            wavs: float [T] each, or one padded tensor [B, T], at 16 kHz in [-1, 1].
            lengths: valid samples of each [B]; None: all.

        Returns:
            `num_layers` + 1 tensors [B, F, H]; `num_frames(lengths)` are valid, the rest has no meaning.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement forward()")

    @abstractmethod
    def num_frames(self, lengths: Lengths) -> Tensor:
        """Valid frames int64 [B] of waveforms of these lengths (samples), on the CPU."""
        raise NotImplementedError(f"{type(self).__name__} must implement num_frames()")


class FeatureUpstream(Upstream):
    """An encoder of features, with the front end that computes them, or the features alone.

    Features are computed on the CPU and utterance by utterance, so they do not depend on what else is in the batch.
    With `legacy` and `max_frames`, which are for the numbers of S3PRL's checkpoints, hidden states do.

    Args:
        encoder: (feat [B, F, D], feat_len [B]) -> hidden states; None: the features are the only hidden state.
        front_end: from waveforms to features.
        norm: of the features, as in `ExtractFeat`.
        legacy: features as S3PRL computes them for a batch, see `FrontEnd.legacy_features`.
        max_frames: a batch whose longest input is longer is cut into pieces of like length no longer than this, each by
            itself, as S3PRL's transformers do: a shorter input is cut where the longest is. None: none is.
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        front_end: FrontEnd,
        *,
        norm: str = "utterance",
        legacy: bool = False,
        max_frames: int | None = None,
    ) -> None:
        super().__init__()
        self.legacy = legacy
        self.max_frames = max_frames
        self.encoder = encoder
        self.front_end = front_end
        self.norm = norm
        self.stride = front_end.stride
        self.hidden_size = front_end.feat_dim if encoder is None else whole_number(encoder, "hidden_size")
        self.num_layers = 0 if encoder is None else whole_number(encoder, "num_layers")  # 0: gives one hidden state
        self.register_buffer("_where", torch.zeros(()), persistent=False)

    def forward(self, wavs: Wavs, lengths: Lengths | None = None) -> list[Tensor]:
        check_wavs(wavs)
        sizes = sizes_of(wavs, lengths)
        valid = [wav[:size] for wav, size in zip(wavs, sizes, strict=True)]
        if self.legacy:
            feats = self.front_end.legacy_features(valid)
        else:
            feats = [self.front_end.features(wav, norm=self.norm) for wav in valid]
        device = self._device()
        feat_BFD = nn.utils.rnn.pad_sequence(feats, batch_first=True).to(device)
        if self.encoder is None:
            return [feat_BFD]
        return self._encoded(feat_BFD, torch.tensor([len(feat) for feat in feats], device=device))

    def _device(self) -> torch.device:
        """Where the encoder is: it may have been moved without this module, as one that is being trained is."""
        of_encoder = None if self.encoder is None else next(self.encoder.parameters(), None)
        return next(self.buffers()).device if of_encoder is None else of_encoder.device

    def _encoded(self, feat_BFD: Tensor, feat_len_B: Tensor) -> list[Tensor]:
        assert self.encoder is not None
        if self.max_frames is not None and feat_BFD.shape[1] > self.max_frames:
            pieces, first = [], 0
            for piece_BFD in feat_BFD.chunk(-(-feat_BFD.shape[1] // self.max_frames), dim=1):
                valid_B = (feat_len_B - first).clamp(min=0, max=piece_BFD.shape[1])
                pieces.append(states_of(self.encoder, self.encoder(piece_BFD, valid_B)))
                first += piece_BFD.shape[1]
            return [torch.cat(layer, dim=1) for layer in zip(*pieces, strict=True)]
        return states_of(self.encoder, self.encoder(feat_BFD, feat_len_B))

    def num_frames(self, lengths: Lengths) -> Tensor:
        """See `Upstream.num_frames`. With `legacy` the lengths are those of a whole batch."""
        return self.front_end.legacy_num_frames(lengths) if self.legacy else self.front_end.num_frames(lengths)


def check_wavs(wavs: Wavs) -> None:
    """UsageError for what is no batch of waveforms: integers, which no network here takes, or other dimensions."""
    together = isinstance(wavs, Tensor | np.ndarray)
    each: Sequence[Any] = [wavs] if together or not isinstance(wavs, Sequence) else wavs
    for given in each:
        wav = given if isinstance(given, Tensor) else np.asarray(given)
        is_float = wav.is_floating_point() if isinstance(wav, Tensor) else wav.dtype.kind == "f"
        if wav.ndim != (2 if together else 1) or not is_float:
            raise UsageError(
                f"upstream: a waveform is {wav.dtype} {list(wav.shape)}; give floats in [-1, 1], [T] each in a list or "
                "[B, T] together"
            )
    if not len(wavs):
        raise UsageError("upstream: no waveforms; give a list of one at least")


def sizes_of(wavs: Wavs, lengths: Lengths | None) -> list[int]:
    """Valid samples of each waveform; of lengths on a GPU by one copy. UsageError for what cannot be that."""
    room = [len(wav) for wav in wavs]
    if lengths is None:
        return room
    sizes = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    fit = len(sizes) == len(room) and all(
        size == int(size) and 0 <= size <= most for size, most in zip(sizes, room, strict=True)
    )
    if not fit:
        raise UsageError(f"upstream: lengths are {sizes}; give samples of each waveform, which have {room}")
    return [int(size) for size in sizes]


def states_of(encoder: nn.Module, given: Sequence[Tensor] | Tensor) -> list[Tensor]:
    """The hidden states that an encoder gave; UsageError if they are not as many as its `num_layers` says."""
    states = [given] if isinstance(given, Tensor) else list(given)
    num_layers = whole_number(encoder, "num_layers")
    if len(states) != num_layers + 1:
        raise UsageError(
            f"encoder {type(encoder).__name__} gave {len(states)} hidden states, its num_layers is {num_layers}; it "
            "must be one less than they are"
        )
    return states


def checked_states(upstream: Upstream, given: Any, num_rows: int, num_frames: int) -> Sequence[Tensor]:
    """What an upstream gave for so many waveforms; UsageError if it is not what `Upstream.forward` promises."""
    several = given if isinstance(given, list | tuple) else [given]
    shapes = [list(state.shape) if isinstance(state, Tensor) else type(state).__name__ for state in several]
    fits = given is several and len(shapes) == upstream.num_layers + 1
    for shape in shapes:
        fits = fits and len(shape) == 3 and [shape[0], shape[2]] == [num_rows, upstream.hidden_size]
        fits = fits and shape[1] >= num_frames  # type: ignore[operator]
    if not fits:
        raise UsageError(
            f"upstream {type(upstream).__name__} gave a {type(given).__name__} of {', '.join(map(str, shapes))}; "
            f"expected a list of {upstream.num_layers + 1} (num_layers + 1) tensors [{num_rows}, {num_frames} or more "
            f"(num_frames), {upstream.hidden_size} (hidden_size)]"
        )
    return several


def alone(upstream: Upstream, wav_T: Tensor) -> Tensor:
    """Hidden states float32 [states, F, H] of one waveform by itself, of its valid frames, on the CPU."""
    frames = int(upstream.num_frames([len(wav_T)])[0])
    given = checked_states(upstream, upstream(wav_T[None]), 1, frames)
    return torch.cat([state[:, :frames] for state in given]).float().cpu()


def whole_number(encoder: nn.Module, name: str) -> int:
    """An attribute of an encoder; UsageError if it is not an integer."""
    value = getattr(encoder, name, None)
    if not isinstance(value, int):
        raise UsageError(f"encoder {type(encoder).__name__} needs an integer attribute `{name}`")
    return value


def fingerprint_of(upstream: Upstream) -> str:
    """16 hexadecimal digits that stand for an upstream: class, settings and weights, of upstreams inside it too."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (module for module in upstream.modules() if isinstance(module, Upstream)):
        settings: dict[str, Any] = {
            name: value
            for name, value in sorted(vars(part).items())
            if not name.startswith("_")
            and name != "training"
            and isinstance(value, str | int | float | bool | tuple | None)
        }
        front_end = getattr(part, "front_end", None)
        digest.update(f"{type(part).__qualname__} {settings} {front_end!r}".encode())
    for name, tensor in upstream.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
