# SPDX-License-Identifier: MIT
"""The scientific examples run, and what they find is right: each on a case small enough to be checked."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import functorch_lite as fl
from functorch_lite import nn
from tests.examples.loading import load


def pictures(folder):
    return {path.name for path in folder.iterdir()}


# --- pinn ---------------------------------------------------------------------------------------------------------


def test_exact_solution_of_burgers_equation_fulfils_it():
    pinn = load("pinn")
    t, x, h = np.array([0.2, 0.6, 0.9]), np.array([0.5, -0.3, 0.8]), 1e-3
    nu = 0.01 / np.pi
    u = lambda t, x: pinn.exact_solution(t, x, nu)  # noqa: E731
    u_t = (u(t + h, x) - u(t - h, x)) / (2 * h)
    u_x = (u(t, x + h) - u(t, x - h)) / (2 * h)
    u_xx = (u(t, x + h) - 2 * u(t, x) + u(t, x - h)) / h**2
    assert np.abs(u_t + u(t, x) * u_x - nu * u_xx).max() < 1e-4
    assert np.allclose(u(np.array(1e-9), x), -np.sin(np.pi * x), atol=1e-6)


def test_residual_of_a_network_is_that_of_finite_differences():
    pinn = load("pinn")
    model = nn.MLP((2, 8, 8, 1), activation=nn.tanh, dtype=np.float64, key=fl.random.key(0))
    t, x, h = np.array([0.2, 0.6, 0.9]), np.array([0.5, -0.3, 0.8]), 1e-4
    nu = 0.01 / np.pi
    u = lambda t, x: pinn.u(model, t, x)  # noqa: E731
    u_t = (u(t + h, x) - u(t - h, x)) / (2 * h)
    u_x = (u(t, x + h) - u(t, x - h)) / (2 * h)
    u_xx = (u(t, x + h) - 2 * u(t, x) + u(t, x - h)) / h**2
    assert np.allclose(pinn.residual(model, t, x, nu), u_t + u(t, x) * u_x - nu * u_xx, atol=1e-5)


def test_pinn_comes_closer_to_the_solution(tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    main = load("pinn").main
    small = ["--viscosity", "0.1", "--points", "300", "--width", "12", "--out", str(tmp_path)]
    assert main([*small, "--steps", "50", "--rounds", "2", "--lbfgs-steps", "60"]) < 0.05
    assert pictures(tmp_path) == {"solution.png"}


# --- hmc ----------------------------------------------------------------------------------------------------------


def test_hmc_samples_a_gaussian_with_its_mean_and_covariance():
    hmc = load("hmc")
    mean, covariance = np.array([1.0, -2.0]), np.array([[1.0, 0.6], [0.6, 0.5]])
    precision = np.linalg.inv(covariance)

    def log_density(z):
        return -0.5 * (z - mean) @ precision @ (z - mean)

    samples, acceptance, _ = hmc.sample(
        log_density, np.zeros((4, 2)), key=fl.random.key(0), n_warmup=200, n_steps=1000, n_leaps=8
    )
    flat = samples.reshape(-1, 2)
    error = 4 * np.sqrt(np.diag(covariance) / hmc.effective_samples(samples))  # four standard errors
    assert (np.abs(flat.mean(0) - mean) < error).all()
    assert np.allclose(np.cov(flat.T), covariance, atol=0.15)
    assert hmc.split_r_hat(samples).max() < 1.02
    assert 0.6 < acceptance < 0.98


def test_leapfrog_keeps_the_energy_and_runs_back():
    hmc = load("hmc")
    start, momentum = np.array([1.0, 0.5]), np.array([0.2, -0.3])
    force = fl.grad(lambda z: -0.5 * np.sum(z**2))
    position, end = hmc.leapfrog(force, start, momentum, 0.1, 20)
    energy = lambda q, p: 0.5 * np.sum(q**2) + 0.5 * np.sum(p**2)  # noqa: E731
    assert abs(energy(position, end) - energy(start, momentum)) < 5e-3
    back, reverse = hmc.leapfrog(force, position, -end, 0.1, 20)
    assert np.allclose(back, start) and np.allclose(-reverse, momentum)


def test_r_hat_and_effective_samples_of_independent_and_of_stuck_chains():
    hmc = load("hmc")
    independent = np.random.default_rng(0).normal(size=(1000, 4, 2))
    assert np.abs(hmc.split_r_hat(independent) - 1).max() < 0.01
    assert np.allclose(hmc.effective_samples(independent), 4000, rtol=0.15)
    stuck = independent + 3 * np.arange(4)[:, None]
    assert hmc.split_r_hat(stuck).min() > 2


def test_hmc_on_tumours_converges(tmp_path, capsys):
    pytest.importorskip("sklearn", reason="the data comes with scikit-learn")
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    argv = ["--steps", "300", "--warmup", "100", "--chains", "4", "--out", str(tmp_path)]
    assert load("hmc").main(argv) < 1.1
    assert pictures(tmp_path) == {"weights.png"}
    assert "held out: accuracy 9" in capsys.readouterr().out


# --- policy gradient ----------------------------------------------------------------------------------------------


def test_cart_pole_obeys_the_lagrangian():
    """Energy is constant without a push: the Euler step gains it in proportion to the square of the tick."""
    pg = load("policy_gradient")
    world = pg.World(*np.array([0.0, 0.3, 0.1, -0.2]))
    moved = pg.move(world, 1)
    assert np.isclose(moved.x, 0.3 * pg.TICK)
    # cart and pole: (M + m) x'' + m l (a'' cos a - a'^2 sin a) = F,  4/3 l a'' + x'' cos a = g sin a
    thrust, turn = (moved.speed - world.speed) / pg.TICK, (moved.rate - world.rate) / pg.TICK
    sin, cos = np.sin(world.angle), np.cos(world.angle)
    force = (pg.CART + pg.POLE) * thrust + pg.POLE * pg.HALF_LENGTH * (turn * cos - world.rate**2 * sin)
    assert np.isclose(force, pg.FORCE)
    assert np.isclose(4 / 3 * pg.HALF_LENGTH * turn + thrust * cos, pg.GRAVITY * sin)


def test_returns_are_discounted_sums():
    pg = load("policy_gradient")
    assert np.allclose(pg.returns(np.array([1.0, 1.0, 1.0, 0.0]), 0.5), [1.75, 1.5, 1.0, 0.0])


def test_policy_gradient_learns_to_balance(tmp_path):
    pytest.importorskip("matplotlib", reason="the pictures need matplotlib")
    assert load("policy_gradient").main(["--steps", "25", "--worlds", "32", "--out", str(tmp_path)]) > 195
    assert pictures(tmp_path) == {"return.png", "episodes.png"}


# --- lanczos ------------------------------------------------------------------------------------------------------


def test_lanczos_finds_the_eigenvalues_of_a_matrix():
    module = load("lanczos")
    rng = np.random.default_rng(0)
    a = rng.normal(size=(30, 30))
    a = a + a.T
    values, errors, weights = module.ritz(*module.lanczos(lambda v: a @ v, rng.normal(size=30), 30)[:2])
    assert np.allclose(values, np.linalg.eigvalsh(a))
    assert np.isclose(weights.sum(), 1)
    diagonal, off_diagonal, basis = module.lanczos(lambda v: a @ v, rng.normal(size=30), 12)
    assert np.allclose(basis @ basis.T, np.eye(12))
    found, errors, _ = module.ritz(diagonal, off_diagonal)
    nearest = np.abs(found[:, None] - np.linalg.eigvalsh(a)).min(1)
    assert (nearest <= errors + 1e-12).all()


def test_lanczos_on_a_network_finds_the_eigenvalues_of_its_hessian():
    module = load("lanczos")
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(50, 4)), rng.integers(0, 3, 50)
    model = nn.MLP((4, 5, 3), activation=nn.tanh, dtype=np.float64, key=fl.random.key(0))
    point = module.flatten(model)
    full = fl.hessian(lambda p: module.loss_fn(module.unflatten(model, p), x, labels))(point)
    values, _, _ = module.eigenvalues(model, x, labels, rng.normal(size=(2, point.size)), 25)
    assert np.allclose(values[:, -5:], np.linalg.eigvalsh(full)[-5:], rtol=1e-6)


def test_lanczos_runs_on_the_digits(tmp_path, capsys):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    argv = ["--steps", "20", "--iterations", "12", "--starts", "2", "--width", "8", "--out", str(tmp_path)]
    assert load("lanczos").main(argv)[0] > 0
    assert pictures(tmp_path) == {"spectrum.png"}
    assert "after training, largest eigenvalues" in capsys.readouterr().out


# --- neural ODE ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "tolerance"), [("rk4", 1e-6), ("dopri5", 1e-7)])
def test_solvers_follow_a_rotation_forwards_and_back(solver, tolerance):
    ode = load("neural_ode")
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    law = lambda y, args: turn @ y  # noqa: E731
    options = {"n_steps": 100} if solver == "rk4" else {}
    solve = lambda y, time: getattr(ode, solver)(law, y, None, time, **options)  # noqa: E731
    end = solve(np.array([1.0, 0.0]), 2.0)
    assert np.allclose(end, [np.cos(2), -np.sin(2)], atol=tolerance)
    assert np.allclose(solve(end, -2.0), [1.0, 0.0], atol=tolerance)


def test_rk4_is_of_order_four():
    ode = load("neural_ode")
    error = lambda n: abs(ode.rk4(lambda y, args: -y, np.ones(1), None, 1.0, n)[0] - np.exp(-1.0))  # noqa: E731
    assert 14 < error(8) / error(16) < 18


def test_adjoint_gradients_are_those_through_the_solver():
    ode = load("neural_ode")
    matrix, y = np.array([[-0.2, 1.0], [-1.3, 0.1]]), np.array([0.7, -0.4])
    law = lambda y, matrix: np.tanh(matrix @ y)  # noqa: E731
    solved = ode.with_adjoint(ode.dopri5, law)
    through = lambda y, matrix, time: np.sum(ode.dopri5(law, y, matrix, time) ** 2)  # noqa: E731
    adjoint = lambda y, matrix, time: np.sum(solved(y, matrix, time) ** 2)  # noqa: E731
    expected = fl.grad(through, (0, 1))(y, matrix, 1.5)
    for found, right in zip(fl.jit(fl.grad(adjoint, (0, 1)))(y, matrix, 1.5), expected, strict=True):
        assert np.allclose(found, right, atol=1e-6)
    h = 1e-5
    by_time = (through(y, matrix, 1.5 + h) - through(y, matrix, 1.5 - h)) / (2 * h)
    assert np.isclose(fl.grad(adjoint, 2)(y, matrix, 1.5), by_time, atol=1e-5)


def test_neural_ode_learns(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    argv = ["--solver", "rk4", "--out", str(tmp_path)]
    assert load("neural_ode").main([*argv, "--steps", "150"]) < 1.3
    assert pictures(tmp_path) == {"path.png"}
    assert "gradient of dopri5, adjoint" in capsys.readouterr().out


# --- maml ---------------------------------------------------------------------------------------------------------


def test_maml_gradient_has_the_second_derivatives():
    maml = load("maml")
    model = nn.MLP((1, 4, 1), activation=nn.tanh, dtype=np.float64, key=fl.random.key(0))
    x, y = np.linspace(-1, 1, 5)[:, None], np.linspace(0, 2, 5)[:, None] ** 2
    loss = lambda model: maml.loss_fn(maml.adapt(model, x, y, 1), x, y)  # noqa: E731
    direction = fl.tree.map(np.ones_like, model)
    slope = sum(np.sum(g) for g in fl.tree.leaves(fl.grad(loss)(model)))
    h = 1e-6
    shifted = [loss(fl.tree.map(lambda p, d, s=s: p + s * h * d, model, direction)) for s in (1, -1)]
    assert np.isclose(slope, (shifted[0] - shifted[1]) / (2 * h), rtol=1e-6)


def test_maml_learns_to_learn(tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    table = load("maml").main(["--steps", "600", "--out", str(tmp_path)])
    assert table["MAML"][1] < 0.75 * table["MAML"][0]
    assert table["MAML"][1] < 0.8 * table["joint training"][1]
    assert pictures(tmp_path) == {"tasks.png"}


# --- dp_sgd -------------------------------------------------------------------------------------------------------


def test_clipped_gradients_are_not_longer_than_allowed():
    dp = load("dp_sgd")
    long, short = {"a": np.array([3.0, 0.0]), "b": np.array([4.0])}, {"a": np.array([0.3, 0.0]), "b": np.array([0.4])}
    assert np.allclose(dp.clipped(long, 1.0)["a"], [0.6, 0.0]) and np.allclose(dp.clipped(long, 1.0)["b"], [0.8])
    assert np.allclose(dp.clipped(short, 1.0)["a"], short["a"])


def test_private_gradient_without_noise_is_the_sum_of_the_clipped_ones_of_the_examples_taken():
    dp = load("dp_sgd")
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(5, 8, 8)).astype(np.float32), rng.integers(0, 10, 5)
    model, taken = dp.CNN(8, key=fl.random.key(0)), np.array([1, 1, 0, 1, 0], np.float32)
    found, _ = dp.private_gradient(model, dp.Batch(images, labels, taken), fl.random.key(1), 0.5, 0.0, 4)
    kept = [dp.clipped(fl.grad(dp.loss_fn)(model, images[i], labels[i]), 0.5) for i in (0, 1, 3)]
    expected = fl.tree.map(lambda *g: sum(g) / 4, *kept)
    for a, b in zip(fl.tree.leaves(found), fl.tree.leaves(expected), strict=True):
        assert np.allclose(a, b, atol=1e-6)


def test_renyi_divergence_is_that_of_the_integral():
    dp = load("dp_sgd")
    q, sigma, order = 0.1, 1.3, 5
    z, step = np.linspace(-30, 30, 200001, retstep=True)
    density = np.exp(-0.5 * (z / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    ratio = 1 - q + q * np.exp((2 * z - 1) / (2 * sigma**2))
    assert np.isclose(dp.renyi(q, sigma, order), np.log(np.sum(density * ratio**order) * step) / (order - 1))
    assert dp.renyi(1, sigma, order) == order / (2 * sigma**2)


def test_epsilon_falls_with_noise_and_grows_with_steps():
    dp = load("dp_sgd")
    assert 0.9 < dp.epsilon(0.01, 4.0, 10_000, 1e-5) < 1.26  # Abadi and others' looser accounting: 1.26
    assert dp.epsilon(0.01, 2.0, 100, 1e-5) < dp.epsilon(0.01, 1.0, 100, 1e-5) < dp.epsilon(0.01, 1.0, 200, 1e-5)
    assert dp.epsilon(0.01, 0.0, 1, 1e-5) == np.inf


def test_dp_sgd_learns_the_digits(tmp_path):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    argv = ["--data", "digits", "--steps", "40", "--batch-size", "128", "--no-compare", "--out", str(tmp_path)]
    accuracy, epsilon = load("dp_sgd").main(argv)
    assert accuracy > 0.5 and 1 < epsilon < 10
    assert pictures(tmp_path) == {"curves.png"}


# --- ensemble -----------------------------------------------------------------------------------------------------


def test_calibration_error_of_the_sure_and_of_the_honest():
    ensemble = load("ensemble")
    labels = np.array([0, 1, 0, 1])
    sure, honest = np.array([[1.0, 0.0]] * 4), np.array([[0.5, 0.5]] * 4)
    assert np.isclose(ensemble.calibration_error(sure, labels), 0.5)
    assert np.isclose(ensemble.calibration_error(honest, labels), 0.0)
    assert np.isclose(ensemble.entropy(honest), np.log(2)) and np.isclose(ensemble.entropy(sure), 0.0)
    assert np.isclose(ensemble.negative_log_likelihood(honest, labels), np.log(2))


def test_a_member_of_the_ensemble_trains_as_it_would_alone():
    ensemble = load("ensemble")
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(20, 6)).astype(np.float32), rng.integers(0, 10, 20)
    opt = ensemble.optim.adam(1e-2)
    step, keys = ensemble.make_train_step(opt, x, labels, 5), fl.random.split(fl.random.key(0), 3)
    models = fl.vmap(lambda key: ensemble.make_model(6, 7, key))(keys)
    together = step(ensemble.State(models, fl.vmap(opt.init)(models)), keys)[0].model
    one = fl.tree.map(lambda leaf: leaf[1:2], models)
    alone = step(ensemble.State(one, fl.vmap(opt.init)(one)), keys[1:2])[0].model
    for a, b in zip(fl.tree.leaves(together), fl.tree.leaves(alone), strict=True):
        assert np.allclose(a[1], b[0], atol=1e-6)


def test_the_ensemble_is_better_than_its_members(tmp_path):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    argv = ["--data", "digits", "--steps", "150", "--members", "4", "--width", "32", "--out", str(tmp_path)]
    members, ensemble = load("ensemble").main(argv)
    assert ensemble["log loss"] < members["log loss"]
    assert ensemble["accuracy"] > 0.9
    assert ensemble["entropy on noise"] > members["entropy on noise"]
    assert pictures(tmp_path) == {"calibration.png"}


# --- gaussian process ---------------------------------------------------------------------------------------------


def test_marginal_likelihood_is_the_density_of_a_gaussian():
    gp = load("gaussian_process")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 2)), rng.normal(size=12)
    prior = gp.Prior(np.array(0.3), np.array([0.1, -0.5]), np.array(-1.0))
    matrix = gp.covariance(prior, x, x) + (np.exp(-2.0) + gp.JITTER) * np.eye(12)
    expected = -multivariate_normal(np.zeros(12), matrix).logpdf(y)
    assert np.isclose(gp.negative_log_marginal(prior, x, y), expected)


def test_gaussian_process_predicts_as_the_formula_says():
    gp = load("gaussian_process")
    rng = np.random.default_rng(0)
    x, y, z = rng.normal(size=(12, 2)), rng.normal(size=12), rng.normal(size=(4, 2))
    prior = gp.Prior(np.array(0.3), np.array([0.1, -0.5]), np.array(-1.0))
    inverse = np.linalg.inv(gp.covariance(prior, x, x) + (np.exp(-2.0) + gp.JITTER) * np.eye(12))
    cross = gp.covariance(prior, z, x)
    mean, variance = gp.predict(prior, x, y, z)
    assert np.allclose(mean, cross @ inverse @ y)
    own = np.diagonal(gp.covariance(prior, z, z)) + np.exp(-2.0)
    assert np.allclose(variance, own - np.sum(cross @ inverse * cross, 1))


def test_fitted_process_finds_the_noise_and_the_curve(capsys):
    gp = load("gaussian_process")
    rng = np.random.default_rng(0)
    x, z = rng.uniform(-3, 3, (60, 1)), np.linspace(-2.5, 2.5, 20)[:, None]
    y = np.sin(2 * x[:, 0]) + 0.1 * rng.normal(size=60)
    prior, _ = gp.fit(x, y, 2, 15, fl.random.key(0))
    assert 0.07 < np.exp(prior.noise) < 0.14
    mean, variance = gp.predict(prior, x, y, z)
    assert np.abs(mean - np.sin(2 * z[:, 0])).max() < 0.15
    assert (np.abs(mean - np.sin(2 * z[:, 0])) < 3 * np.sqrt(variance)).all()


def test_gaussian_process_on_diabetes(tmp_path, capsys):
    pytest.importorskip("sklearn", reason="the data comes with scikit-learn")
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    error = load("gaussian_process").main(["--steps", "5", "--starts", "1", "--out", str(tmp_path)])
    assert error < 0.85  # of the deviation of the outcomes
    assert pictures(tmp_path) == {"predictions.png"}
    assert "held out: error" in capsys.readouterr().out
