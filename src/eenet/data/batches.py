"""Which samples each process takes in which order, one batch of indices at a time."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler, SequentialSampler

from eenet.seeding import epoch_seed

_POOL = 50


class BatchSampler(DistributedSampler[list[int]], SequentialSampler):
    """Batches of indices for `DataLoader(data, batch_size=None, sampler=...)`.

    Lightning puts samplers of single indices in the place of any that are not of these two types.

    In order: each process takes one contiguous part, and all cut theirs into the same number of
    batches. So no sample counts twice, where torch's `DistributedSampler` repeats some to fill up
    the last round, and no process waits for a batch that another does not have.

    Shuffled: another order each epoch, by only the seed and the epoch, so that a resumed run goes
    on as an uninterrupted one (one order while Lightning overfits a few batches). What fills no
    batch is left out, each epoch something else. With `lengths`, pools of 50 batches are sorted by
    length before they are cut, which saves padding.

    Args:
        size: Number of samples.
        batch_size: Maximum number of samples of a batch of this process.
        shuffle: Whether this is for training.
        trainer: Lightning's, which knows this process and the epoch to begin with (it sets the
            later ones); None is a single process in epoch 0.
        lengths: Length of each sample `[size]`.
    """

    def __init__(
        self, size: int, batch_size: int, shuffle: bool, trainer: Any, lengths: Tensor | None = None
    ) -> None:
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        super().__init__(range(size), world, rank, shuffle)  # type: ignore[arg-type]
        self.size, self.batch_size, self.lengths = size, batch_size, lengths
        self.epoch = trainer.current_epoch if trainer else 0
        self.same = bool(getattr(trainer, "overfit_batches", 0))
        share, rest = divmod(size, world)
        self.start, self.stop = (r * share + min(r, rest) for r in (rank, rank + 1))

    def __len__(self) -> int:
        share = self.size // self.num_replicas
        if self.shuffle:
            return max(1, share // self.batch_size)
        return -(-self.size // (self.num_replicas * self.batch_size))

    def __iter__(self) -> Iterator[list[int]]:  # type: ignore[override]
        if not self.shuffle:
            part = torch.arange(self.start, self.stop)
            yield from (batch.tolist() for batch in part.tensor_split(len(self)))
            return
        epoch = 0 if self.same else self.epoch
        generator = torch.Generator().manual_seed(epoch_seed(epoch) % 2**63)
        count = min(len(self) * self.batch_size, self.size // self.num_replicas) * self.num_replicas
        order = torch.randperm(self.size, generator=generator)[:count]
        part = order[self.rank :: self.num_replicas]
        if self.lengths is not None:
            pools = torch.split(part, _POOL * self.batch_size)
            part = torch.cat([pool[self.lengths[pool].argsort(stable=True)] for pool in pools])
        batches = list(torch.split(part, self.batch_size))
        if self.lengths is not None:
            shuffled = torch.randperm(len(batches), generator=generator).tolist()
            batches = [batches[i] for i in shuffled]
        yield from (batch.tolist() for batch in batches)
