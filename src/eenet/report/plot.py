"""The accuracy-vs-budget figure, and what all figures share."""

import math
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from eenet.files import atomic
from eenet.report.table import Row

# Okabe and Ito's palette, which the colour-blind can tell apart; line styles repeat the message.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
INK = "#333333"
GREY = "#8C8C8C"
DASHES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)), "-"]


def plot_curves(
    rows: list[Row], exit_costs: list[float], exit_quality: list[float], measure: str
) -> Figure:
    """Quality against the cost used, one line for each policy.

    Args:
        rows: From `eenet.report.table.curve_rows`.
        exit_costs: Cost of each exit as a fraction of the last one's.
        exit_quality: Quality when every sample leaves at that exit.
        measure: What to call the quality.

    Returns:
        The figure, with the fixed exits as crosses and the full network as a dotted line.
    """
    figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    mark_exits(axes, exit_costs, exit_quality)
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    for index, policy in enumerate(policies):
        own = [row for row in rows if row["policy"] == policy]
        colour = COLOURS[index % len(COLOURS)]
        axes.errorbar(
            [row["cost"] for row in own],
            [100 * row["quality"] for row in own],
            yerr=[100 * row["quality_se"] for row in own],
            label=policy,
            color=colour,
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            linewidth=1.6,
            elinewidth=0.8,
            zorder=3,
        )
    style(axes)
    axes.set_xlabel("average cost per sample (fraction of the full network)")
    axes.set_ylabel(f"test {measure} (%)")
    axes.legend(frameon=False, loc="lower right")
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a figure atomically; the format is the path's ending."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix[1:], facecolor="white")


def mark_exits(axes: Any, exit_costs: list[float], exit_quality: list[float]) -> None:
    """Fixed exits as crosses, and the full network as a dotted line."""
    full = 100 * exit_quality[-1]
    axes.axhline(full, color="#999999", linestyle=":", linewidth=1.2, zorder=1)
    axes.annotate(
        f"full network {full:.2f} %",
        (0.01, full),
        xycoords=("axes fraction", "data"),
        xytext=(0, 4),
        textcoords="offset points",
        color=INK,
        fontsize=9,
    )
    axes.plot(
        exit_costs,
        [100 * quality for quality in exit_quality],
        "x",
        color=INK,
        markersize=7,
        label="one exit for all",
        zorder=2,
    )


def style(axes: Any) -> None:
    """The house style: a faint grid, no box."""
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK)


def panels_of(count: int, columns: int, height: float, **how: Any) -> tuple[Figure, list[Any]]:
    """A figure of `count` panels in rows of at most `columns`."""
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (7.2, height * rows)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **how).flatten().tolist()
    for axes in grid:
        style(axes)
        axes.set_visible(False)
    for axes in grid[:count]:
        axes.set_visible(True)
    return figure, grid[:count]


def look(index: int) -> dict[str, Any]:
    """How the line of a policy looks: a colour, a marker and dashes of its own."""
    index %= len(COLOURS)
    own = {"color": COLOURS[index], "marker": MARKERS[index], "linestyle": DASHES[index]}
    return own | {"linewidth": 1.7, "markersize": 5}


def legend_below(figure: Figure, axes: Any) -> None:
    """One legend for all panels, that of one of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=9)


def cells(axes: Any, values: list[list[float]], reach: float, form: str) -> None:
    """A table of coloured cells: blue by how much is positive, orange for negative, of `reach`."""
    for row, numbers in enumerate(values):
        for k, x in enumerate(numbers):
            if math.isfinite(x):
                colour, alpha = COLOURS[x < 0], 0.6 * min(1, abs(x) / reach)
                place = (k - 0.48, row - 0.46), 0.96, 0.92
                axes.add_patch(Rectangle(*place, color=colour, alpha=alpha, linewidth=0))
                text = form.format(round(x, 2) + 0.0).replace("-", "\u2212")
                axes.text(k, row, text, ha="center", va="center", fontsize=8, color=INK)
    axes.set_xlim(-0.5, len(values[0]) - 0.5)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def exit_colours(count: int) -> list[str]:
    """One colour for each exit, light to dark, told apart in grey too."""
    places = [0.86 - 0.6 * k / max(count - 1, 1) for k in range(count)]
    return [matplotlib.colors.to_hex(matplotlib.colormaps["viridis"](x)) for x in places]
