"""The ranks of a data-parallel run: who they are, and the few things they tell each other.

    torchrun --nproc-per-node 8 -m s3prl_stream pretrain ...

Every rank has the whole network. In an update each adds up the gradients of its own batches; then they are summed over
the ranks in one call (`sum_gradients`). There is nothing else to keep in step: batches follow from the plan, the
rate from the step, and what is decided (leaving out an update, stopping) from sums that are the same on every rank.

Not torch's DistributedDataParallel: it averages over ranks, where an update here is a sum over all elements divided by
their number; it sums in every backward unless told otherwise, and hangs where a parameter had no part in one rank's
loss. What it has in exchange is to begin sending while the backward still runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from s3prl_stream.errors import StateError, UsageError
from s3prl_stream.launcher import launched

Value = TypeVar("Value")
_AS_LONG_AS_IT_TAKES = timedelta(days=30)
_times_joined = itertools.count()


class Ranks:
    """This process among those of a run, as torch.distributed has them, or the launcher before they have joined.

    Attributes:
        rank: of this process, from 0.
        world_size: how many there are.
    """

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.world_size = dist.get_world_size() if together else launched("WORLD_SIZE")
        foreseen = launched("RANK") if self.world_size > 1 else 0
        self.rank = dist.get_rank() if together else foreseen

    @property
    def is_first(self) -> bool:
        """True on the rank that writes the run's files."""
        return self.rank == 0

    def share_of(self, update_batches: int) -> int:
        """Batches of an update that each rank works on.

        Raises:
            UsageError: the ranks cannot share them evenly.
        """
        if update_batches % self.world_size:
            raise UsageError(
                f"update_batches is {update_batches}, and {self.world_size} ranks cannot share that evenly. Give a "
                "multiple of the number of ranks: the same number gives the same updates on any number that divides it."
            )
        return update_batches // self.world_size

    def sum(self, values: Tensor) -> None:
        """Sum a tensor over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)

    def sum_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Sum gradients over all ranks, in place, as one message."""
        if self.world_size > 1:
            self._as_one(gradients, dist.all_reduce)

    def average_buffers(self, module: nn.Module) -> None:
        """Give all ranks the mean of what batch norms have counted."""
        floating = [buffer for buffer in kept_buffers(module) if buffer.is_floating_point()]
        if self.world_size > 1 and floating:
            self._as_one(floating, dist.all_reduce)
            torch._foreach_div_(floating, float(self.world_size))

    def copy_from_first(self, module: nn.Module) -> None:
        """Give all ranks the weights and buffers of rank 0."""
        tensors = [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            if self.world_size > 1:
                self._as_one([one for one in tensors if one.dtype == dtype], lambda flat: dist.broadcast(flat, src=0))

    def check_same_checkpoint(self, step: int) -> None:
        """StateError if the ranks do not all go on from the same step."""
        steps = self.gather(step)
        if len(set(steps)) > 1:
            raise StateError(
                f"the ranks do not agree on the newest checkpoint: {steps}. Is the folder of the run the same on all?"
            )

    def gather(self, value: Value) -> list[Value]:
        """What each rank has, on all of them."""
        values = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value)
        return values

    def wait_for_all(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def patient_meeting(self) -> Callable[[], None]:
        """A `wait_for_all` that waits however long it takes; made by all ranks at once.

        For what the first rank does alone: NCCL takes ten minutes in a sum for a failure, and ends the run.
        """
        if self.world_size == 1:
            return lambda: None
        group = dist.new_group(backend="gloo", timeout=_AS_LONG_AS_IT_TAKES)
        return lambda: dist.barrier(group)

    @staticmethod
    def _as_one(tensors: Sequence[Tensor], exchange: Callable[[Tensor], object]) -> None:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        exchange(flat)
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        torch._foreach_copy_(
            list(tensors), [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]
        )


def kept_buffers(module: nn.Module) -> list[Tensor]:
    """The buffers that a checkpoint keeps: what batch norms have counted.

    Others, such as positions of the longest clip so far, are each rank's own, and may be of another size on each.
    """
    kept = module.state_dict(keep_vars=True)
    return [buffer for name, buffer in module.named_buffers() if name in kept]


def device_of_rank(device: torch.device) -> torch.device:
    """The device of this process: of GPUs each rank that torchrun has started has the one of its local number."""
    if launched("WORLD_SIZE") == 1 or dist.is_initialized() or device.type != "cuda":
        return device
    device = torch.device("cuda", launched("LOCAL_RANK"))
    torch.cuda.set_device(device)
    return device


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun has started, if it has: by NCCL on GPUs, by gloo elsewhere.

    A group that is initialised already stays as it is. They may be joined as often as a program trains, if it is the
    same on all ranks. What can be wrong for all ranks is better looked for before: joining takes seconds, and then each
    waits for the others.

    Raises:
        UsageError: what the environment says of this process is not whole.
    """
    if launched("WORLD_SIZE") == 1 or dist.is_initialized():
        yield
        return
    is_cuda = device.type == "cuda"
    launched("RANK")  # torch takes it from there itself
    try:
        store, rank, world_size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    except ValueError as error:
        raise UsageError(
            f"WORLD_SIZE is {launched('WORLD_SIZE')} in the environment, but what goes with it is not there ({error}). "
            "Start several processes by torchrun, or unset WORLD_SIZE for one"
        ) from None
    # torchrun's store outlives a group, and in the same place the next one would find the addresses of the last
    place = dist.PrefixStore(f"joined {next(_times_joined)} times before", store)  # type: ignore[attr-defined]
    backend = "nccl" if is_cuda else "gloo"
    dist.init_process_group(
        backend, store=place, rank=rank, world_size=world_size, device_id=device if is_cuda else None
    )
    try:
        yield
    finally:
        dist.destroy_process_group()
