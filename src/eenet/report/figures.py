"""The figures of the report, each from the numbers of `report_data`."""

import math
import textwrap
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from eenet.report.examples import opened
from eenet.report.plot import COLOURS, INK, MARKERS, mark_exits, style

GREY = "#8C8C8C"
DASHES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)), "-"]
RIGHT, WRONG = COLOURS[0], COLOURS[4]
_BUDGET = "average cost per sample (fraction of the full network)"
Data = dict[str, Any]


def figures(data: Data) -> dict[str, Figure]:
    """All figures that the data allow, by the name of their files."""
    drawn = {
        "curves": _curves(data),
        "shares": _shares(data),
        "exit-quality": _exit_quality(data),
        "scores": _scores(data),
        "classes": _classes(data),
        "examples": _examples(data),
        "reliability": _reliability(data),
        "weights": _weights(data),
        "control": _control(data),
        "promises": _promises(data),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def exit_colours(count: int) -> list[str]:
    """One colour for each exit, light to dark, told apart in grey too."""
    places = [0.86 - 0.6 * k / max(count - 1, 1) for k in range(count)]
    return [matplotlib.colors.to_hex(matplotlib.colormaps["viridis"](x)) for x in places]


def at_budget(policy: Data, budget: float) -> int:
    """Position of a policy's dearest working point within a budget."""
    return max(i for i, b in enumerate(policy["budget"]) if i == 0 or b <= budget + 1e-9)


def _panels(count: int, columns: int, height: float, **how: Any) -> tuple[Figure, list[Any]]:
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


def _look(index: int) -> dict[str, Any]:
    look = {
        "color": COLOURS[index % 7],
        "marker": MARKERS[index % 7],
        "linestyle": DASHES[index % 7],
    }
    return look | {"linewidth": 1.7, "markersize": 5}


def _curves(data: Data) -> Figure:
    figure, (axes,) = _panels(1, 1, 4.5)
    grid = data["grid"]
    axes.plot(grid, 100 * data["oracle"], color=GREY, linewidth=1.2, label="oracle")
    axes.plot(grid, 100 * data["floor"], ":", color=GREY, linewidth=1.6, label="random exits")
    for index, (label, curve) in enumerate(data["curves"].items()):
        look, order = _look(index), curve["cost"].argsort()
        cost, quality, low, high = (
            (1 if name == "cost" else 100) * curve[name][order]
            for name in ("cost", "quality", "low", "high")
        )
        asked = [i for i, b in enumerate(curve["budget"][order]) if _is_in(b, data["budgets"])]
        axes.fill_between(
            cost, low, high, color=look["color"], alpha=0.07 if index else 0.14, linewidth=0
        )
        axes.plot(cost, quality, label=label, markevery=asked, zorder=4 - 0.1 * index, **look)
    mark_exits(axes, data["exit_costs"].tolist(), data["exit_quality"].tolist())
    # The floor and wide intervals at the first exit may lie far below all that is of interest.
    shown = [100 * float(c["quality"].min()) for c in data["curves"].values()]
    bottom, top = min(shown), 100 * float(data["oracle"].max())
    axes.set_ylim(bottom - 0.05 * (top - bottom), top + 0.1 * (top - bottom))
    axes.set_xlabel(_BUDGET)
    axes.set_ylabel(f"{data['measure']} (%)")
    axes.legend(frameon=False, loc="lower right", fontsize=9, handlelength=3)
    return figure


def _is_in(budget: float, budgets: list[float]) -> bool:
    return any(abs(float(budget) - b) < 1e-6 for b in budgets)


def _shares(data: Data) -> Figure:
    policies, colours = data["policies"], exit_colours(len(data["exit_costs"]))
    figure, panels = _panels(len(policies), 4 if len(policies) == 4 else 3, 2.3, sharey=True)
    budgets = data["budgets"]
    width = 0.86 * min([b - a for a, b in pairwise(budgets)] or [0.1])
    for axes, (label, policy) in zip(panels, policies.items(), strict=True):
        points = [at_budget(policy, b) for b in budgets]
        below = [0.0] * len(points)
        for k, colour in enumerate(colours):
            heights = [float(policy["shares"][i][k]) for i in points]
            axes.bar(budgets, heights, width, below, color=colour, label=f"exit {k + 1}")
            below = [a + b for a, b in zip(below, heights, strict=True)]
        axes.set_title(label, fontsize=10, loc="left", color=INK)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("budget", fontsize=9)
        axes.grid(visible=False)
    _legend_below(figure, panels[0])
    return figure


def _legend_below(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=9)


def _exit_quality(data: Data) -> Figure:
    policies, exits = data["policies"], len(data["exit_costs"])
    figure, panels = _panels(exits, 2, 2.2, sharey=True, sharex=True)
    for k, axes in enumerate(panels):
        for index, (label, policy) in enumerate(policies.items()):
            points = [at_budget(policy, b) for b in data["budgets"]]
            enough = [float(policy["shares"][i][k]) * data["samples"] >= 10 for i in points]
            values = [
                100 * float(policy["exit_quality"][i][k]) if good else math.nan
                for i, good in zip(points, enough, strict=True)
            ]
            axes.plot(data["budgets"], values, label=label, **_look(index))
        mean = 100 * float(data["exit_quality"][k])
        axes.axhline(mean, color=GREY, linestyle=":", linewidth=1.2, label="all samples")
        axes.set_title(f"exit {k + 1}", fontsize=10, loc="left", color=INK)
    for axes in panels[-2:]:
        axes.set_xlabel("budget")
    figure.supylabel(f"{data['measure']} of who leaves here (%)", fontsize=10, color=INK)
    _legend_below(figure, panels[0])
    return figure


def _scores(data: Data) -> Figure | None:
    exits = len(data["exit_costs"]) - 1
    if not exits:
        return None
    policy = data["policies"][data["reference"]]
    i = at_budget(policy, data["budget"])
    figure, panels = _panels(exits, 3, 2.4, sharex=True)
    bins = len(policy["right"][i][0])
    places = [(b + 0.5) / bins for b in range(bins)]
    for k, axes in enumerate(panels):
        right, wrong = policy["right"][i][k].tolist(), policy["wrong"][i][k].tolist()
        axes.bar(places, right, 0.9 / bins, color=RIGHT, label="right")
        axes.bar(places, wrong, 0.9 / bins, right, color=WRONG, label="wrong")
        cut = float(policy["thresholds"][i][k])
        axes.axvline(cut, color=INK, linewidth=1.6, linestyle="--", label="threshold")
        axes.set_title(f"exit {k + 1}", fontsize=10, loc="left", color=INK)
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("score (rank)", fontsize=9)
    panels[0].set_ylabel("samples that get here")
    figure.suptitle(_setting(data), fontsize=10, color=INK)
    _legend_below(figure, panels[0])
    return figure


def _setting(data: Data) -> str:
    return f"{data['reference']} at budget {data['budget']:.2f}"


def _classes(data: Data) -> Figure | None:
    if data["class_order"] is None:
        return None
    policy = data["policies"][data["reference"]]
    shares = policy["classes"][at_budget(policy, data["budget"])]
    names = [textwrap.shorten(data["classes"][c], 28) for c in data["class_order"].tolist()]
    exits = shares.shape[1]
    figure, (axes,) = _panels(1, 1, 1.1 + 0.27 * len(names))
    _cells(axes, shares.tolist(), 1, "{:.0%}")
    axes.set_xticks(range(exits), [f"exit {k + 1}" for k in range(exits)])
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])
    axes.grid(visible=False)
    axes.set_title(_setting(data), fontsize=10, color=INK)
    return figure


def _examples(data: Data) -> Figure | None:
    if not data["examples"]:
        return None
    policy, label = data["policies"][data["reference"]], data["reference"]
    exits = data["example_exits"][label][at_budget(policy, data["budget"])].tolist()
    count, width = len(data["exit_costs"]), 6
    groups = [[s for s, e in enumerate(exits) if e == k][:width] for k in range(count)]
    texts = "text" in data["examples"][0]
    height = 1.5 if texts else 1.15 + 0.9 * ("mask" in data["examples"][0])
    figure, panels = _panels(count, 1, height)
    for k, (axes, group) in enumerate(zip(panels, groups, strict=True)):
        axes.set_axis_off()
        axes.set_title(f"exit {k + 1}", fontsize=10, loc="left", color=INK)
        axes.set_xlim(0, width)
        axes.set_ylim(0, 1)
        for place, s in enumerate(group):
            sample = data["examples"][s]
            if texts:
                line = textwrap.shorten(sample["text"], 105).replace("$", r"\$")
                axes.text(0, 0.9 - 0.19 * place, line, fontsize=8, va="center", color=INK)
                continue
            frames = [sample["image"], *([sample["answers"][k]] if "mask" in sample else [])]
            for level, uri in enumerate(frames):
                part = 1 / len(frames)
                low = 1 - (level + 1) * part
                frame = axes.inset_axes([place / width, low, 0.95 / width, 0.95 * part])
                frame.imshow(opened(uri), cmap="gray")
                frame.set_axis_off()
    figure.suptitle(_setting(data), fontsize=10, color=INK)
    return figure


def _reliability(data: Data) -> Figure | None:
    if not data["reliability"]:
        return None
    figure, panels = _panels(len(data["reliability"]), 4, 2.3, sharex=True, sharey=True)
    for k, (axes, own) in enumerate(zip(panels, data["reliability"], strict=True)):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2)
        share = (0.25 * own["count"] / own["count"].max()).tolist()
        axes.bar([0.05 + 0.1 * b for b in range(10)], share, 0.09, color="#D8D8D8")
        axes.plot(
            own["confidence"], own["right"], "o-", color=COLOURS[0], markersize=4, clip_on=False
        )
        axes.set_title(f"exit {k + 1}: ECE {own['ece']:.1%}", fontsize=9, loc="left", color=INK)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    figure.supxlabel("confidence", fontsize=10, color=INK)
    panels[0].set_ylabel("share right")
    return figure


def _weights(data: Data) -> Figure | None:
    found = data["importance"]
    if not found:
        return None
    longest = max(len(own["values"]) for own in found.values())
    figure, panels = _panels(len(found), 2, 1.4 + 0.22 * longest)
    for axes, (label, own) in zip(panels, found.items(), strict=True):
        values = list(own["values"].values())
        reach = max((abs(x) for row in values for x in row if math.isfinite(x)), default=1) or 1
        _cells(axes, values, reach, "{:.2f}")
        axes.set_xticks(range(len(values[0])), [f"exit {k + 1}" for k in range(len(values[0]))])
        axes.set_yticks(
            range(len(values)), [_class_named(n, data["classes"]) for n in own["values"]]
        )
        axes.tick_params(labelsize=8)
        axes.grid(visible=False)
        axes.set_title(label, fontsize=10, loc="left", color=INK)
    return figure


def _cells(axes: Any, values: list[list[float]], reach: float, form: str) -> None:
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


def _class_named(name: str, classes: list[str]) -> str:
    head, _, number = name.partition("p of class ")
    if head or not number.isdigit():
        return name
    return "p of " + textwrap.shorten(classes[int(number)], 20).replace("$", r"\$")


def _control(data: Data) -> Figure | None:
    track = data["control"]
    if track is None:
        return None
    figure, (axes,) = _panels(1, 1, 3.4)
    seen, budget = track["seen"].tolist(), track["budget"]
    bound = track["bound"]
    low, high = ([budget + sign * b for b in bound] for sign in (-1, 1))
    axes.fill_between(seen, low, high, color="#D8D8D8", alpha=0.5, linewidth=0, label="bound")
    axes.axhline(budget, color=INK, linewidth=1, label="budget")
    axes.plot(seen, track["fixed"], "--", color=COLOURS[1], label="fixed thresholds")
    axes.plot(seen, track["controlled"], color=COLOURS[0], linewidth=2, label="controlled")
    paths = [x for n, x in zip(seen, track["fixed"].tolist(), strict=True) if n > seen[-1] / 20]
    reach = max(0.05, 1.5 * max(abs(x - budget) for x in paths), 1.5 * bound[-1])
    axes.set_ylim(max(0, budget - reach), budget + reach)
    axes.set_xlabel("test samples seen")
    axes.set_ylabel("average cost so far")
    axes.legend(frameon=False, ncols=4, loc="upper right", fontsize=9)
    return figure


def _promises(data: Data) -> Figure | None:
    found = data["promises"]
    if found is None:
        return None
    figure, (axes,) = _panels(1, 1, 3.2)
    ends = [0, max(found["budget"]) * 1.06]
    axes.axhline(0, color=INK, linewidth=1)
    for name, shift, index in (("plain", -0.006, 1), ("guaranteed", 0.006, 0)):
        pairs = zip(found[name], found["budget"], strict=True)
        relative = [100 * (spent / budget - 1) for spent, budget in pairs]
        places = [budget + shift for budget in found["budget"]]
        axes.bar(places, relative, 0.004, color=COLOURS[index])
        look = _look(index) | {"linestyle": "none"}
        axes.plot(places, relative, label=f"{name} thresholds", **look)
    axes.set_xlim(min(found["budget"]) - 0.05, ends[1])
    axes.set_xlabel("budget")
    axes.set_ylabel("spent over budget (%)")
    axes.legend(frameon=False, fontsize=9)
    return figure
