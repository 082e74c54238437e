"""The figures of the report, each from the numbers of `report_data`."""

import math
import textwrap
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eenet.report.plot import (
    BAND,
    COLOURS,
    GREY,
    INK,
    STYLE,
    cells,
    draw_curve,
    exit_colours,
    finish_curves,
    legend_below,
    look,
    panels_of,
    percent,
)

Data = dict[str, Any]


@matplotlib.rc_context(STYLE)
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
    figure, (axes,) = panels_of([""], 1, 4.5)
    axes.plot(data["grid"], data["oracle"], color=GREY, linewidth=1.2, label="oracle")
    axes.plot(data["grid"], data["floor"], ":", color=GREY, linewidth=1.6, label="random exits")
    for index, (label, curve) in enumerate(data["curves"].items()):
        order = curve["cost"].argsort()
        x, y, *band = (curve[name][order] for name in ("cost", "quality", "low", "high"))
        asked = [curve["budget"][i] in data["budgets"] for i in order]
        draw_curve(axes, index, label, x, y, band, markevery=asked)
    exits = data["exit_costs"].tolist(), data["exit_quality"].tolist()
    finish_curves(axes, *exits, data["measure"])
    # The floor and wide intervals at the first exit may lie far below all that is of interest.
    bottom = min(float(curve["quality"].min()) for curve in data["curves"].values())
    reach = float(data["oracle"].max()) - bottom
    axes.set_ylim(bottom - 0.05 * reach, bottom + 1.1 * reach)
    return figure


def _shares(data: Data) -> Figure:
    policies, budgets = data["policies"], data["budgets"]
    columns = 4 if len(policies) == 4 else 3
    figure, panels = panels_of(list(policies), columns, 2.3, sharey=True)
    width = 0.86 * min([b - a for a, b in pairwise(budgets)] or [0.1])
    for axes, policy in zip(panels, policies.values(), strict=True):
        shares = policy["shares"][[at_budget(policy, b) for b in budgets]].T.numpy()
        below = shares.cumsum(0) - shares
        for k, colour in enumerate(exit_colours(len(shares))):
            axes.bar(budgets, shares[k], width, below[k], color=colour, label=f"exit {k + 1}")
        axes.yaxis.set_major_formatter(percent)
        axes.set_xlabel("budget")
        axes.grid(visible=False)
    legend_below(figure, panels[0])
    return figure


def _exit_quality(data: Data) -> Figure:
    budgets, means = data["budgets"], data["exit_quality"].tolist()
    figure, panels = panels_of(_exits(len(means)), 2, 2.2, sharey=True, sharex=True)
    for index, (label, policy) in enumerate(data["policies"].items()):
        points = [at_budget(policy, b) for b in budgets]
        enough = policy["shares"][points] * data["samples"] >= 10
        quality = policy["exit_quality"][points].where(enough, math.nan)
        for axes, values in zip(panels, quality.T, strict=True):
            axes.plot(budgets, values, label=label, **look(index))
    for axes, mean in zip(panels, means, strict=True):
        axes.axhline(mean, color=GREY, linestyle=":", linewidth=1.2, label="all samples")
        axes.yaxis.set_major_formatter(percent)
    for axes in panels[-2:]:
        axes.set_xlabel("budget")
    figure.supylabel(f"{data['measure']} of who leaves here")
    legend_below(figure, panels[0])
    return figure


def _exits(count: int) -> list[str]:
    return [f"exit {k + 1}" for k in range(count)]


def _scores(data: Data) -> Figure | None:
    if len(data["exit_costs"]) == 1:
        return None
    policy, i = _setting(data)
    bars = [policy[name][i].numpy() for name in ("right", "wrong", "thresholds")]
    exits, bins = bars[0].shape
    figure, panels = panels_of(_exits(exits), 3, 2.4, sharex=True)
    places = [(b + 0.5) / bins for b in range(bins)]
    for axes, right, wrong, cut in zip(panels, *bars, strict=True):
        axes.bar(places, right, 0.9 / bins, color=COLOURS[0], label="right")
        axes.bar(places, wrong, 0.9 / bins, right, color=COLOURS[4], label="wrong")
        axes.axvline(cut, color=INK, linewidth=1.6, linestyle="--", label="threshold")
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(percent)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("score (rank)")
    panels[0].set_ylabel("samples that get here")
    _entitle(figure, data)
    legend_below(figure, panels[0])
    return figure


def _setting(data: Data) -> tuple[Data, int]:
    """The policy in the foreground, and the position of the budget that the page opens with."""
    policy = data["policies"][data["reference"]]
    return policy, at_budget(policy, data["budget"])


def _entitle(figure: Figure, data: Data) -> None:
    figure.suptitle(f"{data['reference']} at budget {data['budget']:.2f}")


def _classes(data: Data) -> Figure | None:
    if data["class_order"] is None:
        return None
    policy, i = _setting(data)
    names = [textwrap.shorten(data["classes"][c], 28) for c in data["class_order"]]
    figure, (axes,) = panels_of([""], 1, 1.1 + 0.27 * len(names))
    cells(axes, names, policy["classes"][i].tolist(), 1, "{:.0%}")
    _entitle(figure, data)
    return figure


def _examples(data: Data) -> Figure | None:
    """Images alone; sentences are read on the page."""
    if not data["examples"] or "image" not in data["examples"][0]:
        return None
    exits = data["example_exits"][data["reference"]][_setting(data)[1]].tolist()
    count, scenes = len(data["exit_costs"]), "mask" in data["examples"][0]
    figure, panels = panels_of(_exits(count), 1, 2.05 if scenes else 1.15)
    for k, axes in enumerate(panels):
        axes.set_axis_off()
        chosen = [s for s, at in zip(data["examples"], exits, strict=True) if at == k][:6]
        for place, sample in enumerate(chosen):
            pictures = [sample["image"], *([sample["answers"][k]] if scenes else [])]
            height = 1 / len(pictures)
            for level, picture in enumerate(pictures):
                bounds = (place / 6, 1 - (level + 1) * height, 0.95 / 6, 0.95 * height)
                frame = axes.inset_axes(bounds)
                frame.imshow(picture.convert("RGB"))
                frame.set_axis_off()
    _entitle(figure, data)
    return figure


def _reliability(data: Data) -> Figure | None:
    if not data["reliability"]:
        return None
    titles = [f"exit {k + 1}: ECE {own['ece']:.1%}" for k, own in enumerate(data["reliability"])]
    figure, panels = panels_of(titles, 4, 2.3, sharex=True, sharey=True)
    ticks = [0, 0.5, 1], ["0", "0.5", "1"]
    for axes, own in zip(panels, data["reliability"], strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2)
        places = [0.05 + 0.1 * b for b in range(10)]
        count = own["count"].numpy()
        axes.bar(places, 0.25 * count / count.max(), 0.09, color=BAND)
        line = {"color": COLOURS[0], "markersize": 4, "clip_on": False}
        axes.plot(own["confidence"], own["right"], "o-", **line)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_xticks(*ticks)
        axes.set_yticks(*ticks)
    figure.supxlabel("confidence")
    panels[0].set_ylabel("share right")
    return figure


def _weights(data: Data) -> Figure | None:
    found = data["importance"]
    if not found:
        return None
    longest = max(len(own["values"]) for own in found.values())
    figure, panels = panels_of(list(found), 2, 1.4 + 0.22 * longest)
    for axes, own in zip(panels, found.values(), strict=True):
        values = list(own["values"].values())
        reach = max((abs(x) for row in values for x in row if math.isfinite(x)), default=1) or 1
        names = [_class_named(name, data["classes"]) for name in own["values"]]
        cells(axes, names, values, reach, "{:.2f}")
    return figure


def _class_named(name: str, classes: list[str]) -> str:
    head, _, number = name.partition("p of class ")
    if head or not number.isdigit():
        return name
    return "p of " + textwrap.shorten(classes[int(number)], 20)


def _control(data: Data) -> Figure | None:
    track = data["control"]
    if track is None:
        return None
    figure, (axes,) = panels_of([""], 1, 3.4)
    seen, fixed, budget, bound = (track[x] for x in ("seen", "fixed", "budget", "bound"))
    low, high = ([budget + sign * b for b in bound] for sign in (-1, 1))
    axes.fill_between(seen, low, high, color=BAND, alpha=0.5, linewidth=0, label="bound")
    axes.axhline(budget, color=INK, linewidth=1, label="budget")
    axes.plot(seen, fixed, "--", color=COLOURS[1], label="fixed thresholds")
    axes.plot(seen, track["controlled"], color=COLOURS[0], linewidth=2, label="controlled")
    settled = fixed[seen > seen[-1] / 20]
    reach = max(0.05, 1.5 * float((settled - budget).abs().max()), 1.5 * bound[-1])
    axes.set_ylim(max(0, budget - reach), budget + reach)
    axes.set_xlabel("test samples seen")
    axes.set_ylabel("average cost so far")
    axes.legend(ncols=4, loc="upper right")
    return figure


def _promises(data: Data) -> Figure | None:
    found = data["promises"]
    if found is None:
        return None
    figure, (axes,) = panels_of([""], 1, 3.2)
    axes.axhline(0, color=INK, linewidth=1)
    budgets = found["budget"]
    for name, shift, index in (("plain", -0.006, 1), ("guaranteed", 0.006, 0)):
        over = [spent / budget - 1 for spent, budget in zip(found[name], budgets, strict=True)]
        places = [budget + shift for budget in budgets]
        axes.bar(places, over, 0.004, color=COLOURS[index])
        marks = look(index) | {"linestyle": "none"}
        axes.plot(places, over, label=f"{name} thresholds", **marks)
    axes.set_xlim(min(budgets) - 0.05, max(budgets) * 1.06)
    axes.yaxis.set_major_formatter(percent)
    axes.set_xlabel("budget")
    axes.set_ylabel("spent over budget")
    axes.legend()
    return figure
