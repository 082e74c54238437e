"""`eenet recipes`: the recipes that eenet brings, by name instead of by path."""

import sys
from difflib import get_close_matches
from pathlib import Path

from eenet.files import write_text

RECIPES = Path(__file__).parents[1] / "recipes"
DEFAULTS = RECIPES / "defaults.yaml"
"""What every recipe shares."""

_USAGE = """\
usage: eenet recipes [NAME [FILE]]

Without a name: lists the recipes. With one: copies that recipe to FILE (by default NAME's last
part, here) to be edited. `eenet pipeline --config NAME` takes recipes as they are, and
`--print_config` shows the whole, with what all recipes share.
"""


def recipe_names() -> list[str]:
    """Names of all recipes, such as "digits/resnet20"."""
    return sorted(
        str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.glob("*/*.yaml")
    )


def find_config(name: str) -> str:
    """The file of a `--config`: a file as it is, otherwise the recipe of that name.

    Raises:
        FileNotFoundError: If there is neither.
    """
    if Path(name).is_file() or not name:
        return name
    recipe = name.removesuffix(".yaml")
    if recipe in recipe_names():
        return str(RECIPES / f"{recipe}.yaml")
    near = get_close_matches(recipe, recipe_names(), 1, 0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise FileNotFoundError(
        f"config={name!r} is neither a file nor a recipe (`eenet recipes` lists them){hint}"
    )


def with_recipes(words: list[str]) -> list[str]:
    """The words of a command, where the values of `--config` and `-c` are files."""
    words = list(words)
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag not in ("--config", "-c"):
            continue
        if equals:
            words[place] = f"{flag}={find_config(value)}"
        elif place + 1 < len(words):
            words[place + 1] = find_config(words[place + 1])
    return words


def main(args: list[str]) -> None:
    """Lists the recipes, or copies one.

    Raises:
        ValueError: If the file exists already, or there are too many arguments.
        FileNotFoundError: If there is no such recipe.
    """
    if {"-h", "--help"} & {*args}:
        print(_USAGE)
        return
    if len(args) > 2:
        raise ValueError(f"recipes: {args} are too many arguments; give a name and a file")
    if not args:
        for name in recipe_names():
            first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
            print(f"{name:<29} {first.removeprefix('# ')}")
        return
    source = Path(find_config(args[0]))
    target = Path(args[1] if len(args) > 1 else source.name)
    if target.exists():
        raise ValueError(f"{target} exists already; give another file: eenet recipes NAME FILE")
    write_text(target, source.read_text(encoding="utf-8"))
    print(f"Written: {target}. Edit it, then: eenet pipeline --config {target}", file=sys.stderr)
