"""The processes that train one trial together, each on its rows of the global batch.

Every worker runs the network on its own rows and gathers the outputs of all workers. All workers then compute the same
loss of the global batch, with the same class statistics and pseudo-labels, bit for bit. With a single worker all these
operations are the identity and cost nothing, so callers need no special case.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Workers:
    """The default process group of torch.distributed, as this process sees it.

    Attributes:
        rank: index of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Self:
        """The initialised process group; a single worker if none has been initialised."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this worker is the one that writes files and reports."""
        return self.rank == 0

    @property
    def backend(self) -> str | None:
        """Backend of the process group, nccl or gloo; None for a single worker."""
        return None if self.size == 1 else str(dist.get_backend())

    def rows(self, batch: int) -> slice:
        """This worker's rows of a batch of size `batch`: a contiguous part, equally long for every worker.

        Raises:
            ValueError: the batch cannot be split evenly.
        """
        if batch % self.size:
            raise ValueError(f"a batch of {batch} cannot be split evenly over {self.size} workers")
        share = batch // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def gather(self, part: Tensor) -> Tensor:
        """Gather the rows of all workers, (B / size, ...) -> (B, ...), in the order of the global batch.

        It is differentiable for a loss that all workers compute in the same way from gathered tensors. The average of
        the workers' gradients, which `wrap` takes, is then exactly the gradient of that loss. The backward pass needs
        no communication.
        """
        if self.size == 1:
            return part
        whole: Tensor = _Gather.apply(part, self)
        return whole

    def total(self, value: Tensor) -> Tensor:
        """Sum of the values of all workers, with the shape of `value`, which is not changed."""
        if self.size == 1:
            return value
        value = value.clone()
        dist.all_reduce(value)
        return value

    def average_(self, tensors: Iterable[Tensor]) -> None:
        """Replace floating-point tensors in place by their means over the workers, with one all-reduce per dtype."""
        if self.size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_dtype.setdefault(tensor.dtype, []).append(tensor.detach())
        for members in by_dtype.values():
            flat = torch.cat([member.flatten() for member in members])
            dist.all_reduce(flat)
            flat /= self.size
            means = flat.split([member.numel() for member in members])
            torch._foreach_copy_(members, [mean.view_as(member) for mean, member in zip(means, members, strict=True)])

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wrap a module so that a backward pass averages the gradients over the workers (DistributedDataParallel).

        With a single worker, or if no parameter requires a gradient, `module` itself is returned. The wrapped module
        shares its parameters with `module`, which is still the one to optimise, save and evaluate. All workers must
        have the same state when they call this. A parameter that a forward pass does not use gets no gradient, so
        weight decay does not change it.
        """
        if self.size == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        # The parameters that are used depend on the step (warm-up). If all are used, torch logs that once.
        with warnings.catch_warnings():  # torch 2.14 has another name for broadcast_buffers, unknown to torch 2.12
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)


ALONE = Workers()


class _Gather(torch.autograd.Function):
    # torch.distributed.nn.functional.all_gather sums the workers' gradients and is deprecated in torch 2.14. Here the
    # gradients of all workers are equal, so their sum is `size` times this worker's.

    @staticmethod
    def forward(ctx: Any, part: Tensor, workers: Workers) -> Tensor:
        ctx.workers = workers
        whole = part.new_empty(workers.size * len(part), *part.shape[1:])
        dist.all_gather(list(whole.chunk(workers.size)), part.contiguous())
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        workers: Workers = ctx.workers
        return workers.size * gradient[workers.rows(len(gradient))], None
