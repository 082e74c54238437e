"""The one contract of multi-exit networks: a sequence of stages, each followed by an exit head."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

State = Any
"""What one stage leaves for the next: any nesting of tensors whose first dimension is the batch."""


class MultiExitNetwork(nn.Module):
    """A network of `E` stages with an exit head behind each.

    Training, the adaptive runtime, export and cost measurement all go through `begin` and `step`,
    so that they cannot disagree. A subclass usually passes its modules to `__init__` and is done;
    one whose input or state is not a plain tensor overrides `begin`, or gives stages that map its
    own kind of state.

    Args:
        stages: `E` modules; stage k maps the state that stage k-1 left to its own.
        heads: `E` modules; head k maps the state after stage k to logits `[B, C, ...]`.
        num_classes: Number of classes C.

    Raises:
        ValueError: If there is no stage, the numbers of stages and heads differ, or there are
            fewer than two classes.
    """

    trained = False
    """Whether the last exit comes trained, so that training only the early ones is enough.

    A subclass that loads weights of its own sets it.
    """
    trained_stages = False
    """Whether the stages come trained, so that training only the heads is enough."""
    restore_args: dict[str, Any] = {}  # noqa: RUF012
    """Arguments to replace by these where the weights come from a checkpoint: with them, building
    the network reads no file and downloads nothing. Plain values, kept in the checkpoint."""

    partition = 0.0
    """Fraction of the channels that each stage hands on without gradient in training."""
    channel_dim = 1
    """Where the channels of a state's tensors are."""

    def __init__(
        self, stages: Sequence[nn.Module], heads: Sequence[nn.Module], num_classes: int
    ) -> None:
        super().__init__()
        if len(stages) != len(heads) or not stages:
            raise ValueError(
                f"a multi-exit network needs one head per stage, got {len(stages)} stages and "
                f"{len(heads)} heads"
            )
        if num_classes < 2:
            raise ValueError(
                f"num_classes={num_classes} must be 2 or more; a yes-or-no question has two"
            )
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(heads)
        self.num_classes = num_classes

    @property
    def num_exits(self) -> int:
        """Number of exits E; the last one is the end of the network."""
        return len(self.heads)

    def check_data(self, data: Any) -> None:
        """Refuses a data module whose samples the network cannot take (`ValueError`)."""

    def begin(self, x: Any) -> State:
        """Turns the input batch into the state that the first stage takes."""
        return x

    def step(self, k: int, state: State) -> tuple[Tensor, State]:
        """Runs stage `k` (from 0) and its head.

        Args:
            k: Index of the stage.
            state: What `begin` (k = 0) or stage k-1 left.

        Returns:
            Logits `[B, C, ...]` of exit k, and the state for stage k+1.
        """
        state = self.stages[k](state)
        return self.heads[k](state), state

    def forward(self, x: Any) -> Tensor:
        """Runs every stage.

        Args:
            x: Input batch of B samples.

        Returns:
            Logits `[E, B, C, ...]` of all exits.
        """
        state, logits = self.begin(x), []
        for k in range(self.num_exits):
            exit_logits, state = self.step(k, state)
            logits.append(exit_logits)
            if self.training and self.partition:
                state = pytree.tree_map_only(Tensor, self._detach_channels, state)
        if len({tuple(z.shape) for z in logits}) > 1:
            shapes = [list(z.shape) for z in logits]
            raise ValueError(f"heads: all must give logits of one shape, got {shapes}")
        return torch.stack(logits)

    def _detach_channels(self, x: Tensor) -> Tensor:
        if not x.is_floating_point() or x.dim() < 2:
            return x
        size = x.shape[self.channel_dim]
        kept = size - round(self.partition * size)
        shared, private = torch.split(x, [kept, size - kept], self.channel_dim)
        return torch.cat([shared, private.detach()], self.channel_dim)

    def narrow(self, state: State, keep: Tensor) -> State:
        """Reduces a state to the samples `keep` `[b]` (int64) that go on; see `narrow`."""
        return narrow(state, keep)

    def join(self, states: Sequence[State]) -> State:
        """Puts the samples of several states of one stage into one state, in order."""
        return join(states)


def narrow(state: State, keep: Tensor | slice) -> State:
    """Reduces a state to some of its samples.

    Args:
        state: Any nesting of tensors whose first dimension is the batch of size B.
        keep: Indices `[b]` (int64) or mask `[B]` (bool) of the samples that go on, or a slice.

    Returns:
        The same nesting, every tensor indexed along its first dimension.
    """
    return pytree.tree_map_only(Tensor, lambda tensor: _rows(tensor, keep), state)


def batch_size(state: State) -> int:
    """How many samples a state, or an input batch, holds."""
    return len(state if isinstance(state, Tensor) else pytree.tree_leaves(state)[0])


def others(rows: Tensor, size: int) -> Tensor:
    """The indices below `size` that are not among `rows` `[b]` (int64), in order."""
    there = torch.ones(size, dtype=torch.bool, device=rows.device)
    return there.index_fill_(0, rows, False).nonzero()[:, 0]


def join(states: Sequence[State]) -> State:
    """Puts the samples of several states of one form into one state, in order."""
    return pytree.tree_map(
        lambda *leaves: torch.cat(leaves) if isinstance(leaves[0], Tensor) else leaves[0], *states
    )


def _rows(tensor: Tensor, keep: Tensor | slice) -> Tensor:
    """`tensor[keep]` in the same layout, by a copy three times as fast where there is one."""
    if isinstance(keep, Tensor) and (keep.dtype, keep.device) == (torch.int64, tensor.device):
        if tensor.is_contiguous():
            return tensor.index_select(0, keep)
        if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
            return tensor.movedim(1, -1).index_select(0, keep).movedim(-1, 1)
    return tensor[keep]


def check_exits(exits: Sequence[int], last: int) -> list[int]:
    """Checks exit positions, counted from 1, of a network with `last` places for an exit.

    Raises:
        ValueError: If the positions are not increasing, out of range, or do not end at `last`.
    """
    exits = list(exits)
    if not exits or exits != sorted(set(exits)) or exits[0] < 1 or exits[-1] != last:
        raise ValueError(
            f"exits={exits} must be increasing positions from 1 to {last}, the last of them {last} "
            "(the end of the network)"
        )
    return exits


def null_is_none(setting: str | None) -> str | None:
    """A network's setting: of a flag `null` this deep, jsonargparse 4.53 makes "None"."""
    return None if setting == "None" else setting
