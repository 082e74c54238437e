"""The figures of the report, each from the numbers of `report_data`."""

import math
import textwrap
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eenet.plotting import style as plot

Data = dict[str, Any]


@matplotlib.rc_context(plot.STYLE)
def figures(data: Data) -> dict[str, Figure]:
    """All figures that the data allow, by the name of their files."""
    drawings: dict[str, tuple[Callable[[Data], Figure], Any]] = {
        "curves": (_curves, True),
        "shares": (_shares, True),
        "exit-quality": (_exit_quality, True),
        "scores": (_scores, len(data["exit_costs"]) > 1),
        "classes": (_classes, data["class_order"] is not None),
        "examples": (_examples, data["examples"]),
        "reliability": (_reliability, data["reliability"]),
        "weights": (_weights, data["importance"]),
        "control": (_control, data["control"]),
        "promises": (_promises, data["promises"]),
    }
    return {name: draw(data) for name, (draw, possible) in drawings.items() if possible}


def at_budget(policy: Data, budget: float) -> int:
    """Position of a policy's most expensive working point within a budget."""
    return max(i for i, b in enumerate(policy["budget"]) if i == 0 or b <= budget + 1e-9)


def _curves(data: Data) -> Figure:
    figure, (axes,) = plot.panels_of([""], 1, 4.9)
    axes.plot(data["grid"], data["oracle"], color=plot.GREY, linewidth=1.2, label="oracle")
    axes.plot(data["grid"], data["floor"], label="random exits", **plot.DOTTED)
    for index, (label, curve) in enumerate(data["curves"].items()):
        order = curve["cost"].argsort()
        x, y, *band = (curve[name][order] for name in ("cost", "quality", "low", "high"))
        asked = [curve["budget"][i] in data["budgets"] for i in order]
        plot.draw_curve(axes, index, label, x, y, band, markevery=asked)
    exits = data["exit_costs"].tolist(), data["exit_quality"].tolist()
    plot.finish_curves(axes, *exits, data["measure"])
    # The floor and wide intervals at the first exit may lie far below all that is of interest.
    bottom = min(float(curve["quality"].min()) for curve in data["curves"].values())
    reach = float(data["oracle"].max()) - bottom
    axes.set_ylim(bottom - 0.05 * reach, bottom + 1.1 * reach)
    axes.patch.set_gid("area")  # by which the page finds it
    return figure


def _shares(data: Data) -> Figure:
    policies, budgets = data["policies"], data["budgets"]
    columns = 4 if len(policies) == 4 else 3
    figure, panels = plot.panels_of(list(policies), columns, 2.3, sharey=True)
    width = 0.86 * min([b - a for a, b in pairwise(budgets)] or [0.1])
    for axes, policy in zip(panels, policies.values(), strict=True):
        shares = policy["shares"][[at_budget(policy, b) for b in budgets]].T.numpy()
        below = shares.cumsum(0) - shares
        for k, color in enumerate(plot.exit_colors(len(shares))):
            axes.bar(budgets, shares[k], width, below[k], color=color, label=f"exit {k + 1}")
        axes.yaxis.set_major_formatter(plot.percent)
        axes.set_xlabel("budget")
        axes.grid(visible=False)
    plot.legend_below(figure, panels[0])
    return figure


def _exit_quality(data: Data) -> Figure:
    budgets, means = data["budgets"], data["exit_quality"].tolist()
    figure, panels = plot.panels_of(_exits(range(len(means))), 2, 2.2, sharey=True, sharex=True)
    for label, policy in data["policies"].items():
        points = [at_budget(policy, b) for b in budgets]
        enough = policy["shares"][points] * data["samples"] >= 10
        quality = policy["exit_quality"][points].where(enough, math.nan)
        for axes, values in zip(panels, quality.T, strict=True):
            axes.plot(budgets, values, label=label, **plot.look(label))
    for axes, mean in zip(panels, means, strict=True):
        axes.axhline(mean, label="all samples", **plot.DOTTED)
        axes.yaxis.set_major_formatter(plot.percent)
    for axes in panels[-2:]:
        axes.set_xlabel("budget")
    figure.supylabel(f"{data['measure']} of the samples that leave here")
    plot.legend_below(figure, panels[0])
    return figure


def _exits(numbers: Iterable[int]) -> list[str]:
    return [f"exit {k + 1}" for k in numbers]


def _scores(data: Data) -> Figure:
    policy, i = _setting(data)
    bars = [policy[name][i].numpy() for name in ("right", "wrong", "thresholds")]
    exits, bins = bars[0].shape
    figure, panels = plot.panels_of(_exits(range(exits)), 3, 2.4, sharex=True)
    places = [(b + 0.5) / bins for b in range(bins)]
    for axes, right, wrong, cut in zip(panels, *bars, strict=True):
        axes.bar(places, right, 0.9 / bins, color=plot.COLORS[0], label="right")
        axes.bar(places, wrong, 0.9 / bins, right, color=plot.COLORS[4], label="wrong")
        axes.axvline(cut, color=plot.INK, linewidth=1.6, linestyle="--", label="threshold")
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(plot.percent)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("score (rank)")
    panels[0].set_ylabel("samples that reach it")
    _entitle(figure, data)
    plot.legend_below(figure, panels[0])
    return figure


def _setting(data: Data) -> tuple[Data, int]:
    """The policy in the foreground, and the position of the budget that the page opens with."""
    policy = data["policies"][data["reference"]]
    return policy, at_budget(policy, data["budget"])


def _entitle(figure: Figure, data: Data) -> None:
    figure.suptitle(f"{data['reference']} at budget {data['budget']:.2f}")


def _classes(data: Data) -> Figure:
    policy, i = _setting(data)
    names = [textwrap.shorten(data["classes"][c], 28) for c in data["class_order"]]
    figure, (axes,) = plot.panels_of([""], 1, 1.1 + 0.27 * len(names))
    plot.cells(axes, names, policy["classes"][i].tolist(), 1, "{:.0%}")
    _entitle(figure, data)
    return figure


def _examples(data: Data) -> Figure:
    exits = data["example_exits"][data["reference"]][_setting(data)[1]].tolist()
    scenes, texts = (kind in data["examples"][0] for kind in ("mask", "text"))
    taken = sorted(set(exits))
    figure, panels = plot.panels_of(_exits(taken), 1, 2.05 if scenes else 1.15)
    for k, axes in zip(taken, panels, strict=True):
        axes.set_axis_off()
        chosen = [s for s, at in zip(data["examples"], exits, strict=True) if at == k][:6]
        for place, sample in enumerate(chosen):
            if texts:
                text = textwrap.shorten(sample["text"], 105, placeholder=" …")
                axes.text(0, 1 - (place + 0.5) / 6, text, va="center", size=7.5, parse_math=False)
                continue
            pictures = [sample["image"], *([sample["answers"][k]] if scenes else [])]
            height = 1 / len(pictures)
            for level, picture in enumerate(pictures):
                bounds = (place / 6, 1 - (level + 1) * height, 0.95 / 6, 0.95 * height)
                frame = axes.inset_axes(bounds)
                frame.imshow(picture.convert("RGB"))
                frame.set_axis_off()
    _entitle(figure, data)
    return figure


def _reliability(data: Data) -> Figure:
    titles = [f"exit {k + 1}: ECE {own['ece']:.1%}" for k, own in enumerate(data["reliability"])]
    figure, panels = plot.panels_of(titles, 4, 2.3, sharex=True, sharey=True)
    ticks = [0, 0.5, 1], ["0", "0.5", "1"]
    for axes, own in zip(panels, data["reliability"], strict=True):
        axes.plot([0, 1], [0, 1], **plot.DOTTED)
        places = [0.05 + 0.1 * b for b in range(10)]
        count = own["count"].numpy()
        axes.bar(places, 0.25 * count / count.max(), 0.09, color=plot.BAND)
        line = {"color": plot.COLORS[0], "markersize": 4, "clip_on": False}
        axes.plot(own["confidence"], own["right"], "o-", **line)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_xticks(*ticks)
        axes.set_yticks(*ticks)
    figure.supxlabel("confidence")
    panels[0].set_ylabel("share right")
    return figure


def _weights(data: Data) -> Figure:
    found = data["importance"]
    longest = max(len(own["values"]) for own in found.values())
    figure, panels = plot.panels_of(list(found), 2, 1.4 + 0.22 * longest)
    for axes, own in zip(panels, found.values(), strict=True):
        values = list(own["values"].values())
        reach = max((abs(x) for row in values for x in row if math.isfinite(x)), default=1) or 1
        names = [
            f"p of {textwrap.shorten(data['classes'][x], 20)}" if isinstance(x, int) else x
            for x in own["values"]
        ]
        plot.cells(axes, names, values, reach, "{:.2f}")
    return figure


def _control(data: Data) -> Figure:
    track = data["control"]
    figure, (axes,) = plot.panels_of([""], 1, 3.4)
    seen, fixed, budget, bound = (track[x] for x in ("seen", "fixed", "budget", "bound"))
    low, high = ([budget + sign * b for b in bound] for sign in (-1, 1))
    axes.fill_between(seen, low, high, color=plot.BAND, alpha=0.5, linewidth=0, label="bound")
    axes.axhline(budget, color=plot.INK, linewidth=1, label="budget")
    axes.plot(seen, fixed, "--", color=plot.COLORS[1], label="fixed thresholds")
    axes.plot(seen, track["controlled"], color=plot.COLORS[0], linewidth=2, label="controlled")
    settled = fixed[seen > seen[-1] / 20]
    reach = max(0.05, 1.5 * float((settled - budget).abs().max()), 1.5 * bound[-1])
    axes.set_ylim(max(0, budget - reach), budget + reach)
    axes.set_xlabel("test samples seen")
    axes.set_ylabel("average cost so far")
    axes.legend(ncols=4, loc="upper right")
    return figure


def _promises(data: Data) -> Figure:
    found = data["promises"]
    figure, (axes,) = plot.panels_of([""], 1, 3.2)
    axes.axhline(0, color=plot.INK, linewidth=1)
    budgets = found["budget"]
    for name, shift, index in (("plain", -0.006, 1), ("guaranteed", 0.006, 0)):
        over = [spent / budget - 1 for spent, budget in zip(found[name], budgets, strict=True)]
        places = [budget + shift for budget in budgets]
        axes.bar(places, over, 0.004, color=plot.COLORS[index])
        marks = {"color": plot.COLORS[index], "marker": plot.MARKERS[index], "linestyle": "none"}
        axes.plot(places, over, label=f"{name} thresholds", **marks)
    axes.set_xlim(min(budgets) - 0.05, max(budgets) * 1.06)
    axes.yaxis.set_major_formatter(plot.percent)
    axes.set_xlabel("budget")
    axes.set_ylabel("spent over budget")
    axes.legend()
    return figure
