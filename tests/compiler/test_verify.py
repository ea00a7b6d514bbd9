# SPDX-License-Identifier: MIT
"""Verification: right programs pass, wrong ones are found, named and reproduced."""

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.passes.inline import inline_calls
from functorch_lite.compiler.pipeline import optimize
from functorch_lite.compiler.trust import verify
from functorch_lite.compiler.trust.bounds import Difference, growth_of, worst_difference
from functorch_lite.compiler.trust.locate import Fault, make_part
from functorch_lite.compiler.trust.reproduce import Case, Unwritable, dtype, write_reproducer
from functorch_lite.core.evaluate import evaluator
from functorch_lite.errors import MiscompilationError
from functorch_lite.transforms.inspection import make_program
from tests.compiler.miscompilations import BUGS

ROOT = Path(__file__).parents[2]
NOTHING = Difference(0, (), 0, 0, 0.0)
EPS = float(np.finfo(np.float32).eps)


def _random(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def _verified(function, args, folder=None):
    program = make_program(function)(*args)
    return verify.VerifiedExecutable(program, optimize(program), folder=folder)


# --- bugs put in on purpose -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUGS)
def test_a_miscompilation_is_found_named_and_reproduced(name, tmp_path):
    bug = BUGS[name]
    with bug.breaks(), pytest.raises(MiscompilationError) as error:
        _verified(bug.function, bug.args, tmp_path)(*bug.args)
    message = str(error.value)
    assert message.count("\n") < 8
    assert message.startswith("verify: compiled wrongly by ")
    assert all(word in message for word in bug.words), message
    assert error.value.source is not None
    assert error.value.source.filename.endswith("miscompilations.py")
    (script,) = tmp_path.glob("*.py")
    assert script.name in message
    assert not list(tmp_path.glob("*.part"))
    wrong = _run("-m", "tests.compiler.miscompilations", name, str(script))
    assert wrong.returncode == 1, wrong.stderr
    assert wrong.stdout.startswith("wrong: ")


def test_a_reproducer_of_a_repaired_compiler_agrees(tmp_path):
    bug = BUGS["last iteration skipped"]
    with bug.breaks(), pytest.raises(MiscompilationError):
        _verified(bug.function, bug.args, tmp_path)(*bug.args)
    (script,) = tmp_path.glob("*.py")
    right = _run(str(script))
    assert right.returncode == 0, right.stderr
    assert right.stdout == "compiled and evaluated agree.\n"


def _run(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT,
                          env={"PYTHONPATH": str(ROOT), "FUNCTORCH_LITE_CACHE_DIR": ""})


@pytest.mark.parametrize("name", BUGS)
def test_a_function_that_a_bug_breaks_is_right_without_it(name):
    bug = BUGS[name]
    found = _verified(bug.function, bug.args)(*bug.args)
    expected = evaluator(make_program(bug.function)(*bug.args))(*bug.args)
    assert [f.dtype for f in found] == [np.asarray(e).dtype for e in expected]


@pytest.mark.parametrize(("size", "what"), [(4, r"inline code \(sub\)"), (4096, r"kernel k\d+ \(sub\)")])
def test_code_inside_a_loop_is_named(size, what, tmp_path):
    def steps(x):
        return fl.lax.scan(lambda c, row: (np.tanh(c - row), c), x[0], x)

    bug = BUGS["swapped operands"]
    x = _random(5, size)
    with bug.breaks(), pytest.raises(MiscompilationError, match=what) as error:
        _verified(steps, (x,), tmp_path)(x)
    assert "np.tanh(c - row)" in str(error.value)


def test_the_last_of_many_lines_is_the_users(tmp_path):
    bug = BUGS["swapped operands"]
    with bug.breaks(), pytest.raises(MiscompilationError) as error:
        _verified(bug.function, bug.args, tmp_path)(*bug.args)
    assert str(error.value).splitlines()[-1].startswith("  at miscompilations.py:")


def test_an_exception_of_the_binary_alone_is_a_miscompilation(tmp_path):
    def fails(*args):
        raise ZeroDivisionError("no")

    x = _random(3)
    program = make_program(np.sin)(x)
    checked = verify.VerifiedExecutable(program, optimize(program), fails, tmp_path)
    with pytest.raises(MiscompilationError, match=r"raises ZeroDivisionError \(no\), the evaluator returns"):
        checked(x)


def test_a_program_that_writes_to_its_arguments_is_miscompiled(tmp_path):
    def overwrites(x):
        out = np.sin(x)
        x[1] = 0
        return [out]

    x = _random(3)
    program = make_program(np.sin)(x)
    checked = verify.VerifiedExecutable(program, optimize(program), overwrites, tmp_path)
    with pytest.raises(MiscompilationError, match="the compiled program overwrites its argument 0, the evaluator ret"):
        checked(x)
    assert x[1] != 0


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    bug = BUGS["swapped operands"]
    (tmp_path / "file").write_text("")
    with bug.breaks(), pytest.raises(MiscompilationError, match="reproducer could not be written"):
        _verified(bug.function, bug.args, tmp_path / "file" / "inside")(*bug.args)


# --- right programs -------------------------------------------------------------------------------------------------


def _softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


RIGHT = {
    "a network": (lambda x, w: np.sum(np.tanh(x @ w)), _random(30, 20), _random(20, 10)),
    "a gradient": (fl.grad(lambda w, x: np.sum(_softmax(x @ w) ** 2)), _random(20, 10), _random(30, 20)),
    "cancellation": (lambda x: np.sum(np.sin(x)) - np.sum(np.sin(x)[::-1]), _random(1000)),
    "half precision": (lambda x: np.sum(x * x, axis=0), _random(50, 8).astype(ml_dtypes.bfloat16)),
    "complex": (lambda x: np.exp(x * 1j) / (x + 2j), _random(40)),
    "a discontinuity": (lambda x: np.floor(np.sum(x, axis=0) * 8), _random(64, 64)),
    "a choice": (lambda x: np.argmax(np.sin(x) + np.cos(x), axis=1), np.tile(_random(9, 1), (1, 40))),
    "a loop": (lambda x: fl.lax.scan(lambda c, r: (np.sin(c + r), c * r), x[0], x), _random(20, 6)),
    "a while loop": (lambda x: fl.lax.while_loop(lambda c: np.sum(c) < 100, lambda c: c * 1.3 + 1, x), _random(6)),
    "linear algebra": (lambda x: np.linalg.inv(x), _random(12, 12)),
    "NaN and infinity": (lambda x: np.log(x) + 1 / x, np.array([-1, 0, 1, np.inf, np.nan], np.float32)),
    "integers": (lambda x: np.cumsum(x * x), np.arange(50)),
    "chaos": (lambda x, w: fl.lax.scan(lambda h, r: (np.tanh(h @ w + r),) * 2, x[0], x)[1],
              _random(300, 32), _random(32, 32)),
    "a sorted one": (lambda x: np.sort(x)[::2] - np.mean(x), _random(101)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_program_passes(name):
    function, *args = RIGHT[name]
    with np.errstate(all="ignore"):
        checked = _verified(function, args)
        found = checked(*args)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, checked.executable(*args), strict=True))


def test_an_effect_happens_once():
    seen = []

    def function(x):
        fl.debug.callback(lambda v: seen.append(float(v)), x[0])
        return np.sin(x)

    x = _random(3)
    _verified(function, (x,))(x)
    assert seen == [float(x[0])]


def test_an_error_of_both_is_the_users():
    table, at = _random(4), np.array([9])
    with pytest.raises(IndexError):
        _verified(lambda t, i: t[i], (table, at))(table, at)


def test_donated_arguments_may_be_overwritten_and_are_checked():
    x = _random(64)
    program = make_program(lambda x: x * 2 + 1)(x)
    checked = verify.VerifiedExecutable(program, optimize(program), donated=(0,))
    (found,) = checked.donating([x], (0,))
    assert np.array_equal(found, x * 2 + 1)


def test_arguments_stay_what_they_were():
    x = _random(9)
    before = x.copy()
    _verified(lambda x: x[::-1] * 2, (x,))(x)
    assert np.array_equal(x, before)


# --- the rule -------------------------------------------------------------------------------------------------------


def _growth(function, *args):
    return growth_of(inline_calls(make_program(function)(*args)))


def test_what_both_round_alike_must_be_equal():
    x = _random(4, 4)
    assert _growth(lambda x: (np.sqrt(abs(x)) * 2 - x / 3).astype(np.float16), x) == [0.0]
    assert _growth(lambda x: (np.sort(x.T), x > 0, np.max(x)), x) == [0.0, 0.0, 0.0]


def test_growth_counts_the_terms_of_the_longest_path():
    x = _random(8, 16)
    (product,) = _growth(lambda x: x @ x.T, x)
    (both,) = _growth(lambda x: np.sum(x @ x.T), x)
    assert product == pytest.approx(16 * EPS)
    assert both == pytest.approx(16 * EPS + 66 * EPS)


def test_growth_of_a_loop_is_that_of_all_its_steps():
    x = _random(10, 4)
    carry, rows = _growth(lambda x: fl.lax.scan(lambda c, r: (np.sin(c), c), x[0], x), x)
    assert carry == pytest.approx(10 * 4 * EPS)
    assert 9 * 4 * EPS <= rows <= carry * 1.001


def test_a_difference_is_that_of_the_worst_element():
    x = _random(5)
    program = make_program(np.sin)(x)
    right = np.sin(x)
    wrong = right.copy()
    wrong[3] += 0.5
    wrong[1] += 0.1
    difference = worst_difference(program, [x], [wrong], [right])
    assert difference is not None
    assert difference.position == (3,) and difference.found == wrong[3]
    assert "output 0 at [3] is" in str(difference)
    assert worst_difference(program, [x], [np.nextafter(right, np.float32(9))], [right]) is None


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_nan_and_infinities_must_agree(value):
    x = abs(_random(5))
    x[2] = value
    program = make_program(np.log)(x)
    with np.errstate(all="ignore"):
        right = np.log(x)
    for other in (1.0, np.inf, np.nan, -np.inf):
        wrong = np.where(np.arange(5) == 2, np.float32(other), right)
        same = np.array_equal(wrong, right, equal_nan=True)
        assert (worst_difference(program, [x], [wrong], [right]) is None) == same
    one_more = np.where(np.arange(5) == 3, np.float32(np.nan), right)
    assert worst_difference(program, [x], [one_more], [right]) is not None


def test_another_dtype_is_a_difference():
    x = _random(5)
    difference = worst_difference(make_program(np.sin)(x), [x], [np.sin(x).astype(float)], [np.sin(x)])
    assert "f64[5], evaluated f32[5]" in str(difference)


# --- reproducers ----------------------------------------------------------------------------------------------------


def test_a_reproducer_holds_every_kind_of_value(tmp_path):
    table = _random(7)

    def function(x, y):
        z = fl.lax.scan(lambda c, r: (c + r * 2.5, np.where(r > table, np.inf, c)), x[0], x)
        return z, y.astype(np.float32) @ np.ones((3, 2), np.float32)

    args = [_random(4, 7), _random(2, 3).astype(ml_dtypes.bfloat16)]
    program = inline_calls(make_program(function)(*args))
    fault = Fault("nothing", "native", program, args, NOTHING)
    script = write_reproducer(fault, tmp_path)
    found = _run(str(script))
    assert found.returncode == 0, found.stderr


def test_an_equation_with_a_function_has_no_reproducer(tmp_path):
    x = _random(3)
    out = fl.ShapeDtype((3,), np.float32)
    program = make_program(lambda x: fl.pure_callback(np.sin, out, x))(x)
    with pytest.raises(Unwritable, match="a parameter of type"):
        write_reproducer(Fault("nothing", "native", program, [x], NOTHING), tmp_path)


def test_a_part_takes_what_it_does_not_compute():
    x = _random(3)
    program = make_program(lambda x: np.sin(x) * x)(x)
    first, second = program.equations
    part = make_part([second], second.outputs, {program.inputs[0]: x, first.outputs[0]: np.sin(x)})
    assert len(part.program.inputs) == 2
    assert np.array_equal(evaluator(part.program)(*part.args)[0], np.sin(x) * x)


def test_types_of_a_case_are_read():
    case = Case()
    a, b = case.inputs("float32[2,3]", "bfloat16[]")
    assert a.aval.shape == (2, 3) and b.aval.dtype == dtype("bfloat16") == ml_dtypes.bfloat16
    with pytest.raises(ValueError, match="is no type"):
        case.inputs("float32")
