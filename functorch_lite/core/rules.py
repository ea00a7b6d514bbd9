# SPDX-License-Identifier: MIT
"""Rule tables: for each primitive, how one interpretation treats it.

A table is declared here, below both of its users: primitives register their mathematics in it, a transform looks it
up, and neither imports the other. A cell is a rule, or a stated absence with its reason; `functorch_lite.rules`
prints the matrix and a test refuses a hole.
"""

from collections.abc import Callable
from typing import Any

from functorch_lite.core.primitive import Primitive
from functorch_lite.errors import MissingRuleError


class RuleTable(dict[Primitive, Any]):
    """A mapping from primitive to rule. Registering twice is an error; so is looking up what is not there."""

    def __init__(self, name: str, contract: str):
        super().__init__()
        self.name = name
        self.contract = contract
        self.absences: dict[Primitive, str] = {}

    def register(self, prim: Primitive) -> Callable:
        """Decorator that files a rule for `prim`."""

        def file(rule):
            self.add(prim, rule)
            return rule

        return file

    def add(self, prim: Primitive, rule: Any) -> None:
        """File `rule` for `prim`."""
        if prim in self or prim in self.absences:
            raise ValueError(f"{self.name}: `{prim.name}` already has a rule or a stated absence.")
        self[prim] = rule

    def absent(self, prim: Primitive, why: str) -> None:
        """State that `prim` has no rule in this table, and why."""
        if prim in self or prim in self.absences:
            raise ValueError(f"{self.name}: `{prim.name}` already has a rule or a stated absence.")
        self.absences[prim] = why

    def __missing__(self, prim: Primitive):
        why = self.absences.get(prim)
        reason = f": {why}" if why else ""
        raise MissingRuleError(f"`{prim.name}` has no {self.name} rule{reason}.")


shape_rules = RuleTable("shape", "(*avals, **params) -> aval, or a list of them; raises ShapeError or DTypeError")
eval_rules = RuleTable("eval", "(xp, *arrays, **params) -> array, or a list; xp is the numpy or cupy module")
jvp_rules = RuleTable(
    "jvp",
    "a tuple with one (tangent, out, *primals, **params) -> out tangent for each argument (None, or left out: zero), "
    "or (primals, tangents, **params) -> (out, out tangent), where a tangent None is zero",
)
transpose_rules = RuleTable(
    "transpose",
    "(ct, *args, **params) -> a tuple of cotangents, one an argument; a linear argument comes as `Linear` "
    "(it has a shape and dtype only), every other argument gets None",
)
batch_rules = RuleTable(
    "batch",
    "(size, args, batched, **params) -> (out, is out batched): the mapped axis is axis 0 of a batched argument",
)
linearize_rules = RuleTable(
    "linearize",
    "higher-order only: (trace, primals, tangents, **params) -> (outs, out tangents), the outs computed in the parent",
)
TABLES = (shape_rules, eval_rules, jvp_rules, transpose_rules, batch_rules)
