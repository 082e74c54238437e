"""The Python in the documentation runs as written."""

import re
from pathlib import Path

import pytest

from eenet.data.outputs import save_outputs
from tests.conftest import make_outputs

PAGES = [
    path
    for path in (Path("README.md"), *sorted(Path("docs").glob("*.md")))
    if "```python" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_code_runs(page, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for seed, split in enumerate(("val", "test")):  # where the demo leaves its own
        save_outputs(
            make_outputs(seed=seed), tmp_path / f"runs/digits/stage1/outputs/{split}.safetensors"
        )
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {})
