"""What it costs to answer at each exit, measured on the network itself."""

import copy
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from eenet.models import MultiExitNetwork

CostUnit = Literal["macs", "ms"]


@dataclass(frozen=True)
class ExitCosts:
    """Cumulative costs of answering at each of E exits, heads passed on the way included.

    Args:
        macs: Multiply-accumulate operations per sample.
        params: Parameters needed.
        ms: Median latency of a batch in milliseconds.
        batch_size: Batch size of the latency.
        device: Device of the latency.
        threads: CPU threads of the latency.
    """

    macs: list[float]
    params: list[int]
    ms: list[float]
    batch_size: int
    device: str
    threads: int

    def vector(self, unit: CostUnit) -> torch.Tensor:
        """The costs `[E]` in a unit, float64."""
        return torch.tensor(getattr(self, unit), dtype=torch.float64)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        return asdict(self)


def measure_costs(net: MultiExitNetwork, x: Any, warmup: int = 3, repeats: int = 20) -> ExitCosts:
    """Measures MACs, parameters and latency up to each exit.

    Args:
        net: The network; it is left as it was, on its device.
        x: Input batch of B samples on the same device.
        warmup: Passes before the clock counts.
        repeats: Passes whose median counts.
    """
    batch_size = len(pytree.tree_leaves(x)[0])
    parameters: set[torch.nn.Parameter] = set()
    params = []
    for stage, head in zip(net.stages, net.heads, strict=True):
        parameters |= {*stage.parameters(), *head.parameters()}
        params.append(sum(p.numel() for p in parameters))
    example = next(net.parameters())
    return ExitCosts(
        macs=count_macs(net, x),
        params=params,
        ms=measure_latency(net, x, warmup, repeats),
        batch_size=batch_size,
        device=_device_name(example.device),
        threads=torch.get_num_threads(),
    )


def count_macs(net: MultiExitNetwork, x: Any) -> list[float]:
    """Cumulative MACs per sample up to each exit.

    torch's counter runs a copy of the network on the meta device, so nothing is computed; it
    counts two operations per MAC. Attention runs as plain matrix products, since fused kernels
    count as nothing on some devices.

    Args:
        net: The network.
        x: Input batch of B samples.
    """
    meta = copy.deepcopy(net).to("meta").eval()
    batch = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), x)
    samples = len(pytree.tree_leaves(x)[0])
    macs, total = [], 0.0
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        state = meta.begin(batch)
        for k in range(meta.num_exits):
            with FlopCounterMode(display=False) as counter:
                _, state = meta.step(k, state)
            total += counter.get_total_flops() / 2 / samples
            macs.append(total)
    return macs


def measure_latency(
    net: MultiExitNetwork, x: Any, warmup: int = 3, repeats: int = 20
) -> list[float]:
    """Median milliseconds from the input to the logits of each exit, for the whole batch.

    Args:
        net: The network.
        x: Input batch on the network's device.
        warmup: Passes before the clock counts.
        repeats: Passes whose median counts.
    """
    training = net.training
    net.eval()
    cuda = next(net.parameters()).is_cuda
    times: list[list[float]] = [[] for _ in range(net.num_exits)]
    with torch.inference_mode():
        for run in range(warmup + repeats):
            if cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            state = net.begin(x)
            for k in range(net.num_exits):
                _, state = net.step(k, state)
                if cuda:
                    torch.cuda.synchronize()
                if run >= warmup:
                    times[k].append(1e3 * (time.perf_counter() - start))
    net.train(training)
    return [median(exit_times) for exit_times in times]


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
