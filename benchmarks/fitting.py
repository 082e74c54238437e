"""Tensor code against a straightforward loop over samples (c), and collecting outputs (d).

(c) The thresholds of EENet's section 3.3 for one budget (64 candidate exit distributions), and the
evaluation of a policy at all budgets, each against the plain Python that does it sample by sample;
results are compared. (d) What `eenet predict` does to collect exit outputs, against the passes of
the network alone.
"""

import tempfile
import time
from pathlib import Path

import torch
from common import conditions, cut, interleaved, load, parser, ratio, table

from eenet.outputs import Evidence, load_outputs
from eenet.outputs.writer import OutputsWriter
from eenet.policies.base import score_exits
from eenet.policies.thresholds import at_exits, quota_thresholds, tilt


def thresholds_by_sample(scores, shares):
    """Section 3.3 in plain Python: at each exit the best of those still there leave."""
    exits, samples = len(scores), len(scores[0])
    left, gone, thresholds = set(), 0.0, []
    for k in range(exits - 1):
        gone += shares[k]
        wanted = round(gone * samples) - len(left)
        order = sorted((n for n in range(samples) if n not in left), key=lambda n: -scores[k][n])
        thresholds.append(scores[k][order[wanted - 1]] if wanted > 0 else float("inf"))
        left |= {n for n in order if scores[k][n] >= thresholds[-1]}
    return [*thresholds, float("-inf")]


def evaluate_by_sample(rules, outputs):
    """Mean quality and cost of each rule, one sample after the other, exit by exit."""
    results = []
    for rule in rules:
        cost = quality = 0.0
        for n in range(outputs.num_samples):
            state = None
            for k in range(outputs.num_exits):
                evidence = Evidence.from_logits(outputs.logits[k, n : n + 1])
                score, state = rule.scorer.step(k, evidence, state)
                if k == outputs.num_exits - 1 or score.item() >= rule.thresholds[k].item():
                    cost += outputs.costs[k].item()
                    quality += float(outputs.logits[k, n].argmax() == outputs.labels[n])
                    break
        results.append((quality / outputs.num_samples, cost / outputs.num_samples))
    return results


def evaluate(rules, outputs):
    """The same on all samples at once."""
    evidence, quality = outputs.evidence(), outputs.answer_quality()
    exits = torch.stack([rule.decide(evidence) for rule in rules])
    return at_exits(quality, exits).mean(1), at_exits(outputs.costs, exits).double().mean(1)


def collecting(predictor, batches, costs, folder):
    writer = None
    with torch.inference_mode():
        for batch in batches:
            fields = {"logits": predictor.net(batch).float().transpose(0, 1).cpu()}
            if writer is None:
                path, samples = folder / "out.safetensors", sum(map(len, batches))
                writer = OutputsWriter.lay_out(path, samples, fields, costs, {})
            writer.write(fields)
    writer.flush()
    writer.finish()


def passes(predictor, batches):
    with torch.inference_mode():
        for batch in batches:
            predictor.net(batch)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--budgets", type=float, nargs="+", default=[0.3, 0.5, 0.7])
    options.add_argument("--few", type=int, default=2000, help="samples of the evaluation")
    arguments = options.parse_args()
    predictor, x, y = load(arguments)
    conditions(arguments, predictor)
    outputs = load_outputs(f"{arguments.run_dir}/stage1/outputs/test.safetensors")
    policy = predictor.policy.cpu()
    scores = score_exits(policy.at_fraction(arguments.budget).scorer, outputs.evidence())
    uniform = torch.ones(len(scores))
    candidates = [tilt(uniform, s) for s in torch.linspace(-3, 3, 64).tolist()]
    rules = [policy.at_fraction(b) for b in arguments.budgets]
    plain, rounds, rows = scores.tolist(), arguments.rounds, []
    # Plain Python on everything would take minutes: fewer samples, for both.
    few = outputs.select(torch.arange(min(arguments.few, outputs.num_samples)))
    torch.testing.assert_close(
        torch.tensor(evaluate_by_sample(rules, few)).T.double(),
        torch.stack([x.double() for x in evaluate(rules, few)]),
    )
    contests = {
        f"thresholds, {len(candidates)} exit distributions, {scores.shape[1]} samples": (
            lambda: [quota_thresholds(scores, shares) for shares in candidates],
            lambda: [thresholds_by_sample(plain, shares.tolist()) for shares in candidates],
        ),
        f"policy evaluation, {len(rules)} budgets, {few.num_samples} samples": (
            lambda: evaluate(rules, few),
            lambda: evaluate_by_sample(rules, few),
        ),
    }
    for name, (tensors, python) in contests.items():
        times = interleaved(rounds, tensors=tensors, python=python)
        milliseconds = [1e3 * min(t) for t in times.values()]
        rows.append([name, *milliseconds, ratio(times, "python", "tensors")])
    table(["task", "tensors ms", "per-sample Python ms", "ratio"], rows)

    start = time.perf_counter()
    policy.fit(load_outputs(f"{arguments.run_dir}/stage1/outputs/val.safetensors"))
    print(f"\nclosed-form fit and calibration: {time.perf_counter() - start:.2f} s\n")

    batches = cut(x, len(y), 256)
    with tempfile.TemporaryDirectory() as folder:
        times = interleaved(
            rounds,
            passes=lambda: passes(predictor, batches),
            collecting=lambda: collecting(predictor, batches, outputs.costs, Path(folder)),
        )
    table(
        ["collecting s", "forward passes s", "ratio"],
        [[min(times["collecting"]), min(times["passes"]), ratio(times, "collecting", "passes")]],
    )


if __name__ == "__main__":
    main()
