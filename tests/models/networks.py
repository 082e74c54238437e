"""Every kind of network, small, with an input for each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eenet.models import (
    CifarResNet,
    DenseNet,
    HRNet,
    MSDNet,
    MultiExitNetwork,
    TorchvisionBackbone,
    TransformerEncoder,
    narrow,
)

BERT = {
    "model_type": "bert",
    "num_hidden_layers": 3,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 40,
}
ROBERTA = BERT | {"model_type": "roberta", "pad_token_id": 1}
DISTILBERT = {
    "model_type": "distilbert",
    "n_layers": 3,
    "dim": 16,
    "n_heads": 2,
    "hidden_dim": 32,
    "vocab_size": 40,
}
SMALL_MSD = {"base": 2, "step": 1, "num_exits": 3, "channels": 4, "growth_rate": 2}
VIT_EXITS = ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_5"]


def images(size: int = 16) -> Tensor:
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))


def sentences() -> dict[str, Tensor]:
    ids = torch.randint(3, 40, (4, 7), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(7) < torch.tensor([[7], [3], [5], [1]])).long()
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}


# Eight channels at least: with four, the backward pass of torch 2.14 in the channels-last layout
# corrupted the heap on a CPU (double free; not in the contiguous layout, nor from eight on).
NETWORKS: dict[str, tuple[Callable[[], MultiExitNetwork], Callable[[], Any]]] = {
    "resnet": (lambda: CifarResNet(20, [1, 4, 9], 5, widths=(8, 8, 8), head_convs=1), images),
    "resnet-bottleneck": (
        lambda: CifarResNet(29, [3, 6, 9], 5, block="bottleneck", widths=(8, 8, 8)),
        images,
    ),
    "densenet": (
        lambda: DenseNet([2, 2, 2], [1, 3], 5, growth_rate=4, stem_channels=8, head_convs=1),
        images,
    ),
    "densenet-imagenet": (
        lambda: DenseNet([1, 1], [1, 2], 5, "imagenet", growth_rate=4, stem_channels=8),
        images,
    ),
    "msdnet": (lambda: MSDNet(**SMALL_MSD, num_classes=5), images),
    "msdnet-min": (
        lambda: MSDNet(
            **SMALL_MSD, num_classes=5, prune="min", step_mode="lin_grow", bottleneck=False
        ),
        images,
    ),
    "msdnet-imagenet": (
        lambda: MSDNet(**SMALL_MSD, num_classes=5, stem="imagenet", reduction=0),
        lambda: images(32),
    ),
    "torchvision-resnet18": (
        lambda: TorchvisionBackbone("resnet18", ["layer1", "layer3.0"], 5, head_convs=1),
        lambda: images(32),
    ),
    "hrnet": (lambda: HRNet("hrnet_w18_small", 5), lambda: images(32)),
    "bert": (lambda: TransformerEncoder(config=BERT, exits=[1, 3], num_classes=5), sentences),
    "bert-mean": (
        lambda: TransformerEncoder(config=BERT, exits=[1, 3], num_classes=5, pooling="mean"),
        sentences,
    ),
    "roberta": (lambda: TransformerEncoder(config=ROBERTA, exits=[2, 3], num_classes=5), sentences),
    "distilbert": (
        lambda: TransformerEncoder(config=DISTILBERT, exits=[1, 2, 3], num_classes=5),
        sentences,
    ),
}


@torch.no_grad()
def run_steps(net: MultiExitNetwork, x: Any, keep: Tensor | None = None) -> Tensor:
    """Logits of all exits, stage by stage; only some samples go on after the first exit."""
    state, logits = net.begin(x), []
    for k in range(net.num_exits):
        exit_logits, state = net.step(k, state)
        if keep is not None and k == 0:
            exit_logits, state = exit_logits[keep], narrow(state, keep)
        logits.append(exit_logits)
    return torch.stack(logits)
