# SPDX-License-Identifier: MIT
"""Running a program: under the current trace (`interpret`), or at once on arrays (`Evaluator`)."""

from collections.abc import Sequence
from typing import Any

from functorch_lite.backends.registry import module_of_arrays
from functorch_lite.core.program import Equation, Literal, Program, memoized
from functorch_lite.core.rules import eval_rules
from functorch_lite.core.tracer import bind, raise_leak, reset_trace, root, set_trace
from functorch_lite.errors import FunctorchLiteError, add_place, replays


@replays("eqn")
def interpret(program: Program, args: Sequence[Any]) -> list[Any]:
    """Apply the program's primitives to `args` in the current trace, so that any transform can act on them."""
    env: dict[Any, Any] = dict(zip(program.inputs, args, strict=True))
    for eqn in program.equations:
        values = [a.value if type(a) is Literal else env[a] for a in eqn.inputs]
        out = bind(eqn.prim, *values, **eqn.params)
        if eqn.prim.multiple:
            env.update(zip(eqn.outputs, out, strict=True))
        else:
            env[eqn.outputs[0]] = out
    return [a.value if type(a) is Literal else env[a] for a in program.outputs]


class Evaluator:
    """A program prepared for repeated runs on arrays: slots instead of names, each value dropped after its last use."""

    def __init__(self, program: Program):
        slots: dict[Any, int] = {}
        self._template: list[Any] = []
        self._inputs = [self._slot(v, slots) for v in program.inputs]
        last = _last_uses(program)
        self._steps = [self._step(i, eqn, slots, last) for i, eqn in enumerate(program.equations)]
        self._outputs = [self._slot(a, slots) for a in program.outputs]
        self._module_of = module_of_arrays

    def _slot(self, atom, slots):
        key = id(atom) if type(atom) is Literal else atom
        if key not in slots:
            slots[key] = len(self._template)
            self._template.append(atom.value if type(atom) is Literal else None)
        return slots[key]

    def _step(self, index, eqn: Equation, slots, last):
        ins = [self._slot(a, slots) for a in eqn.inputs]
        outs = [self._slot(v, slots) for v in eqn.outputs]
        dead = [slots[v] for v in dict.fromkeys((*eqn.inputs, *eqn.outputs)) if last.get(v, -1) == index]
        return eval_rules[eqn.prim], eqn.params, ins, outs if eqn.prim.multiple else None, outs and outs[0], dead, eqn

    @replays("eqn")
    def __call__(self, *args: Any) -> list[Any]:
        env = self._template.copy()
        for slot, arg in zip(self._inputs, args, strict=True):
            env[slot] = arg
        xp = module_of_arrays(args, raise_leak)
        token = set_trace(root)
        eqn = None
        try:
            for rule, params, ins, outs, out, dead, eqn in self._steps:  # noqa: B007 (eqn is read on an exception)
                result = rule(xp, *[env[i] for i in ins], **params)
                if outs is None:
                    env[out] = result
                else:
                    for slot, value in zip(outs, result, strict=True):
                        env[slot] = value
                for slot in dead:
                    env[slot] = None
        except FunctorchLiteError:
            raise
        except Exception as error:
            if eqn is not None:
                add_place(error, eqn.prim.name, eqn.source)
            raise
        finally:
            reset_trace(token)
        return [env[i] for i in self._outputs]


def _last_uses(program):
    last: dict[Any, int] = {}
    for index, eqn in enumerate(program.equations):
        for atom in (*eqn.outputs, *eqn.inputs):
            if type(atom) is not Literal:
                last[atom] = index
    for atom in program.outputs:
        last.pop(atom, None)
    for var in program.inputs:
        last.pop(var, None)
    return last


def evaluator(program: Program) -> Evaluator:
    """The program's evaluator, made once."""
    return memoized(program, "evaluator", lambda: Evaluator(program))
