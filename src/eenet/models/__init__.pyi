from .base import MultiExitNetwork as MultiExitNetwork
from .base import narrow as narrow
from .densenet import DenseNet as DenseNet
from .hrnet import HRNet as HRNet
from .msdnet import MSDNet as MSDNet
from .resnet import CifarResNet as CifarResNet
from .torchvision_backbone import TorchvisionBackbone as TorchvisionBackbone
from .transformer import TransformerEncoder as TransformerEncoder
