"""What the benchmarks share: runs, interleaved timing, tables."""

import argparse
import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from eenet.inference import AdaptivePredictor
from eenet.models import narrow
from eenet.run_folder import RunFolder

CUDA = torch.cuda.is_available()  # asked once: asking takes as long as a decision


def parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run_dir", help="folder of a finished `eenet pipeline`")
    parser.add_argument("--policy", help="label of one of the run's policies")
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--samples", type=int, default=10**9, help="test samples to use at most")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved repetitions")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def load(arguments: argparse.Namespace) -> tuple[AdaptivePredictor, Any, torch.Tensor]:
    """The predictor, and inputs and labels of the test set as the network takes them."""
    torch.set_num_threads(arguments.threads)
    predictor = AdaptivePredictor.from_run(
        arguments.run_dir, arguments.budget, arguments.policy, device=arguments.device
    )
    data = RunFolder(arguments.run_dir).data()
    data.setup("test")
    batches, labels, found = [], [], 0
    for batch in data.test_dataloader():
        x, y = data.on_after_batch_transfer(batch, 0)
        batches.append(predictor.to_device(x))
        labels.append(y)
        found += len(y)
        if found >= arguments.samples:
            break
    x, y = predictor.net.join(batches), torch.cat(labels)
    rows = torch.arange(min(arguments.samples, len(y)))
    return predictor, narrow(x, rows), y[rows]


def cut(x: Any, samples: int, size: int) -> list[Any]:
    """Batches of a size, as a user would make them: text padded to the batch's longest."""
    batches = []
    for rows in torch.arange(samples).split(size):
        batch = narrow(x, rows)
        if isinstance(batch, dict):
            longest = int(batch["attention_mask"].sum(1).max())
            batch = {name: value[:, :longest].contiguous() for name, value in batch.items()}
        batches.append(batch)
    return batches


def interleaved(rounds: int, **tasks: Callable[[], Any]) -> dict[str, list[float]]:
    """Seconds of each task in each round; the tasks take turns, in alternating order."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():  # warm up
        task()
    for number in range(rounds):
        order = list(tasks.items())
        for name, task in order if number % 2 == 0 else reversed(order):
            synchronize()
            start = time.perf_counter()
            task()
            synchronize()
            times[name].append(time.perf_counter() - start)
    return times


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """Median over the rounds of one time over the other."""
    return median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def synchronize() -> None:
    if CUDA:
        torch.cuda.synchronize()


def table(columns: list[str], rows: list[list[Any]]) -> None:
    """Prints a Markdown table."""
    print("| " + " | ".join(columns) + " |")
    print("| " + " | ".join("---" for _ in columns) + " |")
    for row in rows:
        cells = (f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row)
        print("| " + " | ".join(cells) + " |", flush=True)


def conditions(arguments: argparse.Namespace, predictor: AdaptivePredictor) -> None:
    device = predictor.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    print(
        f"\n{arguments.run_dir}, policy {predictor.policy.label}, budget {arguments.budget:g}; "
        f"{device.type} {name}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, "
        f"medians of {arguments.rounds} interleaved rounds\n"
    )
