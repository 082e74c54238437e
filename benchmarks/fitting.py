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

from eenet.data.outputs import load_outputs, save_outputs
from eenet.scheduling import ExitOutputs
from eenet.scheduling.policy import score_exits
from eenet.scheduling.thresholds import at_exits, first_exit, quota_thresholds, tilt


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


def evaluate_by_sample(scores, thresholds, costs, right):
    """Mean quality and cost of each list of thresholds, one sample after the other."""
    results = []
    for these in thresholds:
        cost = quality = 0.0
        for n in range(len(scores[0])):
            k = next(k for k in range(len(these)) if scores[k][n] >= these[k])
            cost += costs[k]
            quality += right[k][n]
        results.append((quality / len(scores[0]), cost / len(scores[0])))
    return results


def evaluate(scores, thresholds, costs, quality):
    exits = torch.stack([first_exit(scores, these) for these in thresholds])
    return at_exits(quality, exits).mean(1), at_exits(costs, exits).double().mean(1)


def collecting(predictor, batches, costs, folder):
    logits = []
    with torch.inference_mode():
        for batch in batches:
            logits.append(predictor.net(batch).float().transpose(0, 1).cpu())
    save_outputs(ExitOutputs(costs, torch.cat(logits).transpose(0, 1)), folder / "out.safetensors")


def passes(predictor, batches):
    with torch.inference_mode():
        for batch in batches:
            predictor.net(batch)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--budgets", type=int, default=16, help="working points evaluated")
    arguments = options.parse_args()
    predictor, x, y = load(arguments)
    conditions(arguments, predictor)
    outputs = load_outputs(f"{arguments.run_dir}/stage1/outputs/test.safetensors")
    quality, costs = outputs.answer_quality(), outputs.costs
    policy = predictor.policy.cpu()
    scores = score_exits(policy.at(arguments.budget * predictor._scale).scorer, outputs.evidence())
    scores[-1] = float("inf")
    uniform = torch.ones(len(scores))
    candidates = [tilt(uniform, s) for s in torch.linspace(-3, 3, 64).tolist()]
    thresholds = [
        quota_thresholds(scores, shares) for shares in candidates[:: 64 // arguments.budgets]
    ]
    plain = {
        "scores": scores.tolist(),
        "thresholds": [these.tolist() for these in thresholds],
        "right": quality.tolist(),
        "costs": costs.tolist(),
    }
    rows = []
    rounds = arguments.rounds
    times = interleaved(
        rounds,
        tensors=lambda: [quota_thresholds(scores, shares) for shares in candidates],
        python=lambda: [thresholds_by_sample(plain["scores"], s.tolist()) for s in candidates],
    )
    rows.append(
        ["thresholds", *[1e3 * min(t) for t in times.values()], ratio(times, "python", "tensors")]
    )
    slow = evaluate_by_sample(plain["scores"], plain["thresholds"], plain["costs"], plain["right"])
    fast = evaluate(scores, thresholds, costs, quality)
    torch.testing.assert_close(torch.tensor(slow).T[0], fast[0], atol=1e-5, rtol=1e-5)
    times = interleaved(
        rounds,
        tensors=lambda: evaluate(scores, thresholds, costs, quality),
        python=lambda: evaluate_by_sample(
            plain["scores"], plain["thresholds"], plain["costs"], plain["right"]
        ),
    )
    name = f"policy evaluation, {len(thresholds)} budgets, {scores.shape[1]} samples"
    rows.append([name, *[1e3 * min(t) for t in times.values()], ratio(times, "python", "tensors")])
    table(["task", "tensors ms", "per-sample Python ms", "ratio"], rows)

    start = time.perf_counter()
    policy.fit(load_outputs(f"{arguments.run_dir}/stage1/outputs/val.safetensors"))
    print(f"\nclosed-form fit and calibration: {time.perf_counter() - start:.2f} s\n")

    batches = cut(x, len(y), 256)
    with tempfile.TemporaryDirectory() as folder:
        times = interleaved(
            rounds,
            passes=lambda: passes(predictor, batches),
            collecting=lambda: collecting(predictor, batches, costs, Path(folder)),
        )
    table(
        ["collecting s", "forward passes s", "ratio"],
        [[min(times["collecting"]), min(times["passes"]), ratio(times, "collecting", "passes")]],
    )


if __name__ == "__main__":
    main()
