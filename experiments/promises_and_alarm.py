"""Do the promises hold and does the alarm keep quiet? Resamplings and streams of real exit outputs.

python experiments/promises_and_alarm.py benchmarks/outputs/cifar10-resnet56.safetensors \
    docs/images/promises.svg

A random half of the outputs fits EENet+, the other half is the population: calibration samples and
streams are drawn from it with replacement, so that its means are the truth.
"""

import math
import sys
import time
from contextlib import suppress

import matplotlib
import numpy as np
import torch
from scipy.stats import binom, binomtest

from eenet.metrics import least_budget
from eenet.outputs import ExitOutputs, load_outputs
from eenet.plotting import style
from eenet.policies import Alarm, EENetPlus, MaxProbability
from eenet.policies.base import decide_all
from eenet.policies.guarantee import cheapest_kept, last_kept
from eenet.policies.thresholds import at_exits

DELTA, DRAWS, STREAMS, LENGTH, RULES = 0.1, 500, 200, 10_000, 41


def hoeffding_bentkus(values, mean):
    """P-values `[M]` of CALM's choice (Bates et al. 2021, section 3.1.1), for values in [0, 1]."""
    count, average = values.shape[1], values.mean(1).clamp(max=mean)
    a = average.clamp(1e-12, 1 - 1e-12)
    divergence = a * (a / mean).log() + (1 - a) * ((1 - a) / (1 - mean)).log()
    bentkus = math.e * torch.as_tensor(
        binom.cdf((count * values.mean(1)).ceil().numpy(), count, mean)
    )
    return torch.minimum((-count * divergence).exp(), bentkus)


def learn_then_test(p_value):
    """Position of the cheapest rule that p-values accept, from the most expensive down."""

    def chosen(values, most):
        kept = p_value(values.flip(0), most) <= DELTA
        if not kept[0]:
            raise ValueError("refused")
        return len(values) - int(kept.int().cumprod(0).sum())

    return chosen


def by(choose, low=0.0, delta=DELTA):
    """Position of one of eenet's own choices, for values from `low` to 1; at None for 0 or 1."""
    bounds = None if low is None else (low, 1.0)

    def chosen(values, most):
        return choose([None] * len(values), values, bounds, "promise", most, delta).position

    return chosen


def frugal(rules, values, bounds, _, most, delta):
    return cheapest_kept(rules, values, bounds, most, delta)


def plain_mean(values, most):
    """RC-EENN's conformal risk control: the cheapest rule of all whose corrected mean is small."""
    kept = ((values.sum(1) + 1) / (values.shape[1] + 1) <= most).nonzero()
    if not len(kept):
        raise ValueError("refused")
    return int(kept[0])


ALIKE = {
    "binomial tail (eenet; RC-EENN's LTT)": by(frugal, None),
    "betting (RC-EENN's UCB by WSR)": by(frugal),
    "Hoeffding-Bentkus (CALM)": learn_then_test(hoeffding_bentkus),
    "on average (eenet)": by(frugal, None, None),
    "on average (RC-EENN's CRC)": plain_mean,
}
"""Ways to promise a disagreement."""


class Population:
    """What each of a policy's rules does to all samples: the truth of every promise."""

    def __init__(self, policy, outputs):
        rules = [policy.at_point(u / (RULES - 1)) for u in range(RULES)]
        exits, quality = decide_all(rules, outputs.evidence()), outputs.answer_quality().double()
        costs, answers = outputs.relative_costs, outputs.logits.argmax(-1)
        self.spent = at_exits(costs, exits).mean(1)
        self.lossy = quality[-1] - at_exits(quality, exits)
        self.lost = self.lossy.mean(1)
        self.differs = at_exits((answers != answers[-1]).double(), exits)
        self.over = (at_exits(costs, exits) > float(costs[-2]) + 1e-9).double()

    def draw(self, choose, values, most, count):
        """Positions chosen from so many samples, in DRAWS draws, and how often none was."""
        generator, chosen = torch.Generator().manual_seed(0), []
        for _ in range(DRAWS):
            drawn = torch.randint(values.shape[1], (count,), generator=generator)
            with suppress(ValueError):
                chosen.append(choose(values[:, drawn], most))
        return chosen, DRAWS - len(chosen)


def promise_table(name, population):
    """Each promise over resamplings: how often broken, with its binomial error, at what cost."""
    kinds = [
        ("loss: betting (eenet)", by(frugal, -1.0), population.lossy, (0.01, 0.02)),
        ("loss: clipped at 0, Hoeffding-Bentkus (RC-EENN's LTT)",
         learn_then_test(lambda x, mean: hoeffding_bentkus(x.clamp_min(0), mean)),
         population.lossy, (0.01, 0.02)),
        ("loss: on average (eenet)", by(frugal, -1.0, None), population.lossy, (0.01, 0.02)),
        *((f"disagreement: {way}", choose, population.differs, (0.01, 0.02))
          for way, choose in ALIKE.items()),
        ("costs more than exit 2", by(last_kept, None), population.over, (0.05, 0.2)),
    ]  # fmt: skip
    print(f"\n{name}\n\n| promise | at most | samples | broken, % of {DRAWS} | 95% | refused | "
          "mean risk | mean accuracy lost | mean cost |\n" + "|---" * 9 + "|")  # fmt: skip
    for name, choose, values, promises in kinds:
        for most in promises:
            for count in (1000, 4000):
                chosen, refused = population.draw(choose, values, most, count)
                truth = values.mean(1)[chosen]
                broken = binomtest(int((truth > most).sum()), DRAWS)
                low, high = broken.proportion_ci()
                means = (
                    truth.mean(),
                    population.lost[chosen].mean(),
                    population.spent[chosen].mean(),
                )
                print(f"| {name} | {most} | {count} | {100 * broken.statistic:.1f} | "
                      f"{100 * low:.1f} to {100 * high:.1f} | {refused} | {means[0]:.4f} | "
                      f"{means[1]:.4f} | {means[2]:.3f} |", flush=True)  # fmt: skip


@matplotlib.rc_context(style.STYLE | {"svg.hashsalt": "eenet", "font.family": "sans-serif"})
def tightness(population, path):
    """Draws what ways to promise a disagreement cost beyond the rule that truly keeps it."""
    limits, counts = torch.linspace(0.004, 0.05, 24).tolist(), (1000, 4000)
    titles = [f"{count:,} calibration samples" for count in counts]
    figure, panels = style.panels_of(titles, 2, 3.4, sharey=True)
    true = population.differs.mean(1)
    least = np.interp(limits, true.flip(0).numpy(), population.spent.flip(0).numpy())
    for axes, count in zip(panels, counts, strict=True):
        for k, (way, choose) in enumerate(list(ALIKE.items())[:-1]):
            extra = []
            for limit, known in zip(limits, least, strict=True):
                chosen, refused = population.draw(choose, population.differs, limit, count)
                cost = math.nan if refused else float(population.spent[chosen].mean())
                extra.append(100 * (cost - float(known)))
            places = [100 * limit for limit in limits]
            axes.plot(
                places,
                extra,
                linewidth=1.5,
                color=style.COLORS[k],
                linestyle=style.DASHES[k],
                label=way,
            )
        axes.set_xlim(0, 5)
        axes.set_ylim(-0.5, 6)
        axes.set_xlabel("promised disagreement, %")
    panels[0].set_ylabel("extra cost, % of the full network")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    figure.savefig(path, facecolor="white", metadata={"Date": None, "Creator": None})


def coverage(policy, population):
    """How often the interval of an estimated budget holds the true loss."""
    generator = torch.Generator().manual_seed(0)
    quality, evidence, inside, above = (
        population.answer_quality().double(),
        population.evidence(),
        0,
        0,
    )
    draws = 100
    for _ in range(draws):
        drawn = torch.randint(population.num_samples, (2000,), generator=generator)
        asked = least_budget(policy, population.select(drawn), 0.01)
        exits = policy.at_fraction(asked.budget).decide(evidence)
        loss = float((quality[-1] - at_exits(quality, exits)).mean())
        inside += asked.interval[0] <= loss <= asked.interval[1]
        above += loss > 0.01
    print(f"\nEstimates of 2,000 samples for a loss of 0.01: the interval holds the true loss in "
          f"{inside} of {draws}, which is above 0.01 in {above}")  # fmt: skip


def first_ring(reference, stream, delta, size=64):
    alarm = Alarm(stream.shape[1], delta, reference)
    for n, part in enumerate(stream.split(size), 1):
        if alarm.update(part):
            return n * size
    return None


def alarm_tables(outputs: ExitOutputs):
    """False alarms over streams without drift, samples to detection with it."""
    first, labels = outputs.logits[0].float(), outputs.labels
    generator = torch.Generator().manual_seed(0)

    def draw(count, weights=None):
        weights = torch.ones(len(first)) if weights is None else weights
        return torch.multinomial(weights, count, replacement=True, generator=generator)

    print(f"\n| reference samples | delta | false alarms in {STREAMS} streams of {LENGTH} |\n"
          + "|---" * 3 + "|")  # fmt: skip
    for delta in (0.01, 0.1):
        for known in (0, 2000, 10_000):
            rung = 0
            for _ in range(STREAMS):
                reference = first[draw(known)] if known else None
                rung += first_ring(reference, first[draw(LENGTH)], delta) is not None
            print(f"| {known} | {delta} | {rung} |", flush=True)
    animals = torch.tensor([2, 3, 4, 5, 6, 7])  # of CIFAR-10
    drifts = {
        "logits times 0.8": lambda n: 0.8 * first[draw(n)],
        "logits times 0.9": lambda n: 0.9 * first[draw(n)],
        "noise of s.d. 1 on the logits": lambda n: (
            first[draw(n)] + torch.randn(n, first.shape[1], generator=generator)
        ),
        "animals twice as frequent": lambda n: first[draw(n, 1.0 + torch.isin(labels, animals))],
        "one class five times as frequent": lambda n: first[draw(n, 1.0 + 4 * (labels == 3))],
    }
    print("\n| drift | after | rung before | rung in 10,000 | samples to detection: median | 90% "
          "|\n" + "|---" * 6 + "|")  # fmt: skip
    for name, drifted in drifts.items():
        for before in (0, 5000):
            delays, early = [], 0
            for _ in range(40):
                stream = (
                    torch.cat([first[draw(before)], drifted(LENGTH)]) if before else drifted(LENGTH)
                )
                n = first_ring(first[draw(2000)], stream, 0.01)
                early += n is not None and n <= before
                delays.append(math.inf if n is None or n <= before else n - before)
            ranked = sorted(delays)
            print(f"| {name} | {before} | {early} | {sum(d < math.inf for d in delays)} of 40 | "
                  f"{ranked[20]} | {ranked[36]} |", flush=True)  # fmt: skip
    alarm, begun = Alarm(first.shape[1], 0.01, first), time.perf_counter()
    for part in first.split(1):
        alarm.update(part)
    print(f"\nThe alarm takes {1e6 * (time.perf_counter() - begun) / len(first):.1f} us a sample")


def main(path: str) -> None:
    """Prints Markdown tables."""
    torch.manual_seed(0)
    outputs = load_outputs(path)
    order = torch.randperm(outputs.num_samples, generator=torch.Generator().manual_seed(0))
    fit, population = (outputs.select(part) for part in order.tensor_split(2))
    policy, rival = EENetPlus().fit(fit), MaxProbability(common=True).fit(fit)
    print(f"{path}: policies fitted on {fit.num_samples} samples, {RULES} working points")
    populations = {
        "EENet+": Population(policy, population),
        "Max probability, one threshold": Population(rival, population),
    }
    for name, each in populations.items():
        promise_table(name, each)
    tightness(populations["EENet+"], sys.argv[2])
    coverage(policy, population)
    alarm_tables(outputs)


if __name__ == "__main__":
    main(sys.argv[1])
