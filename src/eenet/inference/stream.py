"""Throughput mode: samples that stay are pooled, so that late stages run on full batches."""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eenet.inference.runtime import Answers, Departure, Runtime, Step
from eenet.models.base import join, narrow, others

_FULL = 0.75
"""Share of a batch from which on it counts as full: joining it with others would cost more."""


def stream(
    runtime: Runtime,
    batches: Iterable[Any],
    batch_size: int,
    max_wait: int,
    max_wait_ms: float | None,
) -> Iterator[Answers]:
    """See `AdaptivePredictor.predict_stream`."""
    for name, value in {"batch_size": batch_size, "max_wait": max_wait}.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    pools = _Pools(runtime, batch_size)
    try:
        for number, x in enumerate(batches):
            with torch.inference_mode():
                pools.add(x)
                late = number - max_wait + 1
                if max_wait_ms is not None:
                    late = max(late, pools.arrived_before(time.perf_counter() - max_wait_ms / 1e3))
                pools.sweep(late)
                answers = pools.finished()
            yield from answers  # outside, so that the caller is not in inference mode
        with torch.inference_mode():
            pools.sweep(pools.added)
            answers = pools.finished()
        yield from answers
    finally:
        pools.drop()


class _Waiting(NamedTuple):
    """Samples before a stage; those of earlier batches come first."""

    batch: Tensor  # [b], number of the batch that each belongs to
    row: Tensor  # [b], its place there
    state: Any
    policy_state: Any


@dataclass
class _Batch:
    """A batch some of whose samples are under way."""

    samples: int
    arrived: float
    missing: int
    departures: list[Departure] = field(default_factory=list)


class _Pools:
    """Samples of many batches, waiting before each stage for others to run it with.

    Args:
        runtime: Runs the stages.
        batch_size: Most samples to run a stage on.
    """

    def __init__(self, runtime: Runtime, batch_size: int) -> None:
        self.runtime, self.batch_size = runtime, batch_size
        self.added = 0
        self._enough = math.ceil(_FULL * batch_size)
        self._pools: list[list[_Waiting]] = [[] for _ in range(runtime.net.num_exits)]
        self._pending: deque[_Batch] = deque()

    def add(self, x: Any) -> None:
        """Takes in the next batch."""
        arrived = time.perf_counter()
        state, samples = self.runtime.begin(x)
        batch = _Batch(samples, arrived, samples)
        self._pending.append(batch)
        row = torch.arange(samples, device=self.runtime.device)
        if samples:
            number = torch.full_like(row, self.added)
            self._pools[0].append(_Waiting(number, row, state, None))
        else:  # the first stage tells what the answers of an empty batch look like
            logits, _ = self.runtime.net.step(0, state)
            batch.departures.append(Departure(row, logits, 0))
        self.added += 1

    def arrived_before(self, moment: float) -> int:
        """The number of the first batch under way that arrived after a time of `perf_counter`."""
        first = self.added - len(self._pending)
        return first + sum(batch.arrived <= moment for batch in self._pending)

    def sweep(self, before: int) -> None:
        """Runs the stages where enough samples wait, or one of a batch before this number."""
        for k, pool in enumerate(self._pools):
            while pool and (
                sum(len(chunk.row) for chunk in pool) >= self._enough
                or int(pool[0].batch[0]) < before
            ):
                self._run(k)

    def finished(self) -> list[Answers]:
        """The answers of the first batches under way, as far as they are complete."""
        answers = []
        while self._pending and not self._pending[0].missing:
            batch = self._pending.popleft()
            answers.append(self.runtime.assemble(batch.departures, batch.samples))
        return answers

    def drop(self) -> None:
        """Gives up what still waits."""
        for k, pool in enumerate(self._pools[1:], 1):
            self.runtime.drop(k, sum(len(chunk.row) for chunk in pool))

    def _run(self, k: int) -> None:
        """Runs stage k on the first that wait for it, at most `batch_size`."""
        batch, row, state, policy_state = self._take(k)
        logits, state, policy_state, staying = self.runtime.run(k, state, policy_state)
        if len(staying) < len(batch):
            leaving = others(staying, len(batch))
            numbers, first = batch[leaving], self.added - len(self._pending)
            for number in set(numbers.tolist()):
                these = leaving[numbers == number]
                pending = self._pending[number - first]
                pending.departures.append(Departure(row[these], logits[these], k))
                pending.missing -= len(these)
        if len(staying):
            batch, row, policy_state = narrow((batch, row, policy_state), staying)
            if len(staying) < len(logits):
                state = self.runtime.net.narrow(state, staying)
            self._pools[k + 1].append(_Waiting(batch, row, state, policy_state))
        self.runtime.record([Step(k, len(logits), len(staying))])

    def _take(self, k: int) -> _Waiting:
        """The first samples of a pool as one chunk."""
        pool, chunks, wanted = self._pools[k], list[_Waiting](), self.batch_size
        while pool and wanted:
            chunk = pool.pop(0)
            if len(chunk.row) > wanted:  # cut, by views, before each is copied once
                pool.insert(0, narrow(chunk, slice(wanted, None)))
                chunk = narrow(chunk, slice(wanted))
            chunks.append(chunk)
            wanted -= len(chunk.row)
        if len(chunks) == 1:
            return chunks[0]
        batch, row, policy_state = join([(c.batch, c.row, c.policy_state) for c in chunks])
        state = self.runtime.net.join([c.state for c in chunks])
        return _Waiting(batch, row, state, policy_state)
