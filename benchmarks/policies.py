"""Every exit policy on frozen exit outputs of networks at published accuracy.

Each half of a network's test samples is decided for by what was fitted on the other. Prints the
area of each policy, and at how many of 16 budgets EENet+ is better and worse beyond a simultaneous
95% interval; everything else of `eenet compare` is written for each network.

    python benchmarks/policies.py                          # all policies, all networks
    python benchmarks/policies.py --policies+ mine.Policy  # yours among them
"""

import contextlib
import io
import json
import platform
import sys
import time
from pathlib import Path

import torch
from common import table

from eenet.cli.compare import main as compare

FOLDER = Path(__file__).with_name("outputs")
WRITTEN = Path("runs/bench-policies")


def main(words: list[str]) -> None:
    begun, found = time.perf_counter(), {}
    for path in sorted(FOLDER.glob("*.safetensors")):
        print(f"{path.stem} ...", file=sys.stderr)
        here = ["--val", str(path), "--split", "true", "--output", str(WRITTEN / path.stem)]
        with contextlib.redirect_stdout(io.StringIO()):
            compare([*here, "--seeds", "1", *words])
        result = json.loads((WRITTEN / path.stem / "compare.json").read_text(encoding="utf-8"))
        found[f"{path.stem} ({100 * result['full_quality']:.2f})"] = {
            policy.pop("policy"): policy for policy in result["policies"]
        }
    labels = {label for areas in found.values() for label in areas}
    mean = {x: sum(areas[x]["area"] for areas in found.values()) / len(found) for x in labels}
    rows = [
        [label, *(_cell(areas[label]) for areas in found.values()), f"{100 * mean[label]:.2f}"]
        for label in sorted(labels, key=lambda label: -mean[label])
    ]
    print(
        f"\nArea in % (budgets at which the reference is better / worse); {platform.machine()}, "
        f"torch {torch.__version__}, {time.perf_counter() - begun:.0f} s\n"
    )
    table(["policy", *found, "mean"], rows)


def _cell(policy: dict[str, float]) -> str:
    return f"{100 * policy['area']:.2f} ({policy['ahead']} / {policy['behind']})"


if __name__ == "__main__":
    main(sys.argv[1:])
