"""Throughput mode: samples that stay are pooled, so that late stages run on full batches."""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from eenet.models.base import join, narrow, others

if TYPE_CHECKING:
    from eenet.inference.predictor import AdaptivePredictor, Answers


_FULL = 0.75
"""Share of a batch from which on it counts as full: joining it with others would cost more."""


class _Waiting(NamedTuple):
    """Samples before a stage; those of earlier batches come first."""

    batch: Tensor  # [b], number of the batch that each belongs to
    row: Tensor  # [b], its place there
    state: Any
    memory: Any


@dataclass
class _Batch:
    """A batch some of whose samples are under way."""

    samples: int
    arrived: float
    missing: int
    left: list[tuple[Tensor, Tensor, int]] = field(default_factory=list)


def stream(
    predictor: "AdaptivePredictor",
    batches: Iterable[Any],
    batch_size: int,
    max_wait: int,
    max_wait_ms: float | None,
) -> Iterator["Answers"]:
    """See `AdaptivePredictor.predict_stream`."""
    for name, value in {"batch_size": batch_size, "max_wait": max_wait}.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    pools: list[list[_Waiting]] = [[] for _ in range(predictor.net.num_exits)]
    pending: deque[_Batch] = deque()
    done = 0
    enough = math.ceil(_FULL * batch_size)

    def run(k: int) -> None:
        """Runs stage k on the first that wait for it, at most `batch_size`."""
        chunks, wanted = [], batch_size
        while pools[k] and wanted:
            chunk = pools[k].pop(0)
            if len(chunk.row) > wanted:  # cut, by views, before each is copied once
                pools[k].insert(0, narrow(chunk, slice(wanted, None)))
                chunk = narrow(chunk, slice(wanted))
            chunks.append(chunk)
            wanted -= len(chunk.row)
        batch, row, state, memory = _join(predictor, chunks)
        logits, state, memory, stays = predictor._run(k, state, memory)
        if len(stays) < len(batch):
            gone = others(stays, len(batch))
            of = batch[gone]
            for number in set(of.tolist()):
                mine = gone[of == number]
                pending[number - done].left.append((row[mine], logits[mine], k))
                pending[number - done].missing -= len(mine)
        if len(stays):
            batch, row, memory = narrow((batch, row, memory), stays)
            state = predictor.net.narrow(state, stays) if len(stays) < len(logits) else state
            pools[k + 1].append(_Waiting(batch, row, state, memory))

    def sweep(before: int) -> None:
        """Runs the stages where a batch waits, or a sample of a batch before this one."""
        for k in range(len(pools)):
            while pools[k] and (
                sum(len(chunk.row) for chunk in pools[k]) >= enough
                or int(pools[k][0].batch[0]) < before
            ):
                run(k)

    def finished() -> list["Answers"]:
        nonlocal done
        answers = []
        while pending and not pending[0].missing:
            answers.append(predictor._answers(pending[0].left, pending.popleft().samples))
            done += 1
        return answers

    for number, x in enumerate(batches):
        now = time.perf_counter()
        with torch.inference_mode():
            state, samples = predictor._begin(x)
            pending.append(_Batch(samples, now, samples))
            row = torch.arange(samples, device=predictor.device)
            pools[0].append(_Waiting(torch.full_like(row, number), row, state, None))
            late = number - max_wait + 1
            if max_wait_ms is not None:
                arrived = [1e3 * (now - batch.arrived) >= max_wait_ms for batch in pending]
                late = max(late, done + sum(arrived))
            sweep(late)
            answers = finished()
        yield from answers  # outside, so that the caller is not in inference mode
    with torch.inference_mode():
        sweep(done + len(pending))
        answers = finished()
    yield from answers


def _join(predictor: "AdaptivePredictor", chunks: list[_Waiting]) -> _Waiting:
    if len(chunks) == 1:
        return chunks[0]
    batch, row, memory = join([(c.batch, c.row, c.memory) for c in chunks])
    return _Waiting(batch, row, predictor.net.join([c.state for c in chunks]), memory)
