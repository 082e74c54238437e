"""LightningDataModules: train, validation, optional calibration and test splits."""

from eenet.data.digits import Digits
from eenet.data.small_images import CIFAR10, CIFAR100, FashionMNIST

__all__ = ["CIFAR10", "CIFAR100", "Digits", "FashionMNIST"]
