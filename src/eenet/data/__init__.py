"""LightningDataModules: train, validation, optional calibration and test splits."""

from eenet.data.cityscapes import Cityscapes
from eenet.data.exit_outputs import OutputsData
from eenet.data.image_folder import ImageFolder
from eenet.data.small_images import CIFAR10, CIFAR100, Digits, FashionMNIST
from eenet.data.text import TextClassification

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "Cityscapes",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "OutputsData",
    "TextClassification",
]
