# SPDX-License-Identifier: MIT
"""A schedule as text: what runs, in order, and how each group is fused.

    kernel 7x17 in rows of 17 = reduce_max sub exp reduce_sum div
    step dot_general
"""

from functorch_lite.compiler.schedule.fusion import Group, Schedule


def schedule_text(schedule: Schedule) -> str:
    """One line for each group, in the order they run.

    A kernel's line has its domain, the extents that its reductions run over, and its operations; a reduction marked *
    is complete only after the kernel. A step's line has its operation.
    """
    return "".join(f"{_line(group)}\n" for group in schedule.groups)


def _line(group: Group) -> str:
    if group.domain is None:
        return f"step {group.equations[0].prim.name}"
    domain = "x".join(map(str, group.domain)) or "scalar"
    if group.reduced is not None:
        domain += " in rows of " + ("x".join(str(group.domain[d]) for d in group.reduced) or "one")
    return f"kernel {domain} = " + " ".join(e.prim.name + "*" * (e.outputs[0] in group.ends) for e in group.equations)
