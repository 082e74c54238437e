"""Test samples as a reader sees them: images, sentences, street scenes with their masks."""

import json
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from eenet.data.cityscapes import CLASSES, CityscapesSource
from eenet.data.image_folder import MEAN, STD
from eenet.modules.losses import upsample_to_labels
from eenet.outputs import ExitOutputs
from eenet.run_folder import RunFolder

_EACH = 4
"""Samples taken for each exit at each of three budgets."""
_SIDE = 160, 160
"""Longest sides of a thumbnail, in pixels."""
_LETTERS = 240
"""Longest text."""
# The usual colors of Cityscapes; unlabelled pixels are black.
_PALETTE = [channel for c in CLASSES for channel in c.color]


def choose(exits: Tensor, count: int, seed: int = 0) -> Tensor:
    """Positions of some samples that left at each exit, at a low, a middle and a high budget.

    Args:
        exits: `[M, N]`, where each leaves at M increasing budgets.
        count: Number of exits.
        seed: Of the random choice.

    Returns:
        Increasing positions, without repetition.
    """
    order = torch.randperm(exits.shape[1], generator=torch.Generator().manual_seed(seed))
    chosen: set[int] = set()
    for part in (0.25, 0.5, 0.75):
        at = exits[int(part * (len(exits) - 1))][order]
        for k in range(count):
            chosen.update(order[at == k][:_EACH].tolist())
    return torch.tensor(sorted(chosen))


def examples(run: RunFolder, outputs: ExitOutputs, positions: Tensor) -> dict[str, Any]:
    """The samples at `positions` of a run's test split, and its names of the classes.

    Args:
        run: The run, whose stage 1 says which data they are.
        outputs: The test split's.
        positions: `[S]`.

    Returns:
        "examples", for each its "text", or an "image" with a "mask" of the labels and "answers"
        (masks of each exit) for scenes, all thumbnails. "classes", their names. "missing"
        says why there are no examples, where the data can no longer be read.
    """
    classes = json.loads(outputs.metadata.get("class_names", "null"))
    samples, missing = [], None
    try:
        data = run.data()
        if texts := hasattr(data, "text_column"):
            split = data.rows("test")
        else:
            data.setup("test")
            split = data.dataset("test", False)
        classes = data.class_names or classes
        if (count := len(split)) != outputs.num_samples:
            raise ValueError(f"the test data hold {count} samples, not {outputs.num_samples}")
        if texts:
            chosen = [split[n][data.text_column] for n in positions.tolist()]
            samples = [{"text": text[:_LETTERS]} for text in chosen]
        else:
            samples = _images(run, data, split, outputs, positions)
    except Exception as error:  # any data module's, its files gone: the rest of the report stands
        missing = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    classes = classes or [str(c) for c in range(outputs.num_classes)]
    return {"examples": samples, "classes": [str(name) for name in classes], "missing": missing}


def _images(
    run: RunFolder, data: Any, split: Any, outputs: ExitOutputs, positions: Tensor
) -> list[dict[str, Any]]:
    x, y = split[positions.tolist()]
    if outputs.labels is not None and not torch.equal(y.long(), outputs.labels[positions]):
        raise ValueError("the test data have other labels than when the outputs were collected")
    samples: list[dict[str, Any]] = [{"image": _picture(image)} for image in x]
    if isinstance(data, CityscapesSource):
        net = run.network().eval()
        with torch.inference_mode():
            for sample, image, labels in zip(samples, x, y, strict=True):
                logits = net(image[None])
                answers = [upsample_to_labels(z, labels[None]).argmax(1)[0] for z in logits]
                sample["mask"] = _mask(labels)
                sample["answers"] = [_mask(answer) for answer in answers]
    return samples


def _picture(image: Tensor) -> Image.Image:
    """An image as it was: uint8, or normalized by ImageNet's statistics `[C, H, W]`."""
    if image.dtype != torch.uint8:
        mean, std = torch.tensor([MEAN, STD])[..., None, None]
        image = ((image * std + mean).clamp(0, 1) * 255).round().byte()
    picture = Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy())
    picture.thumbnail(_SIDE, Image.Resampling.LANCZOS)
    return picture


def _mask(classes: Tensor) -> Image.Image:
    mask = Image.fromarray(classes.byte().numpy(), mode="P")
    mask.putpalette(_PALETTE + [0] * (768 - len(_PALETTE)))
    mask.thumbnail(_SIDE, Image.Resampling.NEAREST)
    return mask
