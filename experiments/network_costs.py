"""Parameters and MACs of the paper's networks up to each exit, as a markdown table.

Run `python experiments/network_costs.py`. Everything lies on the meta device: nothing is computed
and no weights are needed. Heads passed on the way are included.
"""

from typing import Any

import torch

from eenet.models import (
    CifarResNet,
    DenseNet,
    HRNet,
    MSDNet,
    MultiExitNetwork,
    TorchvisionBackbone,
    TransformerEncoder,
)
from eenet.models.costs import count_macs

MSDNET35 = {
    "base": 7,
    "step": 7,
    "num_exits": 5,
    "channels": 32,
    "growth_rate": 16,
    "growth_factors": [1, 2, 4, 4],
    "bottleneck_factors": [1, 2, 4, 4],
    "stem": "imagenet",
    "num_classes": 1000,
}


def networks() -> dict[str, tuple[MultiExitNetwork, Any]]:
    small, large = torch.empty(1, 3, 32, 32), torch.empty(1, 3, 224, 224)
    street = torch.empty(1, 3, 1024, 2048)
    tokens = {"input_ids": torch.zeros(1, 128, dtype=torch.int64)}
    thirds = [9, 18, 27]
    return {
        "ResNet56-3, 32 x 32": (CifarResNet(56, thirds, head_convs=3), small),
        "ResNet83-3 (bottleneck), 32 x 32": (
            CifarResNet(83, thirds, block="bottleneck", head_convs=3),
            small,
        ),
        "ResNet56-3, linear heads": (CifarResNet(56, thirds), small),
        "ResNet83-3, linear heads": (CifarResNet(83, thirds, block="bottleneck"), small),
        "DenseNet121-4, 32 x 32": (DenseNet(head_convs=3), small),
        "DenseNet121-4, linear heads": (DenseNet(), small),
        "MSDNet35-5, 224 x 224": (MSDNet(**MSDNET35), large),  # type: ignore[arg-type]
        "BERT-4, 128 tokens": (TransformerEncoder(config={"model_type": "bert"}), tokens),
        "ResNet-50 with 4 exits, 224 x 224": (TorchvisionBackbone("resnet50"), large),
        "HRNet-W18 with 4 exits, 1024 x 2048": (HRNet("hrnet_w18"), street),
        "HRNet-W48 with 4 exits, 1024 x 2048": (HRNet("hrnet_w48"), street),
    }


def parameters_up_to(net: MultiExitNetwork) -> list[int]:
    counts, total = [], 0
    for stage, head in zip(net.stages, net.heads, strict=True):
        total += sum(p.numel() for part in (stage, head) for p in part.parameters())
        counts.append(total)
    return counts


def main() -> None:
    print("| network | parameters, M | MACs per sample, M | MACs, share of the last exit |")
    print("| --- | --- | --- | --- |")
    with torch.device("meta"):
        for name, (net, x) in networks().items():
            macs = count_macs(net, x)
            cells = (
                " / ".join(f"{count / 1e6:.2f}" for count in parameters_up_to(net)),
                " / ".join(f"{count / 1e6:.1f}" for count in macs),
                " / ".join(f"{count / macs[-1]:.3f}" for count in macs),
            )
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
