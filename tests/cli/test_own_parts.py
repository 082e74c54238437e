"""A network, data and a policy of one's own, from a file in the working directory."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from eenet.cli import main

MINE = '''
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from eenet.data import SplitDataModule
from eenet.models import MultiExitNetwork
from eenet.policies import HeuristicPolicy


class Pixels(SplitDataModule):
    """Rows of 64 pixels."""

    num_classes = 10

    def __init__(self):
        super().__init__(val_size=300, test_size=400)

    def read(self):
        pixels, labels = map(torch.as_tensor, load_digits(return_X_y=True))
        whole = TensorDataset(pixels.float() / 16, labels)
        return {name: TensorDataset(*whole[part]) for name, part in self.parts(len(whole)).items()}

    def encode(self, raw):
        images = [np.asarray(image.convert("L"), dtype=np.float32) / 255 for image in raw]
        return torch.as_tensor(np.stack(images)).flatten(1)


class Layers(MultiExitNetwork):
    def __init__(self, num_classes=10, width=32):
        sizes = [64, width, width, width]
        pairs = zip(sizes, sizes[1:])
        stages = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairs]
        super().__init__(stages, [nn.Linear(width, num_classes) for _ in stages], num_classes)


class Gap(HeuristicPolicy):
    label = "gap"

    def step(self, k, evidence, state):
        first, second = evidence.log_probs.topk(2).values.unbind(-1)
        return first - second, state
'''
CONFIG = """
stage1:
  model:
    init_args:
      net: {class_path: parts.Layers, init_args: {width: 48}}
      optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.01}}
  data: {class_path: parts.Pixels}
  trainer: {max_epochs: 8, enable_progress_bar: false, logger: false}
stage2:
  model: {init_args: {policies: [parts.Gap], budgets: [0.6, 0.9]}}
  trainer: {max_epochs: 1, enable_progress_bar: false, logger: false}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    (place / "parts.py").write_text(MINE)
    (place / "parts.yaml").write_text(CONFIG)
    words = [sys.executable, "-m", "eenet", "pipeline", "--config", "parts.yaml"]
    run = subprocess.run(
        [*words, "--run_dir", "run"], cwd=place, env=os.environ, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return place


def test_they_serve_pipeline_compare_report_and_predict(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    curve = list(csv.DictReader((place / "run/stage2/curve.csv").open()))
    assert {row["policy"] for row in curve} == {"gap"}

    main(["compare", "run", "--policies", "[parts.Gap]", "--seeds", "1", "--output", "compared"])
    compared = {
        row["policy"]: row for row in csv.DictReader((place / "compared/compare.csv").open())
    }
    assert "gap" in compared

    main(["report", "run"])
    assert "gap" in (place / "run/report/report.html").read_text()

    digits = load_digits()
    (place / "photos").mkdir()
    for number in range(60):
        pixels = np.round(digits.images[number] * 255 / 16).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"photos/{number:02}.png")
    main(["predict", "run", "--input", "photos", "--output", "answers.csv", "--budget", "0.9"])
    answers = list(csv.DictReader((place / "answers.csv").open()))
    right = [int(row["prediction"]) == digits.target[n] for n, row in enumerate(answers)]
    assert len(right) == 60
    assert sum(right) > 48
