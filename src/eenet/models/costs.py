"""What it costs to answer at each exit, measured on the network itself."""

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from eenet.models import MultiExitNetwork, narrow
from eenet.models.base import batch_size


class ExitCosts(NamedTuple):
    """Cumulative costs of answering at each of E exits, heads passed on the way included."""

    macs: list[float]
    """Multiply-accumulate operations per sample."""
    params: list[int]
    """Parameters needed."""
    ms: list[float]
    """Median latency of a batch in milliseconds; further quantiles at the end."""
    batch_size: int
    """Batch size of the latency."""
    device: str
    """Device of the latency."""
    threads: int
    """CPU threads of the latency."""
    joules: list[float] | None = None
    """Energy per sample, where the device counts it (`eenet.models.energy`)."""
    ms_p95: list[float] | None = None
    """95% quantile of the latency."""
    ms_p99: list[float] | None = None
    """99% quantile."""


def measure_costs(net: MultiExitNetwork, x: Any, warmup: int = 3, repeats: int = 50) -> ExitCosts:
    """Measures MACs, parameters and latency up to each exit.

    Args:
        net: The network; it is left as it was, on its device.
        x: Input batch of B samples on the same device.
        warmup: Passes before the clock counts.
        repeats: Passes of which the quantiles are taken.
    """
    exits, device = range(1, net.num_exits + 1), next(net.parameters()).device
    passed = [torch.nn.ModuleList([net.stages[:k], net.heads[:k]]) for k in exits]
    ms = _clock(net, x, warmup, repeats).quantile(torch.tensor([0.5, 0.95, 0.99]).double(), dim=0)
    return ExitCosts(
        macs=count_macs(net, x),
        params=[sum(p.numel() for p in modules.parameters()) for modules in passed],
        ms=ms[0].tolist(),
        ms_p95=ms[1].tolist(),
        ms_p99=ms[2].tolist(),
        batch_size=batch_size(x),
        device=device_name(device),
        threads=torch.get_num_threads(),
    )


def device_name(device: torch.device) -> str:
    """What a device is called in `ExitCosts`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def count_macs(net: MultiExitNetwork, x: Any) -> list[float]:
    """Cumulative MACs per sample up to each exit.

    torch's counter runs a copy of the network on the meta device, so nothing is computed; it
    counts two operations per MAC. Attention runs as plain matrix products, since fused kernels
    count as nothing on some devices.

    Args:
        net: The network.
        x: Input batch of B samples.
    """
    meta = on_meta(net)
    batch = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), x)
    macs, total = [], 0.0
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        state = meta.begin(batch)
        for k in range(meta.num_exits):
            with FlopCounterMode(display=False) as counter:
                _, state = meta.step(k, state)
            total += counter.get_total_flops() / 2 / batch_size(x)
            macs.append(total)
    return macs


def on_meta(net: torch.nn.Module) -> Any:
    """A copy of a network in evaluation mode whose tensors hold no values."""
    return copy.deepcopy(net).to("meta").eval().requires_grad_(False)


class LatencyProfile(NamedTuple):
    """How long the exits take on one device, at several batch sizes."""

    times: dict[int, torch.Tensor]
    """For each batch size, in increasing order, milliseconds from the input to the logits of each
    exit in each of R passes, `[R, E]` float64."""

    def exit_ms(self, batch_size: int, q: float = 0.5) -> torch.Tensor:
        """Quantile `q` of the milliseconds to each exit for a whole batch, `[E]` float64."""
        return self.times[batch_size].quantile(q, dim=0)

    def step_ms(self, k: int, samples: int, q: float = 0.95) -> float:
        """Quantile `q` of the milliseconds of stage `k` (from 0) on so many samples.

        It is that of the next larger batch measured; beyond the largest, time grows in proportion.
        """
        size = next((size for size in self.times if size >= samples), max(self.times))
        times = self.times[size]
        steps = times.diff(dim=1, prepend=torch.zeros_like(times[:, :1]))
        return float(steps[:, k].quantile(q)) * max(1.0, samples / size)


def profile_latency(
    net: MultiExitNetwork, x: Any, batch_sizes: Sequence[int], warmup: int = 3, repeats: int = 20
) -> LatencyProfile:
    """Measures the latency of each exit at several batch sizes.

    Args:
        net: The network; it is left as it was, on its device.
        x: Input batch on the same device, whose samples are repeated or left out as needed.
        batch_sizes: The batch sizes.
        warmup: Passes before the clock counts.
        repeats: Passes.
    """
    device = pytree.tree_leaves(x)[0].device
    times = {}
    for size in sorted(batch_sizes):
        rows = torch.arange(size, device=device) % batch_size(x)
        times[size] = _clock(net, narrow(x, rows), warmup, repeats)
    return LatencyProfile(times)


def _clock(net: MultiExitNetwork, x: Any, warmup: int, repeats: int) -> torch.Tensor:
    """Milliseconds from the input to the logits of each exit, `[repeats, E]` float64."""
    training = net.training
    net.eval()
    cuda = next(net.parameters()).is_cuda
    wait: Callable[[], None] = torch.cuda.synchronize if cuda else lambda: None
    times = torch.zeros(repeats, net.num_exits, dtype=torch.float64)
    with torch.inference_mode():
        for run in range(-warmup, repeats):
            wait()
            start = time.perf_counter()
            state = net.begin(x)
            for k in range(net.num_exits):
                _, state = net.step(k, state)
                wait()
                if run >= 0:
                    times[run, k] = 1e3 * (time.perf_counter() - start)
    net.train(training)
    return times
