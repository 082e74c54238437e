"""The scheduler's share of the full network's time (b), the alarm's, and peak memory (e).

(b) is what the runtime does at all exits besides running the network: evidence, score, comparison,
for a batch that stays to the end. The alarm's share is that of a whole adaptive prediction with and
without it, interleaved. (e) is the peak of what the full network, the runtime and its
throughput mode allocate on the same four batches: on a GPU as torch counts it, on a CPU (glibc) as
the growth of the peak of resident memory in a process of its own.
"""

import copy
import ctypes
import subprocess
import sys
from itertools import cycle
from pathlib import Path
from statistics import median

import torch
from common import conditions, cut, interleaved, load, parser, table

MODES = ("full network", "adaptive", "throughput mode")


def scheduler(predictor, logits):
    policy_state = predictor.single_sample() if len(logits[0]) == 1 else None
    for k in range(len(logits) - 1):
        policy_state, _ = predictor.decide(k, logits[k], policy_state)


def watched(arguments, predictor, x, y):
    """Rows of the milliseconds to answer 64 samples, or a batch, with and without the alarm."""
    watching = copy.deepcopy(predictor)
    watching.watch(0.01)
    for size in arguments.batch_sizes:
        several = max(1, 64 // size)  # the alarm does its work once in 64 samples

        def answer(who, batches, several=several):
            for _ in range(several):
                who.predict(next(batches))

        plain, alarmed = (cycle(cut(x, len(y), size)) for _ in range(2))
        times = interleaved(
            max(arguments.rounds, 30),
            plain=lambda b=plain: answer(predictor, b),
            alarm=lambda b=alarmed: answer(watching, b),
        )
        more = median(a / p - 1 for a, p in zip(times["alarm"], times["plain"], strict=True))
        row = (1e3 * median(times[name]) for name in ("plain", "alarm"))
        yield [size, *row, f"{100 * more:.2f} %"]


def peak(arguments) -> float:
    """Megabytes that one way of answering adds, in this process."""
    predictor, x, y = load(arguments)
    size = arguments.batch_sizes[-1]
    batches = cut(x, min(4 * size, len(y)), size)

    def answer():
        if arguments.peak == "throughput mode":
            return list(predictor.predict_stream(batches, size))
        with torch.inference_mode():
            run = predictor.net if arguments.peak == "full network" else predictor.predict
            return [run(batch) for batch in batches]

    if predictor.device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        answer()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # what loading the data freed would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading the data
    before = resident("VmRSS")
    answer()
    return resident("VmHWM") - before


def resident(field) -> float:
    """Megabytes of resident memory now (VmRSS) or at its peak (VmHWM); Linux only."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 2**10


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 256])
    options.add_argument("--peak", choices=MODES, help="used by the script itself")
    arguments = options.parse_args()
    if arguments.peak:
        print(peak(arguments))
        return
    predictor, x, y = load(arguments)
    conditions(arguments, predictor)
    rows = []
    for size in arguments.batch_sizes:
        rounds = max(arguments.rounds, 200 // size)
        batches = cut(x, len(y), size)[:rounds]
        with torch.inference_mode():
            logits = cycle([list(predictor.net(batch)) for batch in batches])
            turns = cycle(batches)
            times = interleaved(
                rounds,
                full=lambda b=turns: predictor.net(next(b)),
                scheduler=lambda z=logits: scheduler(predictor, next(z)),
            )
        full, spent = (1e3 * median(times[name]) for name in ("full", "scheduler"))
        rows.append([size, full, spent, f"{100 * spent / full:.2f} %"])
    table(["batch", "full network ms", "scheduler ms, all exits", "share"], rows)
    print()
    table(["batch", "64 samples ms", "with the alarm", "more"], watched(arguments, predictor, x, y))
    peaks = {}
    for name in MODES:
        command = [sys.executable, *sys.argv, "--peak", name]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks[name] = float(output.split()[-1])
    print()
    table(
        ["batch", *(f"{name} MB" for name in MODES)],
        [[arguments.batch_sizes[-1], *peaks.values()]],
    )


if __name__ == "__main__":
    main()
