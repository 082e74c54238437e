from .fit import fit_policies as fit_policies
from .multi_exit import MultiExitModule as MultiExitModule
from .multi_exit import SegmentationModule as SegmentationModule
from .optim import WarmupCosine as WarmupCosine
from .scheduler import SchedulerModule as SchedulerModule
