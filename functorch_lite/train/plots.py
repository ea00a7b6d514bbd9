# SPDX-License-Identifier: MIT
"""Pictures of a training run, written as files; needs matplotlib.

No window is opened and no global state of matplotlib is touched, so it works without a display.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from functorch_lite.errors import ArgumentError
from functorch_lite.packages import need

_MOST_COLUMNS = 3
_SMOOTHING = 50  # points of the running mean drawn over a noisy curve


def plot_curves(path: str | os.PathLike[str], history: Mapping[str, Sequence[Any]], *, title: str = "") -> Path:
    """Draw each series of `history` in a panel and write the picture to `path` (.png, .svg, .pdf).

    A series is numbers, drawn over 1, 2, 3 ..., or pairs (step, number); `eval/loss` is drawn beside `loss`, if there
    is one. Folders are made. Returns the path.

    Raises ArgumentError for an empty history, MissingPackageError without matplotlib.

    >>> plot_curves("out/curves.png", {"loss": [2.3, 1.2, 0.8]})                         # doctest: +SKIP
    """
    if not history:
        raise ArgumentError("plot_curves: `history` has no series.")
    groups = _groups(history)
    n_columns = min(len(groups), _MOST_COLUMNS)
    n_rows = -(-len(groups) // n_columns)
    figure = _figure((5 * n_columns, 3.5 * n_rows))
    panels = _panels(figure, n_rows, n_columns)
    for axes in panels[len(groups) :]:
        axes.axis("off")
    for axes, (name, members) in zip(panels, groups.items(), strict=False):
        for member in members:
            points = np.asarray(history[member], dtype=np.float64)
            pairs = points.ndim == 2
            steps, values = (points[:, 0], points[:, 1]) if pairs else (np.arange(1, len(points) + 1), points)
            _draw(axes, steps, values, member)
        axes.set_title(name)
        axes.grid(alpha=0.3)
        if len(members) > 1:
            axes.legend()
    return _save(figure, path, title)


def _groups(history: Mapping[str, Any]) -> dict[str, list[str]]:
    """The series of each panel."""
    groups: dict[str, list[str]] = {}
    for name in history:
        base = name.removeprefix("eval/")
        groups.setdefault(base if base in history else name, []).append(name)
    return groups


def plot_predictions(
    path: str | os.PathLike[str],
    images: np.ndarray,
    predictions: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    n_columns: int = 8,
) -> Path:
    """Draw images [n, height, width] with what they were taken for, wrong ones in red with the right name; the path.

    predictions and labels are integers [n]; `names` are those of the classes.
    """
    n_rows = max(1, -(-len(images) // n_columns))
    figure = _figure((1.6 * n_columns, 1.9 * n_rows))
    named = [str(i) for i in range(int(max(predictions.max(), labels.max())) + 1)] if names is None else names
    for axes in _panels(figure, n_rows, n_columns):
        axes.axis("off")
    for axes, image, guess, label in zip(figure.axes, images, predictions, labels, strict=False):
        axes.imshow(image, cmap="gray_r")
        right = guess == label
        text = named[guess] if right else f"{named[guess]}\nnot {named[label]}"
        axes.set_title(text, fontsize=8, color="black" if right else "crimson")
    return _save(figure, path, "")


def _draw(axes: Any, steps: np.ndarray, values: np.ndarray, name: str) -> None:
    if len(values) <= 4 * _SMOOTHING:
        axes.plot(steps, values, marker="" if len(values) > 30 else "o", label=name)
        return
    mean = np.convolve(values, np.full(_SMOOTHING, 1 / _SMOOTHING), mode="valid")
    middle = steps[_SMOOTHING // 2 :][: len(mean)]
    (line,) = axes.plot(middle, mean, label=name)
    axes.plot(steps, values, alpha=0.35, color=line.get_color(), zorder=1)


def _figure(size: tuple[float, float]) -> Any:
    figure = _matplotlib("figure").Figure(figsize=size, layout="constrained")
    _matplotlib("backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def _matplotlib(module: str) -> ModuleType:
    return need(f"matplotlib.{module}", by="a plot", install="'functorch_lite[train]'")


def _panels(figure: Any, n_rows: int, n_columns: int) -> list[Any]:
    return list(np.ravel(figure.subplots(n_rows, n_columns, squeeze=False)))


def _save(figure: Any, path: str | os.PathLike[str], title: str) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if title:
        figure.suptitle(title)
    figure.savefig(target, dpi=120)
    return target
