"""The figures of the report, each from the numbers of `report_data`."""

import math
import textwrap
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from eenet.report.examples import opened
from eenet.report.plot import (
    COLOURS,
    GREY,
    INK,
    cells,
    exit_colours,
    legend_below,
    look,
    mark_exits,
    panels_of,
)

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


def at_budget(policy: Data, budget: float) -> int:
    """Position of a policy's dearest working point within a budget."""
    return max(i for i, b in enumerate(policy["budget"]) if i == 0 or b <= budget + 1e-9)


def _curves(data: Data) -> Figure:
    figure, (axes,) = panels_of(1, 1, 4.5)
    grid = data["grid"]
    axes.plot(grid, 100 * data["oracle"], color=GREY, linewidth=1.2, label="oracle")
    axes.plot(grid, 100 * data["floor"], ":", color=GREY, linewidth=1.6, label="random exits")
    for index, (label, curve) in enumerate(data["curves"].items()):
        order = curve["cost"].argsort()
        cost, quality, low, high = (
            (1 if name == "cost" else 100) * curve[name][order]
            for name in ("cost", "quality", "low", "high")
        )
        asked = [i for i, b in enumerate(curve["budget"][order]) if _is_in(b, data["budgets"])]
        axes.fill_between(
            cost, low, high, color=COLOURS[index % 7], alpha=0.07 if index else 0.14, linewidth=0
        )
        axes.plot(
            cost, quality, label=label, markevery=asked, zorder=4 - 0.1 * index, **look(index)
        )
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
    figure, panels = panels_of(len(policies), 4 if len(policies) == 4 else 3, 2.3, sharey=True)
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
    legend_below(figure, panels[0])
    return figure


def _exit_quality(data: Data) -> Figure:
    policies, exits = data["policies"], len(data["exit_costs"])
    figure, panels = panels_of(exits, 2, 2.2, sharey=True, sharex=True)
    for k, axes in enumerate(panels):
        for index, (label, policy) in enumerate(policies.items()):
            points = [at_budget(policy, b) for b in data["budgets"]]
            enough = [float(policy["shares"][i][k]) * data["samples"] >= 10 for i in points]
            values = [
                100 * float(policy["exit_quality"][i][k]) if good else math.nan
                for i, good in zip(points, enough, strict=True)
            ]
            axes.plot(data["budgets"], values, label=label, **look(index))
        mean = 100 * float(data["exit_quality"][k])
        axes.axhline(mean, color=GREY, linestyle=":", linewidth=1.2, label="all samples")
        axes.set_title(f"exit {k + 1}", fontsize=10, loc="left", color=INK)
    for axes in panels[-2:]:
        axes.set_xlabel("budget")
    figure.supylabel(f"{data['measure']} of who leaves here (%)", fontsize=10, color=INK)
    legend_below(figure, panels[0])
    return figure


def _scores(data: Data) -> Figure | None:
    exits = len(data["exit_costs"]) - 1
    if not exits:
        return None
    policy = data["policies"][data["reference"]]
    i = at_budget(policy, data["budget"])
    figure, panels = panels_of(exits, 3, 2.4, sharex=True)
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
    legend_below(figure, panels[0])
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
    figure, (axes,) = panels_of(1, 1, 1.1 + 0.27 * len(names))
    cells(axes, shares.tolist(), 1, "{:.0%}")
    axes.set_xticks(range(exits), [f"exit {k + 1}" for k in range(exits)])
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])
    axes.grid(visible=False)
    axes.set_title(_setting(data), fontsize=10, color=INK)
    return figure


def _examples(data: Data) -> Figure | None:
    """Images alone; sentences are read on the page."""
    if not data["examples"] or "image" not in data["examples"][0]:
        return None
    policy = data["policies"][data["reference"]]
    exits = data["example_exits"][data["reference"]][at_budget(policy, data["budget"])].tolist()
    count, scenes = len(data["exit_costs"]), "mask" in data["examples"][0]
    figure, panels = panels_of(count, 1, 2.05 if scenes else 1.15)
    for k, axes in enumerate(panels):
        axes.set_axis_off()
        axes.set_title(f"exit {k + 1}", fontsize=10, loc="left", color=INK)
        chosen = [s for s, at in zip(data["examples"], exits, strict=True) if at == k][:6]
        for place, sample in enumerate(chosen):
            frames = [sample["image"], *([sample["answers"][k]] if scenes else [])]
            height = 1 / len(frames)
            for level, uri in enumerate(frames):
                bounds = [place / 6, 1 - (level + 1) * height, 0.95 / 6, 0.95 * height]
                frame = axes.inset_axes(bounds)
                frame.imshow(opened(uri))
                frame.set_axis_off()
    figure.suptitle(_setting(data), fontsize=10, color=INK)
    return figure


def _reliability(data: Data) -> Figure | None:
    if not data["reliability"]:
        return None
    figure, panels = panels_of(len(data["reliability"]), 4, 2.3, sharex=True, sharey=True)
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
    figure, panels = panels_of(len(found), 2, 1.4 + 0.22 * longest)
    for axes, (label, own) in zip(panels, found.items(), strict=True):
        values = list(own["values"].values())
        reach = max((abs(x) for row in values for x in row if math.isfinite(x)), default=1) or 1
        cells(axes, values, reach, "{:.2f}")
        axes.set_xticks(range(len(values[0])), [f"exit {k + 1}" for k in range(len(values[0]))])
        axes.set_yticks(
            range(len(values)), [_class_named(n, data["classes"]) for n in own["values"]]
        )
        axes.tick_params(labelsize=8)
        axes.grid(visible=False)
        axes.set_title(label, fontsize=10, loc="left", color=INK)
    return figure


def _class_named(name: str, classes: list[str]) -> str:
    head, _, number = name.partition("p of class ")
    if head or not number.isdigit():
        return name
    return "p of " + textwrap.shorten(classes[int(number)], 20).replace("$", r"\$")


def _control(data: Data) -> Figure | None:
    track = data["control"]
    if track is None:
        return None
    figure, (axes,) = panels_of(1, 1, 3.4)
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
    figure, (axes,) = panels_of(1, 1, 3.2)
    ends = [0, max(found["budget"]) * 1.06]
    axes.axhline(0, color=INK, linewidth=1)
    for name, shift, index in (("plain", -0.006, 1), ("guaranteed", 0.006, 0)):
        pairs = zip(found[name], found["budget"], strict=True)
        relative = [100 * (spent / budget - 1) for spent, budget in pairs]
        places = [budget + shift for budget in found["budget"]]
        axes.bar(places, relative, 0.004, color=COLOURS[index])
        marks = look(index) | {"linestyle": "none"}
        axes.plot(places, relative, label=f"{name} thresholds", **marks)
    axes.set_xlim(min(found["budget"]) - 0.05, ends[1])
    axes.set_xlabel("budget")
    axes.set_ylabel("spent over budget (%)")
    axes.legend(frameon=False, fontsize=9)
    return figure
