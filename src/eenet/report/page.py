"""The page: one HTML file with everything in it."""

import base64
import hashlib
import html
import io
import math
import re
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL.Image import Image
from torch import Tensor

from eenet.plotting.style import COLORS, STYLE, exit_colors
from eenet.report.figures import Data, at_budget
from eenet.report.numbers import nearest

_LIVE = """grid budgets curves policies exit_quality measure class_order classes examples
example_exits example_quality answers labels"""
"""What the script reads."""
# Fixed colors of the figures, and the page's own that follow light and dark.
_THEME = {"#333333": "ink", "#000000": "ink", "#b0b0b0": "grid"}
_THEME |= {"#d8d8d8": "band", "#8c8c8c": "grey"}
_THEME |= {color.lower(): f"c{i}" for i, color in enumerate([*COLORS[:6], COLORS[7]])}


@matplotlib.rc_context(STYLE)
def page(data: Data, drawn: dict[str, Figure]) -> str:
    """The page as HTML text; whatever comes from the data is escaped.

    Data are those of `report_data`, with the examples and names that `write_report` adds.
    """
    loader = PackageLoader("eenet", "report")
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    pages.filters["percent"] = lambda x, digits=1: f"{100 * x:.{digits}f}%"
    pages.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
    script, *_ = loader.get_source(pages, "page.js")
    live = {name: data.get(name) for name in _LIVE.split()}
    axes = drawn["curves"].axes[0]
    live["limits"] = [axes.get_xlim(), axes.get_ylim()]
    return pages.get_template("page.html").render(
        data,
        drawn=drawn,
        svg=lambda name, words: Markup(inline_svg(drawn[name], name, words)),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        exit_colors=exit_colors(len(data["exit_costs"])),
        text_on=text_on,
        point=at_budget(data["curves"][data["reference"]], data["budget"]),
        stop=nearest(data["grid"], data["budget"]),
        live=plain(live),
    )


def text_on(color: str) -> str:
    """Black or white, whichever is read better on a color (WCAG 2.2, relative luminance)."""
    parts = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(color)]
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    return "#000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#fff"


def plain(value: Any) -> Any:
    """Tensors, numbers and images as JSON takes them.

    Numbers have five significant digits, None stands for no number, images are data URIs: PNG for
    masks and tiny images, JPEG for photos.
    """
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [plain(x) for x in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() else float(f"{value:.5g}")
    if isinstance(value, Image):
        kind = "PNG" if value.mode == "P" or max(value.size) <= 64 else "JPEG"
        file = io.BytesIO()
        value.save(file, kind, quality=80, optimize=kind == "PNG")
        data = base64.b64encode(file.getvalue()).decode()
        return f"data:image/{kind.lower()};base64,{data}"
    return value


def inline_svg(figure: Figure, name: str, words: str) -> str:
    """A figure as an SVG element in the colors and fonts of the page, `words` in its place.

    Its ids are its own: they begin with `name`.
    """
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font: \1px var(--sans)", text)
    for color, own in _THEME.items():
        text = text.replace(color, f"var(--{own})")
    text = re.sub(r'<text(?![^>]*fill:)([^>]*)style="', r'<text\1style="fill: var(--ink); ', text)
    head = f'<svg role="img" aria-label="{html.escape(words)}" viewBox='
    text = re.sub(r"<svg.*?viewBox=", head, text, count=1, flags=re.DOTALL)
    return f'<div id="figure-{name}" tabindex="0">{text}</div>'
