import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tests.conftest import make_outputs

from eenet.data import OutputsData
from eenet.outputs import load_outputs, save_outputs


def test_what_is_saved_is_what_is_read(tmp_path):
    outputs = make_outputs()
    path = tmp_path / "new folder" / "val.safetensors"
    save_outputs(outputs, path)
    loaded = load_outputs(path)
    assert torch.equal(loaded.logits, outputs.logits)
    assert torch.equal(loaded.labels, outputs.labels)
    assert torch.equal(loaded.costs, outputs.costs)
    assert [p.name for p in path.parent.iterdir()] == ["val.safetensors"]
    (tmp_path / "other").touch()  # colleagues may read both, or neither
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_file_that_another_program_wrote_is_read(tmp_path):
    path = tmp_path / "mine.safetensors"
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 10, 3)).astype(np.float16)
    save_file({"logits": logits, "costs": np.array([1.0, 2.0], np.float32)}, path)
    loaded = load_outputs(path)
    assert loaded.num_samples == 10
    assert torch.isfinite(loaded.evidence().log_probs).all()


def test_fields_that_share_memory_are_written_and_those_of_older_files_ignored(tmp_path):
    outputs, path = make_outputs(), tmp_path / "val.safetensors"
    shared = outputs.logits[..., 0]
    save_outputs(replace(outputs, quality=shared, costs=shared[:, 0].exp().cumsum(0)), path)
    view = torch.stack([outputs.answer_quality()] * 2)
    save_outputs(replace(outputs, quality=view[0], costs=view[1, :, 0].cumsum(0) + 1), path)
    assert torch.equal(load_outputs(path).quality, outputs.answer_quality())
    tensors = {"costs": outputs.costs, "logits": outputs.logits, "labels": outputs.labels}
    older = {"ids": torch.arange(400), "features": torch.zeros(3, 400, 2), **tensors}
    save_file({name: value.numpy() for name, value in older.items()}, path)
    assert torch.equal(load_outputs(path).logits, outputs.logits)


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "broken.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_outputs(path)
    save_outputs(make_outputs(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        load_outputs(path)
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="needs costs and logits"):
        load_outputs(path)
    save_file({"costs": np.ones(3), "logits": np.full((3, 2, 2), np.nan)}, path)
    with pytest.raises(ValueError, match=r"broken.safetensors: logits hold NaN"):
        load_outputs(path)


def test_costs_can_be_given_or_taken_in_milliseconds(tmp_path):
    path = str(tmp_path / "val.safetensors")
    measured = json.dumps({"macs": [1.0, 2.0, 3.0], "ms": [0.1, 0.2, 0.4]})
    save_outputs(replace(make_outputs(), metadata={"measured_costs": measured}), path)
    in_ms = OutputsData(fit=path, costs="ms").outputs("fit")
    assert in_ms.costs.tolist() == [0.1, 0.2, 0.4]
    assert in_ms.metadata["cost_unit"] == "ms"
    assert OutputsData(fit=path, costs=[2, 3, 5]).outputs("fit").costs.tolist() == [2, 3, 5]
    with pytest.raises(ValueError, match="costs must be one per exit"):
        OutputsData(fit=path, costs=[2, 3]).outputs("fit")
    save_outputs(make_outputs(), path)
    with pytest.raises(ValueError, match="no measured costs"):
        OutputsData(fit=path, costs="ms").outputs("fit")


def test_fitting_and_held_out_samples_are_disjoint_and_complete(tmp_path):
    outputs = make_outputs(samples=50)
    save_outputs(outputs, tmp_path / "val.safetensors")
    data = OutputsData(fit=str(tmp_path / "val.safetensors"), holdout=0.2, batch_size=8)
    train = torch.cat([b.evidence.entropy for b in data.train_dataloader()], 1)
    held = torch.cat([b.evidence.entropy for b in data.val_dataloader()], 1)
    assert held.shape == (3, 10)
    together = torch.cat([train, held], 1)[0].sort().values
    assert torch.equal(together, outputs.evidence().entropy[0].sort().values)


def test_batches_of_stage_2_hold_what_the_file_holds_whatever_their_size(tmp_path, monkeypatch):
    outputs, path = make_outputs(samples=50), str(tmp_path / "val.safetensors")
    save_outputs(outputs, path)
    monkeypatch.setattr("eenet.data.outputs_data._NUMBERS", 3 * 5 * 8)
    batches = list(OutputsData(test=path).test_dataloader())
    assert max(len(b.quality[0]) for b in batches) <= 8
    together = [torch.cat(field, 1) for field in zip(*(b.evidence for b in batches), strict=True)]
    assert all(map(torch.equal, together, outputs.evidence()))
    assert torch.equal(torch.cat([b.quality for b in batches], 1), outputs.answer_quality())
