# SPDX-License-Identifier: MIT
"""What looks like a mistake and is none."""

import numpy as np

import functorch_lite as fl

X = np.array([1.0, 2.0, 3.0])


def test_augmented_assignment_makes_a_new_array():
    def f(x):
        y = x
        y += 1.0
        return np.sum(x * y)

    assert np.array_equal(fl.grad(f)(X), 2 * X + 1.0)
    assert np.array_equal(X, [1.0, 2.0, 3.0])


def test_python_branches_on_a_value_under_grad():
    assert fl.grad(lambda x: x * x if x > 0 else x)(3.0) == 6.0


def test_a_number_under_grad_can_be_read_and_printed(capsys):
    def f(x):
        print(float(x), f"{x:.2f}")
        return x * x

    fl.grad(f)(3.0)
    assert capsys.readouterr().out == "3.0 3.00\n"


def test_the_names_of_arguments_are_kept_only_while_the_function_runs():
    kept = []

    def f(x):
        kept.append(x)
        return np.sum(x)

    fl.grad(f)(X)
    assert kept[0].tag.arguments is None
