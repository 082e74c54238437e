"""Random numbers by seed and epoch, so that a resumed run equals an uninterrupted one."""

import os

import numpy as np


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
