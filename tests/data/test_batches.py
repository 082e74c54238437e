from itertools import pairwise
from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st

from eenet.data.batches import BatchSampler


def processes(world, epoch=0):
    """What Lightning's trainer says in each of some processes."""
    return [
        SimpleNamespace(global_rank=rank, world_size=world, current_epoch=epoch)
        for rank in range(world)
    ]


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4))
def test_in_order_every_sample_comes_once_whatever_the_number_of_processes(size, batch, world):
    parts = [BatchSampler(size, batch, False, process) for process in processes(world)]
    chosen = [list(part) for part in parts]
    assert [i for part in chosen for indices in part for i in indices] == list(range(size))
    assert {len(part) for part in chosen} == {len(parts[0])} == {-(-size // (batch * world))}
    assert max(len(indices) for part in chosen for indices in part) <= batch
    starts = [sum(len(i) for part in chosen[:rank] for i in part) for rank in range(world)]
    assert [part.start for part in parts] == starts


@given(st.integers(8, 60), st.integers(1, 9), st.integers(1, 4), st.booleans())
def test_shuffled_processes_take_different_samples_and_equally_many(size, batch, world, by_length):
    lengths = torch.arange(size) % 7 if by_length else None
    parts = [BatchSampler(size, batch, True, process, lengths) for process in processes(world, 3)]
    chosen = [list(part) for part in parts]
    together = [i for part in chosen for indices in part for i in indices]
    assert len(set(together)) == len(together)
    per_process = min(size // world, max(1, size // world // batch) * batch)
    assert len(together) == world * per_process
    assert {len(part) for part in chosen} == {len(parts[0])}
    if by_length and len(together) <= 50 * batch * world:
        for part in chosen:
            spans = sorted((min(lengths[i]), max(lengths[i])) for i in part)
            assert all(high <= low for (_, high), (low, _) in pairwise(spans))


def test_each_epoch_has_an_order_of_its_own():
    batches = BatchSampler(100, 10, True, None)
    first = list(batches)
    assert first == list(batches)
    batches.set_epoch(1)
    assert first != list(batches)
