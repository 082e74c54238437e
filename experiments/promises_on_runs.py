"""Latency promised for most samples, and the alarm on drifting streams, with a run's own network.

python experiments/promises_on_runs.py runs/cifar10-resnet20 runs/agnews-minilm

Latency: every one of 2,000 test samples is timed at each exit, at batch size 1. The 99% quantiles
of one half are what `max_ms` uses; calibration samples are drawn from the other half, whose own
times say how many samples are truly late. Alarm: the streams of `budgets_that_hold.py`, watched at
the first exit against the validation samples.
"""

import sys
import time

import torch
from budgets_that_hold import DELTA, DRAWS, LENGTH, streams
from promises_and_alarm import first_ring
from scipy.stats import binomtest

from eenet.metrics import budget_within_ms
from eenet.models import narrow
from eenet.outputs import ExitOutputs, load_outputs
from eenet.policies import EENetPlus
from eenet.policies.thresholds import at_exits
from eenet.run_folder import RunFolder

TIMED = 2000


@torch.inference_mode()
def measured(run: RunFolder, count: int) -> torch.Tensor:
    """Milliseconds of each of the first test samples to each exit, `[E, N]`, one at a time."""
    net, data, times = run.network().eval(), run.data(), []
    data.setup("test")
    for batch in data.test_dataloader():
        x, labels = data.on_after_batch_transfer(batch, 0)
        for n in range(len(labels)):
            start, own = time.perf_counter(), []
            state = net.begin(narrow(x, torch.tensor([n])))
            for k in range(net.num_exits):
                _, state = net.step(k, state)
                own.append(1e3 * (time.perf_counter() - start))
            times.append(own)
        if len(times) >= count:
            break
    return torch.tensor(times[:count], dtype=torch.float64).T


def late_table(name: str, policy: EENetPlus, test: ExitOutputs, ms: torch.Tensor) -> None:
    """How often more samples are late than was promised, over draws of calibration samples."""
    warm, rest = (torch.arange(TIMED)[i::2] for i in (0, 1))
    known, ms, outputs = ms[:, warm].quantile(0.99, 1), ms[:, rest], test.select(rest)
    evidence = outputs.evidence()
    print(f"\n{name}: 99% quantiles {[round(float(x), 2) for x in known]} ms\n")
    print(f"| at most | late, promised | broken, % of {DRAWS} | 95% | refused | truly late, mean | "
          "budget, mean |\n" + "|---" * 7 + "|")  # fmt: skip
    for limit in ((known[:-1] + known[1:]) / 2).tolist():
        for tail in (0.05, 0.2):
            late, chosen, generator = [], [], torch.Generator().manual_seed(0)
            for _ in range(DRAWS):
                drawn = outputs.select(torch.randint(len(rest), (1000,), generator=generator))
                try:
                    asked = budget_within_ms(policy, drawn, known, limit, tail, DELTA)
                except ValueError:
                    continue
                exits = policy.at_fraction(asked.budget).decide(evidence)
                late.append(float((at_exits(ms, exits) > limit).double().mean()))
                chosen.append(asked.budget)
            broken = binomtest(sum(x > tail for x in late), DRAWS)
            low, high = broken.proportion_ci()
            means = [sum(x) / max(len(x), 1) for x in (late, chosen)]
            print(f"| {limit:.2f} ms | {tail} | {100 * broken.statistic:.1f} | "
                  f"{100 * low:.1f} to {100 * high:.1f} | {DRAWS - len(late)} | {means[0]:.4f} | "
                  f"{means[1]:.3f} |", flush=True)  # fmt: skip


def alarm_table(name: str, path: str, val: ExitOutputs, test: ExitOutputs) -> None:
    """Samples until the alarm rings, on drifting streams; the first one has no drift."""
    reference = val.logits[0].float()
    drawn = torch.randint(val.num_samples, (LENGTH,), generator=torch.Generator().manual_seed(2))
    watched = [("no drift: validation again", val.select(drawn)), *streams(path, val, test)]
    print(f"\n{name}: the alarm against {len(reference)} validation samples\n")
    print("| stream | rings after, rate 0.01 | rate 0.1 |\n|---|---|---|")
    for kind, stream in watched:
        rung = [first_ring(reference, stream.logits[0].float(), delta) for delta in (0.01, 0.1)]
        print(f"| {kind} | {rung[0] or 'never'} | {rung[1] or 'never'} |", flush=True)


def main() -> None:
    """Prints Markdown tables."""
    for path in sys.argv[1:]:
        run = RunFolder(path)
        val, test = (load_outputs(run.stage1.outputs_file(split)) for split in ("val", "test"))
        late_table(run.path.name, EENetPlus().fit(val), test, measured(run, TIMED))
        alarm_table(run.path.name, path, val, test)


if __name__ == "__main__":
    main()
