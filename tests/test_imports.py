"""Who imports what: declared dependencies, and the rule of direction."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SOURCE = Path("src/eenet")


def imported(path):
    """The absolute names that a file imports, those of `require(...)` included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
            yield node.args[0].value


def test_every_import_is_a_declared_dependency():
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][x] for x in ("text", "seg", "export", "energy")]
    texts = [text for part in [project["dependencies"], *extras] for text in part]
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    providers = packages_distributions() | {"pynvml": ["nvidia-ml-py"]}
    roots = {name.partition(".")[0] for path in SOURCE.rglob("*.py") for name in imported(path)}
    foreign = roots - sys.stdlib_module_names - {"eenet"}
    missing = {
        root
        for root in foreign
        if not declared & {canonicalize_name(name) for name in providers.get(root, [root])}
    }
    assert not missing


def test_the_library_knows_nothing_of_the_commands():
    library = [path for path in SOURCE.rglob("*.py") if "cli" not in path.parts]
    users = {path for path in library for name in imported(path) if name.startswith("eenet.cli")}
    assert users == {SOURCE / "__main__.py"}


@pytest.mark.parametrize("room", ["models", "policies", "outputs", "metrics"])
def test_pure_rooms_know_nothing_of_lightning(room):
    names = {name for path in (SOURCE / room).rglob("*.py") for name in imported(path)}
    above = ("lightning", "wandb", "eenet.modules", "eenet.callbacks", "eenet.data")
    assert not [name for name in names if name.startswith(above)]
