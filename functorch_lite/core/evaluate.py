# SPDX-License-Identifier: MIT
"""Running a program: under the current trace (`interpret`), or at once on arrays (`Evaluator`)."""

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from functorch_lite.backends.registry import constant, home, leave_home, module_of_arrays
from functorch_lite.core.program import Equation, Literal, Program, memoized
from functorch_lite.core.rules import eval_rules
from functorch_lite.core.tracer import bind, raise_leak, reset_trace, root, rule_on_device, set_trace
from functorch_lite.errors import GENERATED, FunctorchLiteError, add_place, replays


@replays("eqn")
def interpret(program: Program, args: Sequence[Any]) -> list[Any]:
    """Apply the program's primitives to `args` in the current trace, so that any transform can act on them."""
    env: dict[Any, Any] = dict(zip(program.inputs, args, strict=True))
    for eqn in program.equations:
        values = [constant(a.value, *args) if type(a) is Literal else env[a] for a in eqn.inputs]
        out = bind(eqn.prim, *values, **eqn.params)
        if eqn.prim.multiple:
            env.update(zip(eqn.outputs, out, strict=True))
        else:
            env[eqn.outputs[0]] = out
    return [constant(a.value, *args) if type(a) is Literal else env[a] for a in program.outputs]


class Evaluator:
    """A program prepared for repeated runs on arrays: Python code with a line for each equation.

    Each value is dropped after its last use. `v3 = f1(v2)` where a NumPy ufunc is the whole rule, else
    `v3 = f1(xp, v2, axes=p0)`; the lines' equations are kept for error messages.
    """

    def __init__(self, program: Program):
        writer = Writer(program)
        self._lines = writer.equations
        self.text = "\n".join(writer.lines)
        names = writer.namespace()
        self.on_numpy = self._run = names["run"]  # (numpy, *arrays): for a caller that knows them to be NumPy's
        self._n_inputs = len(program.inputs)
        self._rules = {name: prim for prim, name in writer.functions.items()}
        self._on_device: dict[str, Callable[..., list[Any]]] = {}

    def __call__(self, *args: Any) -> list[Any]:
        if len(args) != self._n_inputs:
            raise TypeError(f"a program of {self._n_inputs} inputs was called with {len(args)}.")
        token, away = set_trace(root), None
        try:
            xp = module_of_arrays(args, raise_leak)
            if xp is not home.get():
                away = home.set(xp)
            return self._run(xp, *args) if xp is np else self._runner_on(xp)(xp, *args)
        except FunctorchLiteError:
            raise
        except Exception as error:
            self._add_place(error)
            raise
        finally:
            leave_home(away)
            reset_trace(token)

    def _runner_on(self, xp):
        """The same code with this module's functions, and with constants that live where its arrays do."""
        found = self._on_device.get(xp.__name__)
        if found is None:
            names = {name: self._moved(name, value, xp) for name, value in self._run.__globals__.items()}
            found = self._on_device[xp.__name__] = FunctionType(self._run.__code__, names)
        return found

    def _moved(self, name, value, xp):
        prim = self._rules.get(name)
        if prim is not None:
            return rule_on_device(prim) if prim.ufunc is None else getattr(xp, prim.ufunc.__name__)
        return xp.asarray(value) if isinstance(value, np.ndarray) else value

    def _add_place(self, error):
        traceback = error.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code is self._run.__code__:
                eqn = self._lines[traceback.tb_lineno]
                if eqn is not None:
                    add_place(error, eqn.prim.name, eqn.source)
            traceback = traceback.tb_next


class Writer:
    """Writes the Python code of a program; `equations[n]` is the equation of line n (lines count from 1)."""

    def __init__(self, program: Program):
        self.names: dict[str, Any] = {}
        self.lines: list[str] = []
        self.equations: list[Equation | None] = [None]
        self._vars: dict[Any, str] = {}
        self.functions: dict[Any, str] = {}
        self._write(program)

    def _write(self, program):
        self._line("def run(xp" + "".join(f", {self._new(v)}" for v in program.inputs) + "):")
        self._body(program, program.inputs)

    def _body(self, program, held):
        """The lines after the first; the caller holds the inputs `held`."""
        last = _last_uses(program, held)
        for index, eqn in enumerate(program.equations):
            self._equation(eqn)
            dead = [v for v in dict.fromkeys((*eqn.inputs, *eqn.outputs)) if last.get(v, -1) == index]
            if dead:
                self._line(" del " + ", ".join(self._vars[v] for v in dead))
        self._line(" return " + self._results([self._atom(a) for a in program.outputs]))

    def _results(self, outputs):
        return f"[{', '.join(outputs)}]"

    def namespace(self) -> dict[str, Any]:
        """The names that the code refers to, and `run`, which it defines."""
        self.names["SOURCES"] = [eqn.source if eqn is not None else None for eqn in self.equations]
        exec(compile("\n".join(self.lines), GENERATED, "exec"), self.names)
        return self.names

    def _line(self, text, eqn=None):
        self.lines.append(text)
        self.equations.append(eqn)

    def _new(self, var):
        self._vars[var] = f"v{len(self._vars)}"
        return self._vars[var]

    def _constant(self, value, prefix):
        name = f"{prefix}{len(self.names)}"
        self.names[name] = value
        return name

    def _atom(self, atom):
        return self._constant(atom.value, "c") if type(atom) is Literal else self._vars[atom]

    def _function(self, prim):
        if prim not in self.functions:
            self.functions[prim] = self._constant(prim.ufunc or eval_rules[prim], "f")
        return self.functions[prim]

    def _equation(self, eqn: Equation):
        inputs = [self._atom(a) for a in eqn.inputs]
        text = self._call(eqn, inputs)
        outs = ", ".join(self._new(v) for v in eqn.outputs)
        left = f"{outs}, = " if len(eqn.outputs) == 1 and eqn.prim.multiple else f"{outs} = " if outs else ""
        self._line(f" {left}{text}", eqn)

    def _call(self, eqn, inputs):
        if eqn.prim.ufunc is None:
            inputs = ["xp", *inputs, *(f"{k}={self._constant(v, 'p')}" for k, v in eqn.params.items())]
        return f"{self._function(eqn.prim)}({', '.join(inputs)})"


def _last_uses(program, kept):
    """The equation after which each value can go; `kept` are inputs that the caller holds."""
    last: dict[Any, int] = {}
    for index, eqn in enumerate(program.equations):
        for atom in (*eqn.outputs, *eqn.inputs):
            if type(atom) is not Literal:
                last[atom] = index
    for atom in program.outputs:
        last.pop(atom, None)
    for var in kept:
        last.pop(var, None)
    return last


def evaluator(program: Program) -> Evaluator:
    """The program's evaluator, made once."""
    return memoized(program, "evaluator", lambda: Evaluator(program))
