"""What it takes in joules to answer at each exit, where the device counts them."""

import time
from pathlib import Path
from typing import Any

import torch

from eenet.models import MultiExitNetwork
from eenet.models.base import batch_size

POWERCAP = Path("/sys/class/powercap")


def measure_energy(net: MultiExitNetwork, x: Any, seconds: float = 1.0) -> list[float] | None:
    """Energy up to each exit, of the whole device, whatever else runs on it.

    Args:
        net: The network; it is left as it was, on its device.
        x: Input batch of B samples on its device.
        seconds: Time spent on each exit, pass after pass.

    Returns:
        Joules per sample; None where nothing is counted: processors count in Linux's powercap,
        which often only root may read, GPUs in NVML (package nvidia-ml-py).
    """
    device, training = next(net.parameters()).device, net.training
    before = counted(device)
    if before is None:
        return None
    joules: list[float] = []
    net.eval()
    for exits in range(1, net.num_exits + 1):
        began, passes = time.perf_counter(), 0
        while passes == 0 or time.perf_counter() - began < seconds:
            with torch.inference_mode():
                state = net.begin(x)
                for k in range(exits):
                    _, state = net.step(k, state)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            passes += 1
        after = counted(device)
        if after is None or after < before:  # it failed, or was reset
            break
        joules.append((after - before) / passes / batch_size(x))
        before = after
    net.train(training)
    return joules if len(joules) == net.num_exits else None


def counted(device: torch.device) -> float | None:
    """Reads the device's energy counter in joules; None if it has none."""
    try:
        if device.type == "cuda":
            import pynvml

            pynvml.nvmlInit()
            uuid = torch.cuda.get_device_properties(device).uuid
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        packages = (p for p in POWERCAP.glob("intel-rapl:*") if p.name.count(":") == 1)
        return sum(int((p / "energy_uj").read_text()) for p in packages) / 1e6 or None
    except Exception:  # a meter that fails must not cost a run its outputs
        return None
