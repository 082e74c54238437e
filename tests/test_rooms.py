"""The rooms of CONTRIBUTING: imports run in one direction, names are public and unique."""

import ast
import re
from collections import Counter
from pathlib import Path

SOURCE = Path("src/eenet")
TEXT = re.search(r"```\nsrc/eenet/\n(.*?)```", Path("CONTRIBUTING.md").read_text(), re.DOTALL)[1]
ROOMS = [
    name.rstrip("/") for line in TEXT.splitlines() for name in re.split(" {2,}", line)[1].split()
]
FACES = {"__init__", "__main__"}


def room_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def eenet_imports(path):
    """Pairs of module and name that a file imports from eenet, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.startswith("eenet"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "eenet":
            yield from ((node.module, alias.name) for alias in node.names)


def files():
    return [path for path in SOURCE.rglob("*.py") if room_of(path) not in FACES]


def test_every_room_is_drawn():
    drawn = {
        path.stem for path in SOURCE.iterdir() if path.stem not in {*FACES, "__pycache__", "py"}
    }
    assert drawn == set(ROOMS)


def test_imports_run_in_one_direction():
    climbs = []
    for path in files():
        for module, name in eenet_imports(path):
            target = module.split(".")[1] if "." in module else name
            if target in ROOMS and ROOMS.index(target) > ROOMS.index(room_of(path)):
                climbs.append(f"{path}: {module} {name}")
    assert not climbs


def test_private_names_stay_in_their_file():
    private = [
        f"{path}: {module}.{name}"
        for path in files()
        for module, name in eenet_imports(path)
        if any(
            part.startswith("_") and not part.endswith("__") for part in (*module.split("."), name)
        )
    ]
    assert not private


def test_no_two_files_share_a_name():
    same = {"__init__", "base", "compare"}  # contracts of their rooms; the command and what it runs
    count = Counter(path.stem for path in files())
    shared = {name for name, number in count.items() if number > 1}
    assert shared <= same
