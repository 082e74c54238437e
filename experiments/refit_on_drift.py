"""Is a policy worth learning anew where traffic drifts? EENet+ over ten blocks of a stream.

python experiments/refit_on_drift.py runs/cifar10-resnet20 --halve runs/cifar10-resnet56

The policy is fitted on val with labels, and the stream is made of the test samples; of a run that
follows `--halve` (its network was trained on val, say), and of a file of outputs, half of the test
samples fit it and the other half is the stream. Before each block but the first, the policy may
learn from the blocks before it, without labels unless said otherwise. Streams: classes come and go;
samples get harder (the last exit ever less sure); noise on the images grows from none to one
standard deviation of the pixels, which needs a run of an image network.
"""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import torch
from budgets_that_hold import noisier
from policy_studies import Network, head, leads, load, randomly, row

from eenet.metrics.curve_maths import area, quality_at
from eenet.outputs import ExitOutputs
from eenet.policies import EENetPlus
from eenet.policies.base import decide_all
from eenet.policies.thresholds import at_exits
from eenet.run_folder import RunFolder

SEEDS, BLOCKS, WINDOW = 2, 10, 3
WAYS = (
    "as fitted",
    "recalibrated on the last block",
    "refit on the last block",
    "refit on the last three blocks",
    "both: refit on three, recalibrated on the last",
    "both, refit with labels",
)


def streams(network: Network, path: str, part):
    """Names and outputs of streams of the samples at some positions of the test outputs."""
    test, generator = network.test or network.fit, torch.Generator().manual_seed(0)
    place = test.labels[part] / test.num_classes + torch.rand(len(part), generator=generator)
    yield "classes come and go", test.select(part[place.argsort()])
    sure = test.evidence().one_minus_max[-1, part]
    yield "ever harder", test.select(part[sure.argsort()])
    if Path(path).is_dir() and "Text" not in RunFolder(path).stage1.config["data"]["class_path"]:
        yield "growing noise", noisier(path, test).select(part.sort().values)


def policies(old: EENetPlus, today: ExitOutputs | None, window: ExitOutputs, seed: int):
    """What each way of keeping up serves after a block, the last of a window."""
    if not today:  # nothing was seen yet
        yield from dict.fromkeys(WAYS, old).items()
        return
    again = EENetPlus(seed=seed).fit(replace(window, labels=None))
    fits = [
        old,
        copy.deepcopy(old).calibrate(today),
        EENetPlus(seed=seed).fit(replace(today, labels=None)),
        copy.deepcopy(again),
        again.calibrate(today),
        EENetPlus(seed=seed).fit(window).calibrate(today),
    ]
    yield from zip(WAYS, fits, strict=True)


def follow(old: EENetPlus, stream: ExitOutputs, ends: list[float], seed: int):
    """By each way of keeping up, the exits `[M + 2, N]`."""
    rows = torch.arange(stream.num_samples).chunk(BLOCKS)
    blocks, decided = [stream.select(part) for part in rows], {}
    for n, block in enumerate(blocks):
        window = stream.select(torch.cat(rows[max(0, n - WINDOW) : max(n, 1)]))
        for name, policy in policies(old, n and blocks[n - 1], window, seed):
            rules = [policy.at_fraction(budget) for budget in ends]
            decided.setdefault(name, []).append(decide_all(rules, block.evidence()))
    return {name: torch.cat(parts, 1) for name, parts in decided.items()}


def study(path: str, halve: bool) -> None:
    network = load(path, "test")
    outputs = network.test or network.fit
    part, fit = torch.arange(outputs.num_samples), network.fit
    if halve or network.test is None:
        kept, part = randomly(outputs.num_samples, 0).chunk(2)
        fit = outputs.select(kept)
    low, high = network.budgets[[0, -1]].tolist()
    for name, stream in streams(network, path, part):
        costs, quality = stream.relative_costs, stream.answer_quality().double()
        areas, away, samples = {}, {}, {}
        for seed in range(SEEDS):
            for way, exits in follow(
                EENetPlus(seed=seed).fit(fit), stream, network.ends, seed
            ).items():
                spent, reached = at_exits(costs, exits), at_exits(quality, exits)
                cost = spent.mean(1)
                areas.setdefault(way, []).append(area(cost, reached.mean(1), low, high))
                curve = quality_at(cost, reached, network.budgets) / SEEDS
                samples[way] = samples.get(way, 0) + curve
                means = torch.stack([b.mean(1) for b in spent.chunk(BLOCKS, 1)[1:]])[:, 1:-1]
                away.setdefault(way, []).append((means / network.budgets - 1).abs())
        for way, values in areas.items():
            values, off = 100 * torch.tensor(values), torch.stack(away[way])
            cells = (
                f"{values.mean():.2f} ± {values.std():.2f}",
                f"{off.mean():.1%}",
                f"{off.max():.0%}",
            )
            lead = leads(samples[way], samples[WAYS[1]])
            row(network.name, name, way, *cells, lead)


if __name__ == "__main__":
    head("network", "stream", "policy", "area", "cost off its budget: mean", "most",
         "lead over recalibrated", "ahead / behind", "worst budget")  # fmt: skip
    halve = False
    for word in sys.argv[1:]:
        if word == "--halve":
            halve = True
        else:
            study(word, halve)
