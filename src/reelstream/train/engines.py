"""How ranks share a model: each holds all of it (DDP), or its part (FSDP2); or there is one rank only.

The loop sees one thing whichever it is: `losses` of a batch, `backward` of their sum, gradients that are the *mean* of
the ranks' sums, and the weights in one piece where somebody needs them so.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from reelstream.errors import ConfigError
from reelstream.train.options import Parallel
from reelstream.train.steps import StepModule


class Engine(Protocol):
    """Forward and backward over all ranks.

    A protocol because the three ways differ in nothing that the loop needs to know.
    """

    num_ranks: int
    """Whose gradients a gradient is the mean of."""
    keeps_gradients: bool
    """Whether gradients stay on their rank while more batches of a step are to come."""

    def losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the losses of this rank's batch, (N,)."""
        ...

    def accumulating(self, *, more: bool) -> contextlib.AbstractContextManager[None]:
        """Return the context of a batch's forward and backward.

        Args:
            more: Whether the step goes on after it, so that gradients need not travel yet.
        """
        ...

    def clip(self, parameters: Sequence[torch.nn.Parameter], longest: float) -> float:
        """Shorten the gradient, over all ranks, to `longest`; return the length that it had."""
        ...

    def whole(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which any rank can call the model by itself; all ranks enter and leave it together."""
        ...


class OneRankEngine:
    """The model by itself."""

    num_ranks = 1
    keeps_gradients = False

    def __init__(self, module: StepModule) -> None:
        self._module: torch.nn.Module = module

    def losses(self, batch: dict[str, Tensor]) -> Tensor:
        """See `Engine`."""
        losses: Tensor = self._module(batch)
        return losses

    def accumulating(self, *, more: bool) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002 - see `Engine`
        """See `Engine`."""
        return contextlib.nullcontext()

    def clip(self, parameters: Sequence[torch.nn.Parameter], longest: float) -> float:
        """See `Engine`."""
        norm = torch.nn.utils.clip_grad_norm_(parameters, longest)
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        return float(whole.item())

    def whole(self) -> contextlib.AbstractContextManager[None]:
        """See `Engine`."""
        return contextlib.nullcontext()


class _WithIdleParameter(torch.nn.Module):
    """A module beside a parameter that nobody uses: where DDP looks for some and finds none, each rank warns."""

    def __init__(self, module: StepModule, device: torch.device) -> None:
        super().__init__()
        self.module = module
        self.idle = torch.nn.Parameter(torch.zeros(1, device=device))

    def forward(self, batch: dict[str, Tensor]) -> Tensor | None:
        """See `StepModule`."""
        losses: Tensor | None = self.module(batch)
        return losses


class ReplicatedEngine(OneRankEngine):
    """DDP: each rank holds the whole model, and gradients are averaged."""

    keeps_gradients = True

    def __init__(self, module: StepModule, *, num_ranks: int, device: torch.device) -> None:
        super().__init__(module)
        self.num_ranks = num_ranks
        # Buffers are tables of positions, the same everywhere; what says so has another name from torch 2.13 on.
        known = inspect.signature(DistributedDataParallel).parameters
        leave_buffers: dict[str, Any] = {
            "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
        }
        self._replicas = DistributedDataParallel(
            _WithIdleParameter(module, device),
            device_ids=[device.index] if device.type == "cuda" else None,
            # Without it DDP sorts its buckets anew after the first step of each process, and sums of more than two
            # ranks come out otherwise in the last bit: a resumed run would not be the quiet one (seen with four). It
            # also takes batches that leave a part of the model out.
            find_unused_parameters=True,
            **leave_buffers,
        )
        self._module = self._replicas

    def accumulating(self, *, more: bool) -> contextlib.AbstractContextManager[None]:
        """See `Engine`."""
        return self._replicas.no_sync() if more else contextlib.nullcontext()


class ShardedEngine(OneRankEngine):
    """FSDP2: each rank holds a part of the weights, their gradients and the optimizer's state.

    Gradients travel after each batch, also where several make a step: kept until the last one they would need the
    memory of all weights, which is what sharding is there to save.
    """

    def __init__(self, module: StepModule, *, num_ranks: int, device: torch.device) -> None:
        super().__init__(module)
        if not hasattr(FSDPModule, "reset_iter_state"):
            raise ConfigError(
                f"train.parallel is fsdp2, for which torch {torch.__version__} is too old",
                "take 2.13, or set it to ddp",
            )
        self.num_ranks = num_ranks
        # Not the default, which is on a GPU wherever there is one.
        mesh = init_device_mesh(device.type, (num_ranks,))
        for layer in _repeated_layers(module.model):
            fully_shard(layer, mesh=mesh)
        # What is in no layer: embeddings, norms, and the way in and out.
        fully_shard(module, mesh=mesh)
        self._shards = [part for part in module.modules() if isinstance(part, FSDPModule)]
        self._root = self._shards[0]

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """See `Engine`. For as long as it lasts, each rank has the memory of all weights in use."""
        with torch.no_grad():
            # Whichever module is called first becomes the root: not a layer, should this come before any training.
            self._module(None)
        self._root.set_reshard_after_forward(False)
        for shard in self._shards:
            shard.unshard()
        try:
            yield
        finally:
            self._root.set_reshard_after_forward(True)
            # Backward begins with the root: what it gives away it would fetch again at once.
            self._root.set_reshard_after_forward(False, recurse=False)
            # Shards again, and forgets the order in which one rank alone has called the layers: the next backward
            # fetches ahead in that order, and ranks that fetch in different orders wait for each other for ever.
            self._root.reset_iter_state()


def _repeated_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the layers of a model: members of lists of modules, the outermost where one holds another."""
    found: list[torch.nn.Module] = []
    for child in model.children():
        found += list(child) if isinstance(child, torch.nn.ModuleList) else _repeated_layers(child)
    return found


def make_engine(module: StepModule, parallel: Parallel, *, num_ranks: int, device: torch.device) -> Engine:
    """Return the engine that `train.parallel` names; all ranks make theirs together.

    The module's parameters may be other objects afterwards, so an optimizer is made after it.

    Args:
        module: The model with its step, on `device`; the same weights on all ranks.
        parallel: As the user has it; on one rank nothing is shared whatever it says.
        num_ranks: Ranks of the run.
        device: Of this rank.
    """
    if num_ranks == 1:
        return OneRankEngine(module)
    if device.type == "cuda":
        # Where nccl and the allocator look when nobody names one.
        torch.cuda.set_device(device)
    if parallel == "fsdp2":
        return ShardedEngine(module, num_ranks=num_ranks, device=device)
    assert parallel in ("auto", "ddp"), "refused before"
    return ReplicatedEngine(module, num_ranks=num_ranks, device=device)


def trained_parameters(model: Any) -> list[torch.nn.Parameter]:
    """Return the parameters that training changes, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
