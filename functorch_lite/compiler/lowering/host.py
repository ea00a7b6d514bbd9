# SPDX-License-Identifier: MIT
"""What runs in Python between kernels by its nature: callbacks, key checks. Collectives name an axis that vmap binds.

The trampoline is `HostCall`: program order is kept, and an exception leaves the program with the user's traceback.
"""

from functorch_lite.compiler.lowering.rules import step_rules
from functorch_lite.primitives import collective
from functorch_lite.primitives.host import debug_callback_p, pure_callback_p
from functorch_lite.primitives.key_use import use_key_p

for _prim in (pure_callback_p, debug_callback_p):
    step_rules.absent(_prim, "it calls a Python function, in program order")
step_rules.absent(use_key_p, "it keeps record of the keys used, in Python")
for _prim in (
    collective.psum_p, collective.all_gather_p, collective.psum_scatter_p, collective.ppermute_p,
    collective.all_to_all_p, collective.axis_index_p,
):
    step_rules.absent(_prim, "batching replaces it: it does not reach the compiler")
