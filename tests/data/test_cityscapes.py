import numpy as np
import pytest
import torch
from PIL import Image

from eenet.cli.lightning import EENetCLI
from eenet.data import Cityscapes
from eenet.metrics.segmentation import mean_iou
from eenet.models import HRNet
from eenet.modules.multi_exit import SegmentationModule
from eenet.outputs import Evidence, load_outputs

SIZES = {"train": 4, "val": 3, "test": 2}


@pytest.fixture
def root(tmp_path):
    """A tiny set in Cityscapes' layout: road, an unknown thing, then a house left of the sky."""
    rng = np.random.default_rng(0)
    for split, count in SIZES.items():
        for n in range(count):
            ids = np.full((48, 96), 23, np.uint8)
            ids[20:] = 7
            ids[18:20] = 3
            ids[:18, :30] = 11
            image = np.where(ids[..., None] == 23, 200, 60) + rng.integers(0, 20, (48, 96, 3))
            for kind, array, end in (
                ("leftImg8bit", image.astype(np.uint8), "leftImg8bit"),
                ("gtFine", ids, "gtFine_labelIds"),
            ):
                city = tmp_path / kind / split / "bern"
                city.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(city / f"bern_{n:06d}_000019_{end}.png")
    return tmp_path


def test_labels_are_train_ids_at_their_own_size(root):
    data = Cityscapes(str(root), image_size=(32, 64), val_size=1)
    data.setup()
    x, y = data.dataset("test", training=False)[[0, 2]]
    assert (x.shape, x.dtype) == ((2, 3, 32, 64), torch.float32)
    assert (y.shape, y.dtype) == ((2, 48, 96), torch.int64)
    assert y[0, :, -1].tolist() == [10] * 18 + [255] * 2 + [0] * 28
    assert (data.class_names[10], data.class_names[0]) == ("sky", "road")
    image = Image.open(root / "leftImg8bit/val/bern/bern_000002_000019_leftImg8bit.png")
    torch.testing.assert_close(data.encode([image]), x[1:])


def test_where_the_splits_come_from(root):
    held = Cityscapes(str(root), val_size=1, cal_size=1)
    held.setup()
    sizes = {name: len(split) for name, split in held._splits.items()}
    assert sizes == {"train": 2, "val": 1, "cal": 1, "test": 3}
    given = Cityscapes(str(root), val_from="val", test_from="test", cal_size=1)
    given.setup()
    sizes = {name: len(split) for name, split in given._splits.items()}
    assert sizes == {"train": 4, "val": 2, "cal": 1, "test": 2}
    with pytest.raises(FileNotFoundError, match="must hold leftImg8bit/train and gtFine/train"):
        Cityscapes(str(root / "gtFine")).setup()


def relabel(root, change, split="train"):
    for path in (root / "gtFine" / split).rglob("*_labelIds.png"):
        change(np.asarray(Image.open(path))).save(path, "TIFF")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: Image.fromarray(np.dstack([ids] * 3)), "it holds RGB pixels"),
        (lambda ids: Image.fromarray(ids > 9), "it holds 1 pixels"),
        (lambda ids: Image.fromarray(ids * 5), "55 is none of the labelIds"),
        (lambda ids: Image.fromarray(ids.astype(np.uint16) * 100), "1100 is none of the labelIds"),
        (lambda ids: Image.fromarray(np.uint8([255] * 7 + [0] * 4 + [2] * 12 + [10])[ids]),
         r": 4 of the labels hold only the ids \[0, 2, 10\].* not trainIds"),
        (lambda ids: Image.fromarray(ids * 0 + 255), r": 4 .* hold only the ids \[\]"),
    ],
)  # fmt: skip
def test_what_is_no_label_ids_is_refused(root, change, message):
    relabel(root, change)
    with pytest.raises(ValueError, match=f"{root}/gtFine/train.*{message}"):
        Cityscapes(str(root), val_size=1).setup()


def test_label_ids_may_have_other_types(root):
    data = Cityscapes(str(root), image_size=(32, 64), val_size=1)
    data.setup()
    _, y = data.dataset("test", training=False)[[0]]
    for kind in (np.uint16, np.int32):
        relabel(root, lambda ids, kind=kind: Image.fromarray(ids.astype(kind)), "val")
        assert torch.equal(data.dataset("test", training=False)[[0]][1], y)
    relabel(root, lambda ids: Image.fromarray(np.where(ids == 7, -1, ids).astype(np.int32)), "val")
    y[y == 0] = 255
    assert torch.equal(data.dataset("test", training=False)[[0]][1], y)


def test_images_and_labels_are_paired_by_name(tmp_path):
    """The names sort otherwise with `_gtFine` than with `_leftImg8bit` behind them."""
    for split in ("train", "val"):
        for n, name in enumerate(("street", "street_home", "caf\udce9")):
            folders = [tmp_path / kind / split / "town" for kind in ("leftImg8bit", "gtFine")]
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 16), (n,) * 3).save(folders[0] / f"{name}_leftImg8bit.png")
            Image.new("L", (32, 16), 24 + n).save(folders[1] / f"{name}_gtFine_labelIds.png")
            (folders[1] / f"{name}_gtFine_polygons.json").touch()
    (folders[0] / "._street_leftImg8bit.png").touch()
    data = Cityscapes(str(tmp_path), val_from="val", image_size=(16, 32))
    data.setup()
    x, y = data.dataset("test", training=False)[[0, 1, 2]]
    level = ((x[:, 0, 0, 0] * 0.229 + 0.485) * 255).round().long()
    assert y[:, 0, 0].tolist() == (level + 11).tolist()
    assert sorted(level.tolist()) == [0, 1, 2]
    Image.new("L", (16, 16), 24).save(folders[1] / "street_gtFine_labelIds.png")
    with pytest.raises(ValueError, match=r"street_gtFine.*16 x 16 pixels do not fit.*32 x 16"):
        data.dataset("test", training=False)[[0, 1, 2]]
    with pytest.raises(ValueError, match=r"test_size=0\.2: these data have a test set"):
        Cityscapes(str(tmp_path), test_size=0.2)
    (folders[0] / "street_home_leftImg8bit.png").unlink()
    with pytest.warns(UserWarning, match=r"1 \(1 \.png\) have no image .*street_home_gtFine"):
        Cityscapes(str(tmp_path), val_from="val").setup()
    (folders[1] / "street_gtFine_labelIds.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images have no labels; .*street_gtFine"):
        Cityscapes(str(tmp_path), val_from="val").setup()


def test_crops_move_image_and_labels_together(root):
    torch.manual_seed(0)
    data = Cityscapes(str(root), crop=(40, 64), rescale=(0.5, 1.5), val_size=1)
    data.setup()
    train = data.dataset("train", training=True)
    padded = 0
    for n in range(12):
        x, y = train[[n % 3]]
        assert x.shape == (1, 3, 40, 64)
        assert y.shape == (1, 40, 64)
        bright = x[0].mean(0) > 0.5
        wrong = (bright != (y[0] == 10)) & (y[0] != 255)
        assert wrong.sum() < 100  # of 2,560, along the edges of the sky
        padded += (y[0, 0] == 255).all().item()
    assert padded > 0  # at half the size, 24 rows are fewer than 40


def test_what_is_kept_of_the_pixels():
    torch.manual_seed(0)
    module = SegmentationModule(HRNet("hrnet_w18_small", 4)).eval()
    x = torch.randn(2, 3, 32, 64)
    y = torch.randint(4, (2, 32, 64))
    y[0, :16] = 255
    y[1] = 255
    with torch.no_grad():
        kept = module.predict_step((x, y), 0)
        logits = module(x)
    assert kept["pooled"].shape == (2, 4, 7)
    pixels = logits[2, 1].movedim(0, -1).reshape(-1, 4)
    evidence = Evidence.from_logits(pixels)
    expected = [*pixels.softmax(-1).mean(0), *(field.mean() for field in evidence[1:])]
    torch.testing.assert_close(kept["pooled"][1, 2], torch.stack(expected))
    assert kept["confusion"].sum((2, 3)).tolist() == [[16 * 64] * 4, [0] * 4]
    assert kept["quality"][1].tolist() == [0.0] * 4
    grown = torch.nn.functional.interpolate(logits[3, :1], (32, 64), mode="bilinear")
    wrong = (grown.argmax(1) != y[:1]) & (y[:1] != 255)
    assert wrong.sum() == kept["confusion"][0, 3].sum() - kept["confusion"][0, 3].trace()


def test_fit_and_collect_through_the_command_line(root, tmp_path):
    args = ["--model", "eenet.modules.multi_exit.SegmentationModule"]
    args += ["--model.net", "eenet.models.HRNet", "--model.net.name", "hrnet_w18_small"]
    args += ["--data", "eenet.data.Cityscapes", f"--data.root={root}", "--data.val_size=1"]
    args += ["--data.image_size=[32,64]", "--data.crop=[32,64]", "--data.batch_size=2"]
    args += ["--trainer.logger=false", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    args += ["--trainer.enable_progress_bar=false", "--trainer.max_epochs=1"]
    args += ["--model.distill_from=0", "--checkpoint.monitor=val/miou_mean"]
    fitted = EENetCLI(args=["fit", *args]).trainer.callback_metrics
    mean = sum(k * fitted[f"val/miou_exit_{k}"] for k in range(1, 5)) / 10  # linear exit weights
    assert fitted["val/miou_mean"] == pytest.approx(mean.item())
    assert 0 <= mean <= 1
    EENetCLI(args=["predict", *args])
    outputs = load_outputs(tmp_path / "run/outputs/test.safetensors")
    assert (outputs.num_exits, outputs.num_samples, outputs.num_classes) == (4, 3, 19)
    torch.testing.assert_close(outputs.quality, mean_iou(outputs.confusion).float())
