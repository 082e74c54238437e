"""A finished run folder on sentences, two of whose names are an attack."""

import csv
import json

import pytest
import torch
import yaml
from tests.conftest import make_outputs
from torch import nn

from eenet.modules import fit_policies
from eenet.outputs import save_outputs
from eenet.policies import EENet, EENetPlus, Margin

ATTACK = "</script><script>document.title = 'taken'</script>"
BUDGETS = [0.3, 0.5, 0.8]


@pytest.fixture(scope="session")
def make_run():
    """Writes what `eenet pipeline` leaves, of a network that only its outputs are known of."""

    def make(folder, seed=0, **data):
        val, test = make_outputs(samples=400), make_outputs(samples=300, seed=1)
        test.logits.add_(0.3 * seed * torch.randn(test.logits.shape))
        save_outputs(val, folder / "stage1/outputs/val.safetensors")
        save_outputs(test, folder / "stage1/outputs/test.safetensors")
        with (folder / "stage1/test.csv").open("w") as file:
            rows = [[f"sentence {n} {ATTACK}", int(y)] for n, y in enumerate(test.labels)]
            csv.writer(file).writerows([["text", "label"], *rows])
        policies = [EENet(), EENetPlus(), Margin()]
        fit_policies(policies, val, BUDGETS, seed, epochs=5)
        state = nn.ModuleDict({p.label: p for p in policies}).state_dict()
        settings = {"tokenizer": "none", "train": str(folder / "stage1/test.csv"), "num_classes": 5}
        names = [f"class {c} {ATTACK}" for c in range(5)]
        settings |= {"label_names": names, "val_size": 1, **data}
        configs = {
            "stage1": {
                "data": {"class_path": "eenet.data.TextClassification", "init_args": settings}
            },
            "stage2": {
                "model": {
                    "init_args": {
                        "policies": [
                            {"class_path": f"eenet.policies.{type(p).__name__}"} for p in policies
                        ],
                        "budgets": BUDGETS,
                        "budget_unit": "fraction",
                    }
                },
                "data": {"class_path": "eenet.data.OutputsData"},
                "trainer": {"logger": None},
            },
        }
        for stage, config in configs.items():
            (folder / stage / "checkpoints").mkdir(parents=True)
            saved = {f"policies.{name}": value for name, value in state.items()}
            torch.save({"state_dict": saved}, folder / stage / "checkpoints/best.ckpt")
            (folder / stage / "config.yaml").write_text(yaml.safe_dump(config))
            identity = {"seed_everything": seed, "model": stage}
            (folder / stage / "identity.json").write_text(json.dumps(identity))
        return folder

    return make


@pytest.fixture(scope="session")
def run_dir(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "first")
