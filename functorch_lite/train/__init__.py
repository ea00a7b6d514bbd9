# SPDX-License-Identifier: MIT
"""What surrounds a training step: loop, progress, metrics, checkpoints, logs, pictures. The step stays the user's."""

from .auroc import AUROC as AUROC
from .auroc import auroc as auroc
from .callbacks import Callback as Callback
from .callbacks import EarlyStopping as EarlyStopping
from .callbacks import Run as Run
from .checkpoints import Checkpoints as Checkpoints
from .checkpoints import Saved as Saved
from .display import Progress as Progress
from .display import progress as progress
from .evaluation import evaluate as evaluate
from .files import CheckpointError as CheckpointError
from .files import read_metadata as read_metadata
from .files import restore as restore
from .files import save as save
from .logs import JsonLog as JsonLog
from .logs import TensorBoard as TensorBoard
from .loop import Result as Result
from .loop import fit as fit
from .matching import CheckpointWarning as CheckpointWarning
from .metrics import F1 as F1
from .metrics import Accuracy as Accuracy
from .metrics import ConfusionMatrix as ConfusionMatrix
from .metrics import Mean as Mean
from .metrics import Metric as Metric
from .metrics import Perplexity as Perplexity
from .metrics import TopK as TopK
from .metrics import accuracy as accuracy
from .metrics import confusion_matrix as confusion_matrix
from .microbatches import microbatched as microbatched
from .nan_watch import NonFiniteError as NonFiniteError
from .plots import plot_curves as plot_curves
from .plots import plot_predictions as plot_predictions
