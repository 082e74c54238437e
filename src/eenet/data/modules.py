"""The data sources as LightningDataModules."""

import lightning as L

from eenet.data.cityscapes import CityscapesSource
from eenet.data.image_folder import ImageFolderSource
from eenet.data.small_images import CIFAR10Source, CIFAR100Source, DigitsSource, FashionMNISTSource
from eenet.data.splits import DataSource
from eenet.data.text import TextClassificationSource


class SplitDataModule(DataSource, L.LightningDataModule):
    """A data source for Lightning; the base of data modules of your own.

    A subclass says what the splits are (`read`) and how raw samples become the network's input
    (`encode`).
    """


class CIFAR10(CIFAR10Source, SplitDataModule):
    """CIFAR-10: a `CIFAR10Source` for Lightning."""


class CIFAR100(CIFAR100Source, SplitDataModule):
    """CIFAR-100: a `CIFAR100Source` for Lightning."""


class Cityscapes(CityscapesSource, SplitDataModule):
    """Street scenes in Cityscapes' layout: a `CityscapesSource` for Lightning."""


class Digits(DigitsSource, SplitDataModule):
    """The handwritten digits inside scikit-learn: a `DigitsSource` for Lightning."""


class FashionMNIST(FashionMNISTSource, SplitDataModule):
    """Fashion-MNIST: a `FashionMNISTSource` for Lightning."""


class ImageFolder(ImageFolderSource, SplitDataModule):
    """Images in a folder per class: a `ImageFolderSource` for Lightning."""


class TextClassification(TextClassificationSource, SplitDataModule):
    """Texts and their classes from tables: a `TextClassificationSource` for Lightning."""
