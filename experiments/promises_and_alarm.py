"""Do the promises hold and does the alarm keep quiet? Resamplings and streams of real exit outputs.

python experiments/promises_and_alarm.py runs/cifar10-resnet56/stage1/outputs/test.safetensors

A random half of the outputs fits EENet+, the other half is the population: calibration samples and
streams are drawn from it with replacement, so that its means are the truth.
"""

import math
import sys
import time

import torch
from scipy.stats import binom

from eenet.metrics import least_budget
from eenet.outputs import ExitOutputs, load_outputs
from eenet.policies import Alarm, EENetPlus
from eenet.policies.base import decide_all
from eenet.policies.guarantee import cheapest_kept, last_kept
from eenet.policies.thresholds import at_exits

DELTA, DRAWS, STREAMS, LENGTH, RULES = 0.1, 500, 200, 10_000, 41


def hoeffding_bentkus(values, mean):
    """P-values `[M]` of CALM's choice (Bates et al. 2021, section 3.1.1), for values in [0, 1]."""
    count, average = values.shape[1], values.mean(1).clamp(max=mean)
    a = average.clamp(1e-12, 1 - 1e-12)
    divergence = a * (a / mean).log() + (1 - a) * ((1 - a) / (1 - mean)).log()
    successes = (count * values.mean(1)).ceil()
    bentkus = math.e * torch.as_tensor(binom.cdf(successes.numpy(), count, mean))
    return torch.minimum((-count * divergence).exp(), bentkus)


def promise_table(policy, population):
    """Each promise over resamplings: how often broken, and at what cost."""
    rules = [policy.at_point(u / (RULES - 1)) for u in range(RULES)]
    exits, quality = decide_all(rules, population.evidence()), population.answer_quality().double()
    costs, answers = population.relative_costs, population.logits.argmax(-1)
    spent = at_exits(costs, exits).mean(1)
    lost = quality[-1].mean() - at_exits(quality, exits).mean(1)
    differs = at_exits((answers != answers[-1]).double(), exits)

    def learn_then_test(test):
        def chosen(drawn, most):
            kept = test(differs[:, drawn].flip(0), most) <= DELTA
            if not kept[0]:
                raise ValueError("refused")
            return RULES - int(kept.int().cumprod(0).sum())

        return chosen

    lossy = quality[-1] - at_exits(quality, exits)
    tail = (at_exits(costs, exits) > float(costs[-2]) + 1e-9).double()

    def by(choose, values, low, delta):
        def chosen(drawn, most):
            return choose(rules, values[:, drawn], (low, 1.0), "promise", most, delta).position

        return chosen

    def frugal(rules, values, bounds, _, most, delta):
        return cheapest_kept(rules, values, bounds, most, delta)

    kinds = {
        "loss": (by(frugal, lossy, -1.0, DELTA), lost, (0.01, 0.02)),
        "loss on average": (by(frugal, lossy, -1.0, None), lost, (0.01, 0.02)),
        "disagreement": (by(frugal, differs, 0.0, DELTA), differs.mean(1), (0.01, 0.02)),
        "disagreement, by CALM's p-value": (
            learn_then_test(hoeffding_bentkus), differs.mean(1), (0.01, 0.02)
        ),
        "disagreement on average": (by(frugal, differs, 0.0, None), differs.mean(1), (0.01, 0.02)),
        "costs more than exit 2": (by(last_kept, tail, 0.0, DELTA), tail.mean(1), (0.05, 0.2)),
    }  # fmt: skip
    print(f"\n| promise | at most | calibration samples | broken in {DRAWS} | refused | mean risk |"
          " mean accuracy lost | mean cost |\n" + "|---" * 8 + "|")  # fmt: skip
    for name, (choose, truth, promises) in kinds.items():
        for most in promises:
            for count in (1000, 4000):
                generator, chosen, refused = torch.Generator().manual_seed(0), [], 0
                for _ in range(DRAWS):
                    drawn = torch.randint(len(quality[0]), (count,), generator=generator)
                    try:
                        chosen.append(choose(drawn, most))
                    except ValueError:
                        refused += 1
                broken = int((truth[chosen] > most).sum())
                means = [float(x[chosen].mean()) for x in (truth, lost, spent)]
                print(f"| {name} | {most} | {count} | {broken} | {refused} | {means[0]:.4f} | "
                      f"{means[1]:.4f} | {means[2]:.3f} |", flush=True)  # fmt: skip


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
    policy = EENetPlus().fit(fit)
    print(f"{path}: EENet+ fitted on {fit.num_samples} samples, {RULES} working points")
    promise_table(policy, population)
    coverage(policy, population)
    alarm_tables(outputs)


if __name__ == "__main__":
    main(sys.argv[1])
