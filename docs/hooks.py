"""Adds to the site: results, tutorials, commands' help, public names, formulas as MathML."""

import html
import inspect
import io
import json
import os
import re
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from latex2mathml.converter import convert
from mkdocs.structure.files import File

from eenet.cli import main

os.environ |= {"COLUMNS": "80", "NO_COLOR": "1"}  # how wide help is printed
ROOT = Path(__file__).parents[1]
API: dict[str, list[str]] = {
    "models": [f"models.{x}" for x in ("costs", "cutting", "energy", "weights")],
    "outputs": [],
    "policies": [],
    "metrics": [],
    "data": [],
    "modules": ["modules.losses"],
    "callbacks": [f"callbacks.{x}" for x in ("collect", "results", "reproducibility", "progress")],
    "inference": ["inference.export", "inference.stream"],
    "comparison": [f"comparison.{x}" for x in ("compare", "placement", "summary")],
}
"""The packages with a page, and modules whose names are shown besides what a package exports."""
MARK = "<!-- every command's help comes here when the site is built -->"


def on_files(files: Any, config: Any) -> Any:
    """Adds the results, which lie beside their experiments, tutorials, and each package."""
    text = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    text = text.replace("../docs/", "")
    files.append(File.generated(config, "results.md", content=text))
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        files.remove(files.get_file_from_path(f"tutorials/{path.name}"))
        name = f"tutorials/{path.stem}.md"
        files.append(File.generated(config, name, content=notebook_page(path)))
    for package, parts in API.items():
        page = File.generated(config, f"api/{package}.md", content=api_page(package, parts))
        files.append(page)
    return files


def notebook_page(path: Path) -> str:
    """A notebook as Markdown, with the outputs that it stores."""
    blocks = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(source)
            continue
        magic = re.match(r"%%(bash|writefile)(?: (\S+))?\n", source)
        language = {"bash": "bash", "writefile": "yaml"}[magic[1]] if magic else "python"
        title = f' title="{magic[2]}"' if magic and magic[2] else ""
        blocks.append(f"```{language}{title}\n{source[magic.end() if magic else 0 :]}\n```")
        for output in cell["outputs"]:
            if image := output.get("data", {}).get("image/png"):
                blocks.append(f"![{cell['metadata']['alt']}](data:image/png;base64,{image})")
            else:
                blocks.append(f'```text title="Output"\n{"".join(output["text"])}\n```')
    return "\n\n".join(blocks) + "\n"


def api_page(package: str, modules: list[str]) -> str:
    """The names that a package exports, and those of its modules, for mkdocstrings to fill in."""
    whole = import_module(f"eenet.{package}")
    names = getattr(whole, "__all__", [])
    blocks = [f"::: eenet.{package}.{x}{inherited_arguments(getattr(whole, x))}" for x in names] + [
        f"::: eenet.{x}" for x in modules
    ]
    shapes = "Shapes: E exits, N samples, B a batch, C classes, M budgets."
    return "\n\n".join([f"# eenet.{package}", f"{whole.__doc__} {shapes}", *blocks]) + "\n"


def inherited_arguments(thing: Any) -> str:
    """A list of the arguments that a class takes from its bases, which alone document them."""
    arguments: dict[str, str] = {}
    for base in thing.__mro__ if isinstance(thing, type) else ():
        documentation = inspect.cleandoc(vars(base).get("__doc__") or "")
        section = re.search(r"^Args:\n((?: .*\n?|\n)+)", documentation, re.MULTILINE)
        if base.__module__.startswith("eenet.") and section:
            for name, text in re.findall(
                r"^    (\w+): (.*(?:\n {8}.*)*)", section[1], re.MULTILINE
            ):
                arguments.setdefault(name, "" if base is thing else " ".join(text.split()))
    lines = [f"- **`{name}`**: {text}" for name, text in arguments.items() if text]
    return "\n\n".join(["\n\nArguments of its bases:", "\n".join(lines)]) if lines else ""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Adds the commands' help; links to the results and notebooks lead to their pages."""
    markdown = markdown.replace("../experiments/README.md", "results.md")
    markdown = markdown.replace(".ipynb)", ".md)")
    return markdown.replace(MARK, command_help()) if MARK in markdown else markdown


def on_page_content(content: str, **_: Any) -> str:
    """Turns formulas into MathML, which browsers draw without a script; wide ones scroll."""
    block = r'<div class="arithmatex">\\\[(.*?)\\\]</div>'
    inline = r'<span class="arithmatex">\\\((.*?)\\\)</span>'
    content = re.sub(block, lambda found: mathml(found[1], "block"), content, flags=re.DOTALL)
    return re.sub(inline, lambda found: mathml(found[1], "inline"), content, flags=re.DOTALL)


def mathml(formula: str, display: Literal["block", "inline"]) -> str:
    """Converts LaTeX as it stands in HTML; a command that is not known is an error."""
    result = convert(html.unescape(formula).strip(), display=display)
    if "\\" in result:
        raise ValueError(f"latex2mathml does not know a command in {formula!r}")
    return f'<div class="formula" tabindex="0">{result}</div>' if display == "block" else result


def command_help() -> str:
    """A section for every command that `eenet --help` names."""
    sections = []
    for command, argument, summary in re.findall(
        r"^  eenet (\w+) +(\S+) .*?  +(.+)$", help_of(), re.MULTILINE
    ):
        words = [command, *(["--config", "FILE"] if argument.startswith("--") else ["RUN_DIR"])]
        sections.append(
            f"## eenet {command} {argument}\n\n"
            f"{summary[0].upper()}{summary[1:]}.\n\n"
            f"```text\n{own_options(help_of(*words))}\n```\n"
        )
    return "\n".join(sections)


def help_of(*words: str) -> str:
    """What `eenet ... --help` prints."""
    text = io.StringIO()
    with redirect_stdout(text), suppress(SystemExit):
        main([*words, "--help"])
    return text.getvalue().replace("\b", "")


def own_options(text: str) -> str:
    """A command's description and options, without its usage and the settings of other classes."""
    _usage, *groups = re.split(r"\n\n+(?=\S)", text)
    classes = {*re.findall(r"^  --(\w+)\.(?!help)", text, re.MULTILINE), "model", "data"}
    kept = []
    for group in groups:
        title, *options = re.split(r"\n(?=  -)", group)
        names = [re.findall(r"--([\w.]+)", option.partition("\n")[0]) for option in options]
        others = [
            any(name.partition(".")[0] in classes or name.endswith(".help") for name in found)
            for found in names
        ]
        own = [option for option, other in zip(options, others, strict=True) if not other]
        if own or not options:
            kept.append("\n".join([title, *own]).rstrip())
    return "\n\n".join(kept)
