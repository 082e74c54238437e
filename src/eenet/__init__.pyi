from .comparison.compare import compare as compare
from .inference.predictor import AdaptivePredictor as AdaptivePredictor
from .modules.fit import fit_policies as fit_policies
from .outputs import ExitOutputs as ExitOutputs
from .outputs import load_outputs as load_outputs
from .outputs import save_outputs as save_outputs
from .policies import BEEM as BEEM
from .policies import BudgetControl as BudgetControl
from .policies import EENet as EENet
from .policies import EENetPlus as EENetPlus
from .policies import Entropy as Entropy
from .policies import HeuristicPolicy as HeuristicPolicy
from .policies import JointGates as JointGates
from .policies import LearnedPolicy as LearnedPolicy
from .policies import LearnedStopping as LearnedStopping
from .policies import Margin as Margin
from .policies import MaxProbability as MaxProbability
from .policies import Patience as Patience
from .policies import Policy as Policy
from .policies import Random as Random
from .policies import Rule as Rule
from .policies import Temperature as Temperature
from .policies import Vote as Vote
from .policies import within_budget as within_budget
from .policies import within_loss as within_loss

__version__: str
