# SPDX-License-Identifier: MIT
"""What surrounds a training step: progress, metrics, pictures. The step itself stays in the user's hands."""

from .display import Progress as Progress
from .display import progress as progress
from .metrics import accuracy as accuracy
from .metrics import confusion_matrix as confusion_matrix
from .plots import plot_curves as plot_curves
from .plots import plot_predictions as plot_predictions
