"""Multi-exit networks: plain `nn.Module`s under one contract."""

from eenet.models.base import MultiExitNetwork, narrow
from eenet.models.densenet import DenseNet
from eenet.models.hrnet import HRNet
from eenet.models.msdnet import MSDNet
from eenet.models.resnet import CifarResNet
from eenet.models.torchvision_backbone import TorchvisionBackbone
from eenet.models.transformer import TransformerEncoder

__all__ = [
    "CifarResNet",
    "DenseNet",
    "HRNet",
    "MSDNet",
    "MultiExitNetwork",
    "TorchvisionBackbone",
    "TransformerEncoder",
    "narrow",
]
