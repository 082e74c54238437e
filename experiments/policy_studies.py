"""What EENet and EENet+ gain and lose, on saved exit outputs alone.

python experiments/policy_studies.py rivals   NETWORK...  # against confidences and all heuristics
python experiments/policy_studies.py labels   NETWORK...  # soft targets, fits without labels
python experiments/policy_studies.py distrust NETWORK...  # a last exit or labels not to be trusted
python experiments/policy_studies.py speed    NETWORK...  # seconds of a fit

A NETWORK is a run, or a file of exit outputs of samples that the network was not trained on. Of a
run, val fits and test is reported on. A file is halved, each half decided for by what was fitted on
the other, and halved anew for each of the 5 seeds, which also are those of folds, initial
parameters and batches. With `--on val` nothing but val is looked at, halved in the same way (of a
file: its first half). Areas are means over 16 budgets at equal cost, in percent; leads are in
points.
"""

import argparse
import copy
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from eenet.metrics.curve_maths import area, paired_difference, quality_at, relative
from eenet.modules import fit_policies
from eenet.outputs import ExitOutputs, load_outputs
from eenet.policies import (
    BEEM,
    EENet,
    EENetPlus,
    Entropy,
    Margin,
    MaxProbability,
    Patience,
    Temperature,
    Vote,
)
from eenet.policies.base import decide_all
from eenet.policies.thresholds import at_exits
from eenet.stage_folder import stages_of

SEEDS, BUDGETS = 5, 16
SOFT = 0.0, 0.5, 0.75, 1.0
"""Shares of the last exit in what is learned: 0 is labels alone, 1 is no labels."""


def randomly(count, seed):
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def load(path, on):
    path = Path(path)
    if path.is_dir():
        stage1, _ = stages_of(path)
        fit, test = (load_outputs(stage1.outputs_file(split)) for split in ("val", "test"))
        return Network(path.name, fit, test if on == "test" else None)
    fit = load_outputs(path)
    half = randomly(fit.num_samples, 0).chunk(2)[0]
    return Network(path.stem, fit if on == "test" else fit.select(half))


@dataclass
class Network:
    """Outputs to fit on and to report on; without the latter, halves of the former."""

    name: str
    fit: ExitOutputs
    test: ExitOutputs | None = None

    def __post_init__(self):
        self.costs, self.quality = relative(self.test or self.fit)
        first = float(self.costs[0])
        self.budgets = torch.linspace(1.1 * first, 0.95, BUDGETS, dtype=torch.float64)
        self.ends = [first, *self.budgets.tolist(), 1.0]

    def parts(self, seed):
        """Outputs to fit on, outputs to decide for, and the latter's positions."""
        if self.test is not None:
            yield self.fit, self.test, torch.arange(self.test.num_samples)
            return
        first, second = randomly(self.fit.num_samples, seed).chunk(2)
        for fit, decided in ((first, second), (second, first)):
            yield self.fit.select(fit), self.fit.select(decided), decided

    def decide(self, policies, seed, change):
        """Exits `[P, M + 2, N]` by fits on changed outputs."""
        decided, places = [], []
        for fit, test, place in self.parts(seed):
            own = [copy.deepcopy(policy) for policy in policies]
            fit_all(own, change(fit, seed), self.ends, seed)
            rules = [policy.at_fraction(budget) for policy in own for budget in self.ends]
            decided.append(test.map(partial(decide_all, rules)))
            places.append(place)
        exits = torch.cat(decided, -1)[:, torch.cat(places).argsort()]
        return exits.view(len(policies), len(self.ends), -1)

    def reach(self, policies, change=lambda fit, seed: fit, seeds=SEEDS):
        """Areas `[S, P]` and each sample's quality `[P, M, N]`, the mean over the seeds."""
        areas, samples = torch.zeros(seeds, len(policies)), 0.0
        for seed in range(seeds):
            curves = []
            for p, exits in enumerate(self.decide(policies, seed, change)):
                cost, reached = at_exits(self.costs, exits).mean(1), at_exits(self.quality, exits)
                curves.append(quality_at(cost, reached, self.budgets))
                low, high = self.budgets[[0, -1]].tolist()
                areas[seed, p] = 100 * area(cost, reached.mean(1), low, high)
            samples = samples + torch.stack(curves) / seeds
        return areas, samples


def fit_all(policies, outputs, fractions, seed):
    """Fits in place; what learns by gradient descent, together."""
    learned = [policy for policy in policies if not policy.any_budget]
    if learned:
        fit_policies(learned, outputs, fractions, seed)
    for policy in policies:
        if policy.any_budget:
            policy.seed = seed
            policy.fit(outputs)


def leads(ours, other):
    """Of the lead over the budgets: least and largest, ahead / behind, the worst with interval."""
    mean, low, high = (100 * x for x in paired_difference(ours, other))
    worst = int(mean.argmin())
    return (
        f"{mean.min():+.2f} to {mean.max():+.2f} | {int((low > 0).sum())} / {int((high < 0).sum())}"
        f" | {mean[worst]:+.2f} [{low[worst]:+.2f}, {high[worst]:+.2f}]"
    )


def row(*cells):
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def head(*columns):
    print()
    row(*columns)
    print("|---" * len(columns) + "|")


def rivals(networks, seeds):
    """EENet, in the form chosen on the outputs it is fitted on, and EENet+ against heuristics."""
    forms = [
        EENet(probs=probs, exit_distribution=shares, label=f"{shares}{'' if probs else ', no p'}")
        for shares in ("learned", "common")
        for probs in (True, False)
    ]
    plain = [kind(common) for common in (False, True) for kind in (MaxProbability, Margin, Entropy)]
    head("network", "policy", "area", "rival", "its area", "lead", "ahead / behind", "worst budget")
    for network in networks:
        halved = [Network("", fit).reach(forms, seeds=1)[0][0] for fit, *_ in network.parts(0)]
        chosen = forms[int(sum(halved).argmax())]
        policies = [chosen, EENetPlus(), *plain, Temperature(), Vote(), Patience(), BEEM()]
        areas, samples = network.reach(policies, seeds=seeds)
        mean, spread = areas.mean(0), areas.std(0)
        best = 2 + int(mean[2:].argmax())
        for ours, who in enumerate((f"EENet ({chosen.label})", "EENet+")):
            for i in [*range(2, 2 + len(plain)), best]:
                name = policies[i].label + " (the best)" * (i == best)
                cells = who, f"{mean[ours]:.2f} ± {spread[ours]:.2f}", name, f"{mean[i]:.2f}"
                row(network.name, *cells, leads(samples[ours], samples[i]))


def labels(networks, seeds):
    """EENet+ with hard, mixed and no labels, on few and many samples."""
    policies = [EENetPlus(soft=soft) for soft in SOFT]
    mixed = [f"soft {soft:g}" for soft in SOFT[1:-1]]
    head("network", "samples", "area with labels", *mixed, "no labels", "lead of no labels",
         "ahead / behind", "worst budget")  # fmt: skip
    for network in networks:
        most = next(network.parts(0))[0].num_samples
        for count in [n for n in (500, 1000, 2000) if n < most] + [most]:

            def few(fit, seed, count=count):
                return fit.select(randomly(fit.num_samples, 100 + seed)[:count])

            areas, samples = network.reach(policies, few, seeds)
            mean, gain = areas.mean(0), (areas - areas[:, :1])[:, 1:]
            cells = [f"{g:+.2f} ± {s:.2f}" for g, s in zip(gain.mean(0), gain.std(0), strict=True)]
            row(network.name, count, f"{mean[0]:.2f}", *cells, leads(samples[-1], samples[0]))


def heated(outputs, factor):
    """The last exit's logits times a factor, which changes none of its answers."""
    logits = outputs.logits.float().clone()
    logits[-1] *= factor
    return replace(outputs, logits=logits)


def mistaken(outputs, share):
    """The last exit as sure as before, but of another class, on a share of the samples."""
    generator, logits = torch.Generator().manual_seed(7), outputs.logits.float().clone()
    rows = (torch.rand(outputs.num_samples, generator=generator) < share).nonzero()[:, 0]
    logits[-1, rows] = logits[-1, rows].roll(1, -1)
    return replace(outputs, logits=logits)


def mislabelled(fit, seed, share):
    generator, labels = torch.Generator().manual_seed(seed), fit.labels.clone()
    rows = (torch.rand(len(labels), generator=generator) < share).nonzero()[:, 0]
    other = torch.randint(1, fit.num_classes, rows.shape, generator=generator)
    labels[rows] = (labels[rows] + other) % fit.num_classes
    return replace(fit, labels=labels)


def drawn(fit, seed, weight):
    """As many samples, drawn with replacement by their weights."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.multinomial(weight(fit), fit.num_samples, True, generator=generator)
    return fit.select(rows)


def unsure(fit):
    return 1.0 + 4 * (fit.evidence().one_minus_max[0] > 0.5)


def of_the_first_classes(fit):
    return 1.0 + 4 * (fit.labels < fit.num_classes // 2)


def as_it_is(outputs, seed=0):
    return outputs


def distrust(networks, seeds):
    """Fits with and without labels where one of the two sources cannot be trusted."""
    cases = {"as it is": (as_it_is, as_it_is)}  # all outputs, then those to fit on
    for factor in (0.5, 2, 4):
        cases[f"last logits x {factor}"] = partial(heated, factor=factor), as_it_is
    for share in (0.1, 0.2):
        cases[f"last exit wrong on {share:.0%} more"] = partial(mistaken, share=share), as_it_is
    for share in (0.1, 0.2):
        wrong = partial(mislabelled, share=share)
        cases[f"labels of the fit wrong on {share:.0%}"] = as_it_is, wrong
    for name, weight in (("half of the classes", of_the_first_classes), ("unsure samples", unsure)):
        shifted = partial(drawn, weight=weight)
        cases[f"fitted where {name} are 5 times as frequent"] = as_it_is, shifted
    policies = [EENetPlus(), EENetPlus(soft=1.0), MaxProbability(common=True)]
    head("case", "network", "labels", "no labels", "max_prob_common", "lead of no labels",
         "ahead / behind", "worst budget")  # fmt: skip
    for name, (whole, change) in cases.items():
        for network in networks:
            own = Network(network.name, whole(network.fit), network.test and whole(network.test))
            areas, samples = own.reach(policies, change, seeds)
            cells = [f"{x:.2f}" for x in areas.mean(0)]
            row(name, network.name, *cells, leads(samples[1], samples[0]))


def speed(networks, seeds):
    """CPU seconds of a fit, with the thresholds of all budgets, on one thread; medians."""
    torch.set_num_threads(1)
    head("network", "samples x exits x classes", "labels", "CPU seconds, median", "largest")
    for network in networks:
        outputs = network.test or network.fit
        for soft in (0.0, 1.0):
            seconds = []
            for _ in range(seeds):
                begun = time.process_time()
                policy = EENetPlus(soft=soft).fit(outputs)
                for budget in network.ends:
                    policy.at_fraction(budget)
                seconds.append(time.process_time() - begun)
            shape = " x ".join(map(str, (*outputs.logits.shape[1::-1], outputs.num_classes)))
            middle = sorted(seconds)[seeds // 2]
            row(
                network.name, shape, "no" if soft else "yes", f"{middle:.2f}", f"{max(seconds):.2f}"
            )


if __name__ == "__main__":
    studies = {study.__name__: study for study in (rivals, labels, distrust, speed)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=studies)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--on", choices=("test", "val"), default="test")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--ends", action="store_true", help="labels: leave out the mixtures")
    given = parser.parse_args()
    SOFT = SOFT[:: len(SOFT) - 1] if given.ends else SOFT
    studies[given.study]([load(path, given.on) for path in given.networks], given.seeds)
