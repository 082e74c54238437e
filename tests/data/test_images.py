import io

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from lightning import Trainer
from PIL import Image as PILImage

from eenet.data import CIFAR10, CIFAR100, Digits
from eenet.data.splits import split_indices
from eenet.data.tensor_images import mirror, shift
from eenet.models import CifarResNet
from eenet.modules import MultiExitModule


def test_splits_are_disjoint_complete_and_fixed():
    parts = split_indices(100, {"val": 20, "cal": 10}, seed=3)
    together = torch.cat(list(parts.values())).sort().values
    assert torch.equal(together, torch.arange(100))
    assert {name: len(index) for name, index in parts.items()} == {
        "val": 20,
        "cal": 10,
        "train": 70,
    }
    again = split_indices(100, {"val": 20, "cal": 30}, seed=3)
    assert torch.equal(parts["val"], again["val"])
    assert set(parts["cal"].tolist()) < set(again["cal"].tolist())
    with pytest.raises(ValueError, match="nothing to train on"):
        split_indices(100, {"val": 100}, seed=0)


def test_digits_have_their_splits_and_statistics():
    data = Digits(cal_size=100)
    data.setup()
    sizes = {name: len(split) for name, split in data._splits.items()}
    assert sizes == {"val": 400, "cal": 100, "train": 797, "test": 500}
    images, _ = data.on_after_batch_transfer(data._splits["train"].tensors, 0)
    assert abs(images.mean()) < 0.05
    assert abs(images.std() - 1) < 0.05


def test_a_trained_networks_mean_and_deviation_take_the_place_of_the_sets_own():
    data = CIFAR10(mean=[0.5, 0.5, 0.0], std=[0.5, 0.25, 1.0])
    pixel = torch.tensor([255, 0, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    torch.testing.assert_close(data.normalize(pixel)[0, :, 0, 0], torch.tensor([1.0, -2.0, 0.2]))
    with pytest.raises(ValueError, match=r"mean=\[0\.5\] and std="):
        CIFAR10(mean=[0.5])


def test_evaluation_batches_come_in_order_and_training_ones_shuffled():
    data = Digits(batch_size=32)
    data.setup()
    in_order = torch.cat([labels for _, labels in data.val_dataloader()])
    assert torch.equal(in_order, data._splits["val"].tensors[1])
    loader = data.train_dataloader()
    orders = []
    for epoch in (0, 0, 1):
        loader.sampler.set_epoch(epoch)
        orders.append(torch.cat([labels for _, labels in loader]))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_shift_moves_each_image_by_its_own_offset():
    torch.manual_seed(0)
    image = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5)
    moved = shift(image.repeat(50, 1, 1, 1), 2)
    possible = [
        torch.nn.functional.pad(image[0, 0], [2] * 4)[y : y + 5, x : x + 5]
        for y in range(5)
        for x in range(5)
    ]
    assert all(any(torch.equal(one[0], other) for other in possible) for one in moved)
    assert len({one.numpy().tobytes() for one in moved}) > 10
    assert torch.equal(shift(image, 0), image)


def test_mirror_flips_about_half():
    torch.manual_seed(0)
    images = torch.arange(3.0).view(1, 1, 1, 3).repeat(400, 1, 1, 1)
    flipped = (mirror(images)[:, 0, 0, 0] == 2).float().mean()
    assert 0.4 < flipped < 0.6


NAMES = [f"kind {n}" for n in range(10)]


def write_parquet(folder, label_column):
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 5)):
        images = []
        for _ in range(count):
            buffer = io.BytesIO()
            PILImage.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        columns = {"img": images, label_column: [n % 10 for n in range(count)]}
        features = Features({"img": Image(), label_column: ClassLabel(names=NAMES)})
        Dataset.from_dict(columns, features).to_parquet(folder / f"{split}-00000.parquet")


@pytest.mark.parametrize(("make", "column"), [(CIFAR10, "label"), (CIFAR100, "fine_label")])
def test_the_hubs_parquet_form_is_read(tmp_path, make, column):
    write_parquet(tmp_path, column)
    data = make(root=str(tmp_path), val_size=4, batch_size=4)
    data.setup()
    images, labels = data._splits["test"].tensors
    assert images.shape == (5, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert data.class_names == NAMES
    assert labels.tolist() == [0, 1, 2, 3, 4]
    assert len(data._splits["train"]) == 8


def test_other_forms_of_the_pixels_are_read_rightly(tmp_path):
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 2, (12, 32, 32, 1), np.uint8) * np.uint8([50, 100, 150])
    for split in ("train", "test"):
        images = []
        for values in colors:
            image = PILImage.fromarray(values).convert("P", palette=PILImage.Palette.ADAPTIVE)
            image.save(buffer := io.BytesIO(), "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        columns = {"img": images, "label": [n % 10 for n in range(12)]}
        names = ClassLabel(names=NAMES if split == "train" else NAMES[::-1])
        for label in (Value("int64"), names):
            folder = tmp_path / type(label).__name__
            folder.mkdir(exist_ok=True)
            features = Features({"img": Image(), "label": label})
            Dataset.from_dict(columns, features).to_parquet(folder / f"{split}.parquet")
    data = CIFAR10(root=str(tmp_path / "Value"), val_size=4)
    data.setup()
    assert torch.equal(data._splits["test"].tensors[0], torch.from_numpy(colors).movedim(3, 1))
    with pytest.raises(ValueError, match=r"train names the classes \['kind 0'.*, but test"):
        CIFAR10(root=str(tmp_path / "ClassLabel"), val_size=4).setup()
    with pytest.raises(ValueError, match=r"test_size=0\.2: these data have a test set"):
        CIFAR10(test_size=0.2)


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true"])
def test_batches_have_the_precision_of_the_trainer(precision):
    module = MultiExitModule(CifarResNet(depth=8, exits=[1, 3], in_channels=1))
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "max_epochs": 1, "accelerator": "cpu"}
    trainer = Trainer(**options, precision=precision, limit_train_batches=2, limit_val_batches=1)
    trainer.fit(module, data := Digits())
    for batch in trainer.predict(module, data):
        assert torch.isfinite(batch["logits"]).all()


def test_a_few_batches_can_be_overfitted():
    seen = []

    class Module(MultiExitModule):
        def training_step(self, batch, batch_idx):
            seen.append(batch[1])
            return super().training_step(batch, batch_idx)

    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "max_epochs": 2, "accelerator": "cpu"}
    trainer = Trainer(**options, overfit_batches=2)
    trainer.fit(Module(CifarResNet(depth=8, exits=[1, 3], in_channels=1)), Digits())
    assert [len(labels) for labels in seen] == [64] * 4
    assert torch.equal(torch.cat(seen[:2]), torch.cat(seen[2:]))
    assert len(torch.cat(seen[:2]).unique()) == 10


def test_data_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"root='{tmp_path}' holds no"):
        CIFAR10(root=str(tmp_path)).setup()
    write_parquet(tmp_path, "target")
    with pytest.raises(ValueError, match=r"columns \['img', 'target'\]"):
        CIFAR10(root=str(tmp_path), val_size=4).setup()


def test_raw_images_are_encoded_as_the_network_saw_them():
    data = Digits()
    data.setup()
    images, _ = data._splits["test"].tensors
    raw = [PILImage.fromarray(image[0].numpy()).convert("RGB") for image in images[:3]]
    assert torch.equal(data.encode(raw), data.normalize(images[:3]))
    assert data.encode([raw[0].resize((50, 20))]).shape == (1, 1, 8, 8)
