# SPDX-License-Identifier: MIT
"""use_key: the note that a random key is used, written where `config.check_key_reuse` is on.

    use_key(key, by)      an effect without results; at run time it raises where the key was used before

What has been used is kept in `config.settings.used_keys` for the length of the `with` block, by the two words of each
key, so that the note works in a compiled program, a loop body and a mapped function (each row is a key) as it does
eagerly. A mapped call is one use of each of its keys. Programs that compute something a second time, a checkpointed
function in the reverse pass say, run `without_key_uses`.
"""

from typing import Any

import numpy as np

from functorch_lite.config import config
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.program import Equation, Program, memoized, subprograms
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind
from functorch_lite.errors import KeyReuseError, user_source

use_key_p = Primitive("use_key", Kind.OPAQUE, multiple=True, effect=True)


def use_key(key: Any, by: str) -> None:
    """Note that `key` [..., 2] (uint32) is used by the function called `by`; `clone` makes it unused again.

    Raises: KeyReuseError, when the program passes here, where it was used before in this block.
    """
    bind(use_key_p, key, by=by)


shape_rules.add(use_key_p, lambda key, *, by: [])
transpose_rules.absent(use_key_p, "a key has no tangent")


@eval_rules.register(use_key_p)
def _(xp, keys, *, by):
    used = config.settings.used_keys
    words = keys if xp is np else keys.get()
    found = set(map(tuple, np.reshape(words, (-1, 2)).tolist()))
    if by == "clone":
        for key in found:
            used.pop(key, None)
    elif config.check_key_reuse:
        _refuse_reuse(found, used, by)
        used.update(dict.fromkeys(found, (by, user_source())))
    return []


def _refuse_reuse(keys, used, by):
    again = min((key for key in keys if key in used), default=None)
    if again is not None:
        first, source = used[again]
        where = f" at {source}" if source is not None else ""
        raise KeyReuseError(
            f"random.{by}: the key {list(again)} was used before, by random.{first}{where}\n"
            "  The same key gives the same numbers. Split it, `key, sub = random.split(key)`, and use each part once."
        )


@jvp_rules.register(use_key_p)
def _(primals, tangents, *, by):
    bind(use_key_p, *primals, by=by)
    return [], []


@batch_rules.register(use_key_p)
def _(size, args, batched, *, by):
    return bind(use_key_p, *args, by=by), []


# --- programs ---------------------------------------------------------------------------------------------------------


def has_effects_by_row(program: Program) -> bool:
    """Whether the program does something once a row when it is mapped; the use of a key is noted for all together."""
    return memoized(program, "effects by row", lambda: without_key_uses(program).has_effects)


def without_key_uses(program: Program) -> Program:
    """The same function, which notes no use of a key: the program itself where it has none."""
    return memoized(program, "without key uses", lambda: _stripped(program)) if program.has_effects else program


def _stripped(program):
    equations = tuple([_strip(e) for e in program.equations if e.prim is not use_key_p])
    if len(equations) == len(program.equations) and all(
        a is b for a, b in zip(equations, program.equations, strict=True)
    ):
        return program
    return Program(program.inputs, equations, program.outputs, program.name)


def _strip(equation):
    if not any(p.has_effects for p in subprograms(equation.params)):
        return equation
    params = {name: _strip_value(value) for name, value in equation.params.items()}
    if all(params[name] is value for name, value in equation.params.items()):
        return equation
    return Equation(equation.prim, equation.inputs, equation.outputs, params, equation.source)


def _strip_value(value):
    if isinstance(value, Program):
        return without_key_uses(value)
    if isinstance(value, tuple) and any(isinstance(v, Program) for v in value):
        parts = tuple([_strip_value(v) for v in value])
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else parts
    return value
