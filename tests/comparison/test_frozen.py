"""EENet+ on the frozen exit outputs of benchmarks/: no change of code may lose accuracy unseen."""

from pathlib import Path

import pytest

from eenet.comparison.compare import compare
from eenet.comparison.fitting import Source
from eenet.policies import MaxProbability

FOLDER = Path("benchmarks/outputs")
AREAS = {  # percent, as in the benchmark's table
    "agnews-minilm": (90.02, 90.02),
    "cifar10-resnet20": (78.72, 78.30),
    "cifar10-resnet56": (82.90, 82.89),
}


def test_every_file_is_held():
    assert {path.stem for path in FOLDER.iterdir()} == set(AREAS)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8_000_000


@pytest.mark.parametrize("name", AREAS)
def test_areas(name):
    rival = MaxProbability(common=True)
    found = compare([Source(str(FOLDER / f"{name}.safetensors"), None)], 16, 1, [rival])
    areas = {policy.policy: 100 * policy.area for policy in found.policies}
    eenet_plus, max_prob = AREAS[name]
    assert areas["eenet+"] >= eenet_plus - 0.02
    assert areas[rival.label] == pytest.approx(max_prob, abs=0.01)
