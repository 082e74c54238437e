"""Multi-scale dense networks (Huang et al. 2018)."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from eenet.models.base import MultiExitNetwork
from eenet.models.layers import conv_block, image_head, image_stem, initialize


class MSDNet(MultiExitNetwork):
    """MSDNet: dense features on several scales, so that early exits too see coarse ones.

    The state is the list of the scales' feature maps, finest first, `[B, C_s, H / 2^s, W / 2^s]`;
    every exit reads the coarsest. Layers and options are those of the paper's section 4 and
    appendix A and of the authors' PyTorch code, where the number of scales is the length of the
    growth factors. EENet's "MSDNet35-5" (Ilhan et al. 2024) is `base=7, step=7, num_exits=5,
    channels=32, growth_rate=16, growth_factors=[1, 2, 4, 4], bottleneck_factors=[1, 2, 4, 4],
    stem="imagenet", num_classes=1000`.

    Args:
        base: Layers before the first exit.
        step: Layers between exits.
        num_exits: Number of exits.
        step_mode: "even" (`step` layers between all exits) or "lin_grow" (`step * k + 1` layers
            between exits k and k + 1).
        growth_factors: For each scale, from the finest, by how much its channels and its growth
            exceed `channels` and `growth_rate`.
        channels: Channels of the stem at factor 1.
        growth_rate: Channels that a layer adds to a scale at factor 1.
        bottleneck: Whether a 1x1 convolution comes before each 3x3.
        bottleneck_factors: For each scale, the most channels that a bottleneck leaves, in units
            of the channels that its 3x3 convolution makes.
        prune: Which fine scales are dropped on the way: "max", one at the end of each of as many
            equal parts of the network as there are scales; "min", only those that reach no exit
            any more (which "max" drops too; the authors' code computes them without using them).
        reduction: Fraction of the channels that a transition keeps; transitions stand where "max"
            drops a scale, or at a third and two thirds of the depth with "min". 0 leaves them out.
        stem: "cifar" (3x3 at full resolution, heads of 128 channels) or "imagenet" (7x7 with
            stride 2 and max pooling, heads as wide as the coarsest scale).
        num_classes: Number of classes.
        in_channels: Channels of the input images.

    Raises:
        ValueError: If an option is unknown or out of its range, the factors differ in length, or
            a coarser scale grows by an odd number (half comes from the next finer scale).
    """

    def __init__(
        self,
        base: int = 4,
        step: int = 2,
        num_exits: int = 7,
        step_mode: Literal["even", "lin_grow"] = "even",
        growth_factors: Sequence[int] = (1, 2, 4),
        channels: int = 16,
        growth_rate: int = 6,
        bottleneck: bool = True,
        bottleneck_factors: Sequence[int] = (1, 2, 4),
        prune: Literal["max", "min"] = "max",
        reduction: float = 0.5,
        stem: Literal["cifar", "imagenet"] = "cifar",
        num_classes: int = 100,
        in_channels: int = 3,
    ) -> None:
        scales = len(growth_factors)
        if min(base, step, num_exits) < 1:
            raise ValueError(f"base={base}, step={step} and num_exits={num_exits} must be positive")
        if scales == 0 or len(bottleneck_factors) != scales:
            raise ValueError(
                f"bottleneck_factors={list(bottleneck_factors)} must have one factor for each of "
                f"growth_factors={list(growth_factors)}, and there must be at least one"
            )
        if any(growth_rate * factor % 2 for factor in growth_factors[1:]):
            raise ValueError(
                f"growth_rate={growth_rate} times each of growth_factors={list(growth_factors)} "
                "from the second on must be even"
            )
        if not 0 <= reduction <= 1:
            raise ValueError(f"reduction={reduction} must lie between 0 and 1")
        if step_mode not in ("even", "lin_grow"):
            raise ValueError(f"step_mode={step_mode!r} must be 'even' or 'lin_grow'")
        if prune not in ("max", "min"):
            raise ValueError(f"prune={prune!r} must be 'max' or 'min'")

        even = step_mode == "even"
        steps = [base, *(step if even else step * k + 1 for k in range(1, num_exits))]
        depth = sum(steps)
        transitions = {depth // 3, 2 * depth // 3} if prune == "min" else set()
        widths = bottleneck_factors if bottleneck else [None] * scales
        stages: list[nn.Module] = []
        heads: list[nn.Module] = []
        stage: list[nn.Module] = [_Stem(stem, in_channels, [channels * f for f in growth_factors])]
        kept = planned = scales
        layer = 0
        for layers in steps:
            for _ in range(layers):
                layer += 1
                before, planned_before = kept, planned
                if prune == "max":
                    planned = scales - (layer - 1) // math.ceil(depth / scales)
                # Each layer carries a scale one step coarser: what is finer reaches no exit.
                kept = min(planned, depth - layer + 1)
                stage.append(_Layer(channels, growth_rate, growth_factors, widths, before, kept))
                channels += growth_rate
                if reduction and (layer in transitions or planned < planned_before):
                    reduced = int(reduction * channels)
                    stage.append(_Transition(channels, reduced, growth_factors[-kept:]))
                    channels = reduced
            stages.append(nn.Sequential(*stage))
            heads.append(_Head(channels * growth_factors[-1], num_classes, stem))
            stage = []
        super().__init__(stages, heads, num_classes)
        initialize(self)


class _Stem(nn.Module):
    """Makes the scales out of the image, each from the next finer one."""

    def __init__(self, stem: str, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        first = image_stem(stem, in_channels, channels[0])
        coarser = (conv_block(fine, coarse, 3, stride=2) for fine, coarse in pairwise(channels))
        self.scales = nn.ModuleList([first, *coarser])

    def forward(self, x: Tensor) -> list[Tensor]:
        state = []
        for scale in self.scales:
            x = scale(x)
            state.append(x)
        return state


class _Layer(nn.Module):
    """Adds channels to each kept scale: from itself and, half of them, from the next finer one."""

    def __init__(
        self,
        channels: int,
        growth_rate: int,
        factors: Sequence[int],
        widths: Sequence[int | None],
        before: int,
        kept: int,
    ) -> None:
        super().__init__()
        self.dropped = before - kept
        self.same, self.down = nn.ModuleList(), nn.ModuleList()
        finest = len(factors) - before
        for s in range(len(factors) - kept, len(factors)):
            growth = growth_rate * factors[s]
            if s > finest:
                growth //= 2
                self.down.append(_grow(channels * factors[s - 1], growth, widths[s - 1], stride=2))
            self.same.append(_grow(channels * factors[s], growth, widths[s]))

    def forward(self, state: list[Tensor]) -> list[Tensor]:
        # The finest scale of the network has no finer one to draw from, and so no `down`.
        down, grown = iter(self.down), []
        for s, same in enumerate(self.same, start=self.dropped):
            finer = [next(down)(state[s - 1])] if s else []
            grown.append(torch.cat([state[s], *finer, same(state[s])], dim=1))
        return grown


class _Transition(nn.Module):
    """Reduces the channels of every scale by a 1x1 convolution."""

    def __init__(self, channels: int, reduced: int, factors: Sequence[int]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(conv_block(channels * f, reduced * f, 1) for f in factors)

    def forward(self, state: list[Tensor]) -> list[Tensor]:
        return [scale(x) for scale, x in zip(self.scales, state, strict=True)]


class _Head(nn.Module):
    """Classifies the coarsest scale: two 3x3 convolutions with stride 2, pooling, linear."""

    def __init__(self, channels: int, num_classes: int, stem: str) -> None:
        super().__init__()
        width = 128 if stem == "cifar" else channels
        self.layers = nn.Sequential(
            conv_block(channels, width, 3, stride=2),
            conv_block(width, width, 3, stride=2),
            # The authors pool 2x2, which is all that is left of 32 x 32 or 224 x 224 images here.
            *image_head(width, num_classes),
        )

    def forward(self, state: list[Tensor]) -> Tensor:
        logits: Tensor = self.layers(state[-1])
        return logits


def _grow(channels: int, out: int, factor: int | None, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution, after a 1x1 one to at most `factor * out` channels if that is given."""
    if factor is None:
        return conv_block(channels, out, 3, stride)
    inner = min(channels, factor * out)
    return nn.Sequential(*conv_block(channels, inner, 1), *conv_block(inner, out, 3, stride))
