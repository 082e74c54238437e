"""The two LightningModules: multi-exit training and policy fitting."""

from eenet.modules.multi_exit import MultiExitModule, SegmentationModule
from eenet.modules.optim import WarmupCosine
from eenet.modules.scheduler import SchedulerModule

__all__ = ["MultiExitModule", "SchedulerModule", "SegmentationModule", "WarmupCosine"]
