"""Several processes, one to a GPU, that train one model together.

``python -m torch.distributed.run --nproc-per-node 2 -m demo.train_video ...`` starts them: each draws clips and batches
of its own, and every step goes along the mean of their gradients. Without it there is one process and nothing to do.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class TrainingGroup:
    """The processes of one training, and which of them this is.

    Args:
        size: how many there are.
        number: of this one, from 0; the first one writes and prints.
        device: its GPU or the CPU.
    """

    size: int = 1
    number: int = 0
    device: str = "cpu"

    @staticmethod
    def rank() -> int:
        """This process's number, also before it has joined."""
        return int(os.environ.get("RANK", 0))

    @classmethod
    def join(cls, cuda: bool) -> "TrainingGroup":
        """The group that torch.distributed.run started, or this process alone.

        Args:
            cuda: whether the model is trained on GPUs; then this process's GPU becomes the current one.
        """
        size = int(os.environ.get("WORLD_SIZE", 1))
        if size == 1:
            return cls()
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            # Its checks ask the device about events while a graph is captured.
            os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=3))
        return cls(size, cls.rank(), "cuda" if cuda else "cpu")

    @torch.no_grad()
    def share_first(self, tensors: Sequence[Tensor]) -> None:
        """Gives every process the first one's values."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor.data, 0)

    @torch.no_grad()
    def average(self, tensor: Tensor) -> None:
        """Replaces a tensor by its mean over all processes; free of syncs."""
        if self.size > 1:
            distributed.all_reduce(tensor)
            tensor.div_(self.size)

    def agree(self, value: float) -> float:
        """The first process's number."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return float(shared)

    def leave(self) -> None:
        """Ends the processes that are not the first, once the training is over."""
        if self.size > 1:
            distributed.barrier()
            distributed.destroy_process_group()
            if self.number:
                raise SystemExit(0)
