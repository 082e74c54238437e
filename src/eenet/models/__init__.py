"""Multi-exit networks: plain `nn.Module`s under one contract."""

from eenet.models.base import MultiExitNetwork, narrow
from eenet.models.resnet import CifarResNet

__all__ = ["CifarResNet", "MultiExitNetwork", "narrow"]
