"""What an update cannot do without on this machine: its products of matrices, and the memory that others touch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_backward_flop_count, sdpa_flop_count


def floor(step: Callable[[], None], dtype: torch.dtype) -> dict[str, float]:
    """Of one call of `step`, a forward and backward pass with its update whose products are in `dtype`.

    Floating-point operations are those of products and convolutions, as torch counts them; bytes are what all other
    operations of torch read and write, one after the other. Both are divided by what a product of 2048 x 2048 and a
    copy of 256 MB reach in the same process just then. Caches may beat the second part, and fused steps leave it out.
    """
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counted, _Bytes() as touched:
        step()
    gflop, gbyte = counted.get_total_flops() / 1e9, touched.total / 1e9
    one = torch.randn(2048, 2048, dtype=dtype)
    per_cpu_s, per_s = _rates(lambda: one @ one, 2 * 2048**3 / 1e9, times=5)
    block = torch.ones(2**26)
    target = torch.empty_like(block)
    gbyte_per_cpu_s, _ = _rates(lambda: target.copy_(block), 2 * block.nbytes / 1e9, times=10)
    return {
        "gflop": gflop,
        "gbyte_of_other_operations": gbyte,
        "matmul_gflop_per_cpu_s": per_cpu_s,
        "matmul_gflop_per_s": per_s,
        "copy_gbyte_per_cpu_s": gbyte_per_cpu_s,
        "floor_cpu_s": gflop / per_cpu_s,
        "floor_with_bytes_cpu_s": gflop / per_cpu_s + gbyte / gbyte_per_cpu_s,
    }


class _Bytes(TorchDispatchMode):
    """Sums the bytes of what goes into and out of operations that are neither products nor views."""

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket not in {*flop_registry, *_FORMULAS} and not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
            self.total += sum(_bytes(tensor) for tensor in tensors)
        return out


def _bytes(tensor: Tensor) -> int:
    """In memory: what is expanded counts once."""
    sizes = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return math.prod(sizes) * tensor.element_size()


def _of_convolution_backward(grad: Sequence[int], _: Any, weight: Sequence[int], *rest: Any, **__: Any) -> int:
    """torch's own formula counts groups as if each saw all channels."""
    mask: Sequence[bool] = rest[7]
    one_pass = 2 * grad[0] * math.prod(grad[2:]) * math.prod(weight)
    return one_pass * sum(mask[:2])


_FORMULAS = {  # what torch's table lacks or has wrong; given shapes
    torch.ops.aten.convolution_backward: _of_convolution_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
    ),
}


def _rates(work: Callable[[], Any], amount: float, *, times: int) -> tuple[float, float]:
    """Of it a CPU second, and a second."""
    work()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(times):
        work()
    return times * amount / (time.process_time() - cpu), times * amount / (time.perf_counter() - wall)
