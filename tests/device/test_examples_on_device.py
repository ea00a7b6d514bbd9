# SPDX-License-Identifier: MIT
"""The scientific examples run with `--device gpu`, the stand-in in CuPy's place: nothing strays to the host."""

import sys

import pytest

from tests.examples.loading import load

ARGUMENTS = {
    "dp_sgd": "--data digits --steps 1 --batch-size 8 --no-compare",
    "ensemble": "--data digits --steps 2 --members 2 --width 8",
    "gaussian_process": "--steps 1 --starts 1",
    "hmc": "--steps 4 --warmup 2 --chains 2 --leaps 2",
    "lanczos": "--steps 2 --iterations 3 --starts 1 --width 4",
    "maml": "--steps 2",
    "neural_ode": "--steps 1 --solver rk4 --length 2",
    "pinn": "--steps 1 --rounds 1 --lbfgs-steps 1 --points 20 --width 4",
    "policy_gradient": "--steps 1 --worlds 3",
}
LIMITS = {"N_STEPS": 20, "N_TIMES": 20}  # of an episode, of a path


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_an_example_runs_on_a_device(name, device, monkeypatch):
    pytest.importorskip("sklearn", reason="the data comes with scikit-learn")
    monkeypatch.setitem(sys.modules, "cupy", device)
    example = load(name)
    for limit in LIMITS.keys() & vars(example).keys():
        monkeypatch.setattr(example, limit, LIMITS[limit])
    found = example.main([*ARGUMENTS[name].split(), "--device", "gpu", "--no-plot"])
    assert found is not None
