"""Do budgets hold on real outputs? Online control on drifting streams, guarantees by resampling.

python experiments/budgets_that_hold.py runs/cifar10-resnet20 runs/sst2-minilm

EENet+ is fitted on a run's validation outputs.
Streams of 10,000 samples: a network's test inputs under growing noise (images alone), its test
samples with the hardest first, and validation samples that were not used for fitting before test
samples, which is a shift where the two differ. Guarantees: calibration samples drawn from the test
outputs with replacement, whose means are the truth.
"""

import sys
from pathlib import Path

import torch

from eenet.metrics.curve_maths import quality_at
from eenet.outputs import ExitOutputs, load_outputs
from eenet.policies import BudgetControl, EENetPlus
from eenet.policies.base import decide_all, score_exits
from eenet.policies.guarantee import within_budget, within_loss
from eenet.policies.thresholds import at_exits, first_exit
from eenet.run_folder import RunFolder

BUDGETS, LENGTH, DELTA, DRAWS = (0.3, 0.4, 0.5, 0.6, 0.7), 10_000, 0.1, 500


def drawn(outputs, count, generator):
    return outputs.select(torch.randint(outputs.num_samples, (count,), generator=generator))


def joined(first, second):
    quality = torch.cat([first.answer_quality(), second.answer_quality()], 1)
    return ExitOutputs(
        costs=first.costs, logits=torch.cat([first.logits, second.logits], 1), quality=quality
    )


@torch.inference_mode()
def noisier(run: str, test: ExitOutputs, steps: int = 10) -> ExitOutputs:
    """What the exits say of the test images, in order, under noise growing to a pixel s.d. of 1."""
    net, data = RunFolder(run).network().eval(), RunFolder(run).data()
    data.setup("test")
    logits, seen = [], 0
    generator = torch.Generator().manual_seed(0)
    for batch in data.test_dataloader():
        x, _ = data.on_after_batch_transfer(batch, 0)
        level = (steps * seen // test.num_samples) / (steps - 1)
        logits.append(net(x + level * torch.randn(x.shape, generator=generator)))
        seen += len(x)
    return ExitOutputs(costs=test.costs, logits=torch.cat(logits, 1), labels=test.labels)


def streams(run: str, val: ExitOutputs, test: ExitOutputs):
    generator = torch.Generator().manual_seed(1)
    half = LENGTH // 2
    hardest = drawn(test, LENGTH, generator) if test.num_samples < LENGTH else test
    order = hardest.logits[-1].softmax(1).amax(1).argsort()
    yield "hardest first", hardest.select(order[:LENGTH])
    yield (
        "validation, then test",
        joined(drawn(val, half, generator), drawn(test, half, generator)),
    )
    if not RunFolder(run).stage1.config["data"]["class_path"].endswith("TextClassification"):
        yield "growing noise", noisier(run, test)


def follow(policy: EENetPlus, stream: ExitOutputs, budget: float, step: float = 0.01):
    """Exits of a stream under control, one sample at a time."""
    control = BudgetControl(budget, stream.costs, step)
    scores = score_exits(policy, stream.evidence())
    exits = []
    for n in range(stream.num_samples):
        at = policy.at_point(control.u)
        exits.append(first_exit(scores[:, n : n + 1], at.thresholds))
        control.update(stream.costs[exits[-1]])
    return torch.cat(exits), control


def control_table(run: str, policy: EENetPlus, val: ExitOutputs, test: ExitOutputs) -> None:
    print("\n| stream | budget | cost without control | with | deviation | bound | quality without"
          " | with | at that cost, fixed |\n" + "|---" * 9 + "|")  # fmt: skip
    full = float(test.costs[-1])
    for name, stream in streams(run, val, test):
        quality, scores = stream.answer_quality(), score_exits(policy, stream.evidence())
        points = [policy.at_point(u / 50).thresholds for u in range(51)]
        fixed = torch.stack([first_exit(scores, thresholds) for thresholds in points])
        cost = at_exits(stream.costs, fixed).double().mean(1)
        reached = at_exits(quality, fixed).double().mean(1)
        for budget in BUDGETS:
            plain = policy.at_fraction(budget).thresholds
            before = first_exit(scores, plain)
            after, control = follow(policy, stream, budget * full)
            spent = [float(stream.costs[e].double().mean()) / full for e in (before, after)]
            right = [float(at_exits(quality, e).mean()) for e in (before, after)]
            best = float(quality_at(cost, reached, torch.tensor([spent[1] * full]))[0])
            bound = control.bound() / full
            print(f"| {name} | {budget} | {spent[0]:.3f} | {spent[1]:.4f} | "
                  f"{spent[1] / budget - 1:+.2%} | {bound / budget:.1%} | {right[0]:.2%} | "
                  f"{right[1]:.2%} | {best:.2%} |")  # fmt: skip


def guarantee_table(policy: EENetPlus, test: ExitOutputs) -> None:
    rules = [policy.at_point(u / 40) for u in range(41)]
    exits, quality = decide_all(rules, test.evidence()), test.answer_quality().double()
    cost = at_exits(test.costs.double(), exits).mean(1)
    lost = quality[-1].mean() - at_exits(quality, exits).mean(1)
    full = float(test.costs[-1])
    print(f"\n| promise | calibration samples | broken in {DRAWS} | refused | mean margin | "
          "mean cost |\n" + "|---" * 6 + "|")  # fmt: skip
    promises = [("cost", value) for value in (0.4, 0.6)] + [("loss", v) for v in (0.01, 0.02)]
    for kind, value in promises:
        for count in (1000, 4000):
            generator = torch.Generator().manual_seed(0)
            broken = refused = 0
            margins, costs = [], []
            for _ in range(DRAWS):
                sample = drawn(test, count, generator)
                try:
                    if kind == "cost":
                        kept = within_budget(rules, sample, value * full, DELTA)
                        broken += bool(cost[kept.position] > value * full)
                    else:
                        kept = within_loss(rules, sample, value, DELTA)
                        broken += bool(lost[kept.position] > value)
                except ValueError:
                    refused += 1
                    continue
                margins.append(kept.margin / (full if kind == "cost" else 1))
                costs.append(float(cost[kept.position]) / full)
            mean = [sum(x) / len(x) if x else float("nan") for x in (margins, costs)]
            print(f"| {kind} <= {value} | {count} | {broken} | {refused} | {mean[0]:.4f} | "
                  f"{mean[1]:.3f} |")  # fmt: skip


def main(runs: list[str]) -> None:
    """Prints two Markdown tables for each run."""
    for run in runs:
        outputs = Path(run) / "stage1" / "outputs"
        val, test = (load_outputs(outputs / f"{s}.safetensors") for s in ("val", "test"))
        order = torch.randperm(val.num_samples, generator=torch.Generator().manual_seed(0))
        fit, rest = (val.select(part) for part in order.tensor_split(2))
        print(f"\n{run}: fitted on {fit.num_samples} samples, delta {DELTA}")
        policy = EENetPlus().fit(fit)
        control_table(run, policy, rest, test)
        guarantee_table(policy, test)


if __name__ == "__main__":
    main(sys.argv[1:])
