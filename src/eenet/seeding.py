"""Random numbers by seed and epoch alone, so that a resumed run agrees with a straight one."""

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler


def epoch_seed(epoch: int, stream: int = 0) -> int:
    """A seed for one epoch of this run.

    Args:
        epoch: Epoch, from 0.
        stream: Tells independent uses apart, such as the ranks of a distributed run.

    Returns:
        64 bits that depend on the arguments and on the seed given to `seed_everything`.
    """
    seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
    return int(np.random.SeedSequence((seed, epoch, stream)).generate_state(1, np.uint64)[0])


class EpochShuffle(Sampler[int]):
    """A random order of `size` samples, another one each epoch; Lightning sets the epoch.

    Args:
        size: Number of samples.
        epoch: Epoch to begin with.
    """

    def __init__(self, size: int, epoch: int = 0) -> None:
        self.size = size
        self.epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(epoch_seed(self.epoch) % 2**63)
        yield from torch.randperm(self.size, generator=generator).tolist()
