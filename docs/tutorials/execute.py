"""Executes the tutorials in a folder and stores their outputs; needs no Jupyter.

python docs/tutorials/execute.py FOLDER
"""

import base64
import io
import json
import os
import subprocess
import sys
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

TUTORIALS = [Path(__file__).with_name(f"{x}.ipynb") for x in ("researcher", "engineer", "wandb")]
"""In this order: the first one trains the network that all use."""


def execute(path: Path) -> dict[str, Any]:
    """Runs the cells of a notebook in the working directory, and returns it with new outputs."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            text = run("".join(cell["source"]), names).replace(f"{os.getcwd()}/", "")
            stream = {"output_type": "stream", "name": "stdout", "text": text.splitlines(True)}
            cell["outputs"] = [*([stream] if text else []), *map(picture, plt.get_fignums())]
            plt.close("all")
    return notebook


def run(source: str, names: dict[str, Any]) -> str:
    """Runs one cell, and returns what it prints."""
    magic, _, rest = source.partition("\n")
    if magic == "%%bash":
        env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        command = ["bash", "-euc", rest]
        return subprocess.run(command, env=env, stdout=-1, text=True, check=True).stdout.lstrip(
            "\n"
        )
    if magic.startswith("%%writefile "):
        Path(magic.split()[1]).write_text(rest, encoding="utf-8")
        return ""
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(source, names)
    return printed.getvalue()


def picture(number: int) -> dict[str, Any]:
    """The output that holds a figure."""
    file = io.BytesIO()
    plt.figure(number).savefig(file, dpi=100)
    image = base64.b64encode(file.getvalue()).decode()
    return {"output_type": "display_data", "metadata": {}, "data": {"image/png": image}}


if __name__ == "__main__":
    for path in TUTORIALS:
        with chdir(sys.argv[1]):
            notebook = execute(path)
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
