"""Mean, spread and budget accuracy of several pipeline runs that differ in their seed alone.

python experiments/summarise.py runs/fashion-mnist-0 runs/fashion-mnist-1 runs/fashion-mnist-2
"""

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path


def main(runs: list[str]) -> None:
    """Prints a Markdown table and how well the budgets held."""
    curves = [json.loads((Path(run) / "stage2" / "curve.json").read_text()) for run in runs]
    quality, cost = defaultdict(list), defaultdict(list)
    scores: dict[str, list[float]] = defaultdict(list)
    deviations: dict[str, list[float]] = defaultdict(list)
    for curve in curves:
        for row in curve["rows"]:
            key = row["policy"], round(row["budget"], 4)
            quality[key].append(100 * row["quality"])
            cost[key].append(row["cost"])
            scores[row["policy"]].append(row["z"])
            deviations[row["policy"]].append(row["cost"] / row["expected_cost"] - 1)
    policies = list(scores)
    print(f"{len(runs)} seeds, {curves[0]['samples']} test samples each; accuracy in %, mean and")
    print("standard deviation over the seeds (mean cost used, as a fraction of the full network)\n")
    exits = list(zip(*(curve["exit_quality"] for curve in curves), strict=True))
    fractions = [c / curves[0]["exit_costs"][-1] for c in curves[0]["exit_costs"]]
    for k, (values, fraction) in enumerate(zip(exits, fractions, strict=True)):
        text = _spread([100 * value for value in values])
        print(f"- exit {k + 1}: {text} % at {fraction:.3f} of the cost")
    print("\n| budget | " + " | ".join(policies) + " |")
    print("|---" * (1 + len(policies)) + "|")
    for budget in sorted({budget for _, budget in quality}):
        cells = [
            f"{_spread(quality[p, budget])} ({statistics.mean(cost[p, budget]):.3f})"
            for p in policies
        ]
        print(f"| {budget:.2f} | " + " | ".join(cells) + " |")
    print("\nCost used on test against the cost expected, in standard errors of both samples:\n")
    print("| policy | within 2 s.e. | mean z | mean relative deviation |")
    print("|---|---|---|---|")
    for policy in policies:
        _print_budgets(policy, scores[policy], deviations[policy])
    every_z = [value for values in scores.values() for value in values]
    every_deviation = [value for values in deviations.values() for value in values]
    _print_budgets("all", every_z, every_deviation)


def _print_budgets(policy: str, z: list[float], deviation: list[float]) -> None:
    inside = sum(abs(value) <= 2 for value in z)
    print(
        f"| {policy} | {inside} of {len(z)} | {statistics.mean(z):+.2f} | "
        f"{100 * statistics.mean(deviation):+.2f} % |"
    )


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"


if __name__ == "__main__":
    main(sys.argv[1:])
