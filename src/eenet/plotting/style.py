"""The look of all figures, and the accuracy-vs-budget figure."""

import math
import zlib
from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from eenet.files import atomic
from eenet.plotting.rows import Row, by_policy, column

# Okabe and Ito's palette, which the color-blind can tell apart; line styles repeat the message.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*", "h"]
DASHES: list[Any] = [
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1, 1, 1, 1, 1)),
    (0, (3, 1)),
    "-",
    (0, (1, 1)),
    (0, (7, 2)),
]
LABELS = ["eenet+", "eenet", "maml_stop", "jei_dnn", "temperature", "max_prob", "entropy", "margin"]
LABELS += ["vote", "patience", "random", "beem", "ztw"]
"""Policies whose look is fixed, the same in every figure."""
INK = "#333333"
GREY = "#8C8C8C"
BAND = "#D8D8D8"
DOTTED: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1.2}
STYLE: dict[Any, Any] = dict.fromkeys(("text.color", "axes.labelcolor"), INK)
STYLE |= dict.fromkeys(("xtick.color", "ytick.color"), INK)
STYLE |= dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False)
STYLE |= dict.fromkeys(("axes.titlesize", "figure.titlesize", "figure.labelsize"), 10)
STYLE |= {"axes.titlelocation": "left", "legend.fontsize": 9, "figure.dpi": 150}
STYLE |= {"pdf.fonttype": 42, "svg.fonttype": "none"}  # text stays text
STYLE |= {"axes.grid": True, "grid.alpha": 0.25, "grid.linewidth": 0.6}
"""Matplotlib's settings, for drawing and for writing: ticks are made when they are written."""


@matplotlib.rc_context(STYLE)
def plot_curves(
    rows: list[Row], exit_costs: list[float], exit_quality: list[float], measure: str
) -> Figure:
    """Quality against the cost used, one line for each policy with a standard error around it.

    Args:
        rows: From `eenet.plotting.rows.curve_rows`.
        exit_costs: Cost of each exit as a fraction of the last one's.
        exit_quality: Quality when every sample leaves at that exit.
        measure: What to call the quality.
    """
    figure, (axes,) = panels_of([""], 1, 5.0)
    for index, (label, own) in enumerate(by_policy(rows).items()):
        band = [[r["quality"] + sign * r["quality_se"] for r in own] for sign in (-1, 1)]
        draw_curve(axes, index, label, column(own, "cost"), column(own, "quality"), band)
    finish_curves(axes, exit_costs, exit_quality, f"test {measure} (band: \u00b1 1 standard error)")
    return figure


@matplotlib.rc_context(STYLE)
def save_figure(figure: Figure, *paths: Path) -> None:
    """Writes a figure atomically; the formats are the paths' endings."""
    for path in paths:
        with atomic(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], facecolor="white")


def panels_of(titles: list[str], columns: int, height: float, **how: Any) -> tuple[Figure, Any]:
    """A figure of one panel for each title, in rows of at most `columns`, `height` inches each."""
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(7.2, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **how).flatten().tolist()
    for axes, title in zip_longest(panels, titles):
        axes.set_title(title or "")
        axes.set_visible(title is not None)
    return figure, panels[: len(titles)]


def look(label: str) -> dict[str, Any]:
    """Color, marker and dashes of a policy's line, the same in all figures.

    There is one marker more than there are colors, so labels that share one differ in the other.
    A policy under one common threshold looks like the policy, with open markers.
    """
    label, common = label.removesuffix("_common"), label.endswith("_common")
    known = label in LABELS
    index = LABELS.index(label) if known else len(LABELS) + zlib.crc32(label.encode())
    place = index % len(MARKERS)
    own = {"color": COLORS[index % len(COLORS)]}
    own |= {"marker": MARKERS[place], "linestyle": DASHES[place]}
    own |= {"markerfacecolor": "white"} if common else {}
    return own | {"linewidth": 1.7, "markersize": 5}


def draw_curve(
    axes: Any, index: int, label: str, x: Any, y: Any, band: Any = None, **how: Any
) -> None:
    """The line of a policy, the first on top, and a band between two others around it."""
    if band is not None:
        alpha = 0.07 if index else 0.14
        axes.fill_between(x, *band, color=look(label)["color"], alpha=alpha, linewidth=0)
    axes.plot(x, y, label=label, zorder=4 - 0.1 * index, **look(label) | how)


def finish_curves(
    axes: Any, exit_costs: list[float], exit_quality: list[float], measure: str
) -> None:
    """Marks fixed exits by crosses and the full network by a dotted line; labels and legend.

    The legend stands below, since with few samples curves and bands leave no corner free.
    """
    full = exit_quality[-1]
    axes.axhline(full, zorder=1, **DOTTED)
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(f"full network {full:.2%}", (0.01, full), (0, 4), fontsize=9, **place)
    crosses = {"color": INK, "markersize": 7, "label": "one exit for all", "zorder": 2}
    axes.plot(exit_costs, exit_quality, "x", **crosses)
    axes.yaxis.set_major_formatter(percent)
    axes.set_xlabel("average cost per sample (fraction of the full network)")
    axes.set_ylabel(measure)
    legend_below(axes.figure, axes, 3)


def percent(share: float, _: Any = None) -> str:
    """The text of an axis at a share."""
    return f"{100 * share + 0.0:.4g}%".replace("-", "\u2212")


def legend_below(figure: Figure, axes: Any, columns: int = 6) -> None:
    """One legend for all panels, that of one of them."""
    lines = axes.get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=columns, handlelength=3)


def cells(axes: Any, names: list[str], values: list[list[float]], reach: float, form: str) -> None:
    """A table of cells, by name and exit: blue if positive, orange if not, strongest at `reach`."""
    for row, numbers in enumerate(values):
        for k, x in enumerate(numbers):
            if math.isfinite(x):
                color, alpha = COLORS[x < 0], 0.6 * min(1, abs(x) / reach)
                place = (k - 0.48, row - 0.46), 0.96, 0.92
                axes.add_patch(Rectangle(*place, color=color, alpha=alpha, linewidth=0))
                text = form.format(round(x, 2) + 0.0).replace("-", "\u2212")
                axes.text(k, row, text, ha="center", va="center", fontsize=8)
    exits = range(len(values[0]))
    axes.set_xticks(exits, [f"exit {k + 1}" for k in exits])
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])
    axes.set(xlim=(-0.5, len(exits) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def exit_colors(count: int) -> list[str]:
    """One color for each exit, light to dark, told apart in grey too."""
    places = [0.86 - 0.6 * k / max(count - 1, 1) for k in range(count)]
    return [matplotlib.colors.to_hex(matplotlib.colormaps["viridis"](x)) for x in places]
