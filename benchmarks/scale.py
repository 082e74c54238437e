"""Memory and speed of writing, fitting on and evaluating exit outputs of ImageNet's size.

    python benchmarks/scale.py --samples 50000 --folder /tmp/scale

The outputs are generated, piece by piece, and their file is deleted at the end. Each step has a
process of its own; its memory is the peak of what is not a file's pages, which the system takes
back when it needs them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

STEPS = ("write", "max_prob", "temperature", "ztw", "eenet+", "eenet", "evaluate")
BUDGETS = [0.3, 0.5, 0.7]


def anonymous(process) -> float:
    """Resident memory of a process that no file backs, in MB; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def generated(arguments, size=500):
    """Batches as `predict` gives them: later exits know more about the label."""
    shape = (arguments.exits, arguments.classes)
    strength = torch.linspace(1, 3, arguments.exits)[:, None]
    generator = torch.Generator().manual_seed(0)
    for start in range(0, arguments.samples, size):
        count = min(size, arguments.samples - start)
        labels = torch.randint(arguments.classes, (count,), generator=generator)
        logits = torch.randn(count, *shape, generator=generator)
        ease = 4 * torch.rand(count, 1, generator=generator)
        logits[torch.arange(count), :, labels] += ease * strength[:, 0]
        yield {"logits": logits.to(getattr(torch, arguments.dtype)), "labels": labels}


def write(arguments, path):
    from eenet.outputs.writer import OutputsWriter

    seconds, writer = 0.0, None
    costs = torch.linspace(1, 10, arguments.exits, dtype=torch.float64)
    for batch in generated(arguments):
        begun = time.perf_counter()
        if writer is None:
            writer = OutputsWriter.lay_out(path, arguments.samples, batch, costs, {})
        writer.write(batch)
        seconds += time.perf_counter() - begun
    begun = time.perf_counter()
    writer.flush()
    writer.finish()
    return seconds + time.perf_counter() - begun


def stage2(policies, arguments, path, test=False):
    """What `eenet fit` does, or `eenet test` with all policies fitted beforehand."""
    import lightning as L

    from eenet.data.outputs_data import OutputsData
    from eenet.modules.scheduler import SchedulerModule

    data = OutputsData(fit=str(path), test=str(path))
    module = SchedulerModule(policies, BUDGETS)
    trainer = L.Trainer(accelerator="cpu", barebones=True, max_epochs=arguments.epochs)
    if test:
        for policy in policies:
            policy.fit(data.outputs("fit"))
    begun = time.perf_counter()
    (trainer.test if test else trainer.fit)(module, datamodule=data)
    return time.perf_counter() - begun


def step(arguments, name, path):
    from eenet import policies as s

    makes = {"max_prob": s.MaxProbability, "temperature": s.Temperature}
    makes |= {"ztw": s.ZTW, "eenet+": s.EENetPlus, "eenet": s.EENet}
    if name == "write":
        return write(arguments, path)
    if name == "evaluate":
        return stage2([s.MaxProbability(), s.EENetPlus()], arguments, path, test=True)
    if name == "eenet":
        return stage2([s.EENet()], arguments, path)
    from eenet.outputs import load_outputs

    begun = time.perf_counter()
    makes[name]().fit(load_outputs(path))
    return time.perf_counter() - begun


def measured(arguments, name, path):
    """Runs a step, and prints its seconds and the memory before it."""
    torch.set_num_threads(arguments.threads)
    import eenet.data.outputs_data
    import eenet.modules.scheduler  # noqa: F401

    start = anonymous(os.getpid())
    print("\n" + json.dumps({"seconds": step(arguments, name, path), "start": start}))


def watched(command) -> dict[str, float]:
    """What a command prints at last, and its peak memory, seen from outside: no lock hides it."""
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    peak, process = 0.0, subprocess.Popen(command, **quiet)
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.02)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {**json.loads(process.stdout.read().splitlines()[-1]), "peak": peak}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50000)
    parser.add_argument("--exits", type=int, default=5)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float16")
    parser.add_argument("--epochs", type=int, default=2, help="of EENet")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", default="/tmp/eenet-scale")
    parser.add_argument("--steps", nargs="+", default=list(STEPS))
    parser.add_argument("--keep", action="store_true", help="keep the file for further steps")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    path = Path(arguments.folder) / "outputs.safetensors"
    if arguments.step:
        measured(arguments, arguments.step, path)
        return
    print("| step | seconds | samples/s | peak memory | before it |", flush=True)
    print("| --- | --- | --- | --- | --- |", flush=True)
    try:
        for name in arguments.steps:
            command = [sys.executable, __file__, *sys.argv[1:], "--step", name]
            found = watched(command)
            speed = arguments.samples / found["seconds"]
            print(
                f"| {name} | {found['seconds']:.1f} | {speed:.0f} | {found['peak']:.0f} MB | "
                f"{found['start']:.0f} MB |",
                flush=True,
            )
        print(f"\nThe file: {path.stat().st_size / 2**20:.0f} MB")
    finally:
        if not arguments.keep:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
