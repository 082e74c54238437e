"""Draws the curves of the results page: accuracy against cost of a few policies and the oracle.

    python experiments/curves.py cifar10-resnet56=benchmarks/outputs/cifar10-resnet56.safetensors \
        cifar10-resnet20=benchmarks/outputs/cifar10-resnet20.safetensors agnews-minilm=RUN_DIR

Writes docs/images/curve-NAME.svg for each NAME=SOURCE. A source is a finished run, or a file of
exit outputs, of which each half is decided by what was fitted on the other.
"""

import json
import sys
import tempfile
from pathlib import Path

import matplotlib

from eenet.cli.compare import main as compare
from eenet.plotting import style
from eenet.plotting.rows import by_policy, column

IMAGES = Path(__file__).parents[1] / "docs" / "images"
POLICIES = ["eenet+", "eenet", "max_prob_common", "max_prob", "random"]


@matplotlib.rc_context(style.STYLE | {"svg.hashsalt": "eenet", "font.family": "sans-serif"})
def draw(name: str, source: str) -> None:
    words = ["--val", source, "--split", "true"] if Path(source).is_file() else [source]
    with tempfile.TemporaryDirectory() as folder:
        words += ["--seeds", "1", "--policies", json.dumps(POLICIES), "--output", folder]
        compare(words)
        result = json.loads(Path(folder, "compare.json").read_text(encoding="utf-8"))
    rows, bounds = by_policy(result["rows"]), result["bounds"]
    figure, (axes,) = style.panels_of([""], 1, 4.2)
    axes.plot(bounds["cost"], bounds["oracle"], color=style.GREY, linewidth=1.2, label="oracle")
    for index, label in enumerate(POLICIES):
        points = rows[label]
        style.draw_curve(axes, index, label, column(points, "budget"), column(points, "quality"))
    style.finish_curves(axes, result["exit_costs"], result["exit_quality"], "test accuracy")
    lowest = min(column(result["rows"], "quality"))
    axes.set_ylim(lowest - 0.01, max(bounds["oracle"]) + 0.01)
    path = IMAGES / f"curve-{name}.svg"
    figure.savefig(path, facecolor="white", metadata={"Date": None, "Creator": None})
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":  # `compare` starts processes, which import this file
    for word in sys.argv[1:]:
        draw(*word.split("=", 1))
