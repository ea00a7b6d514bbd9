# SPDX-License-Identifier: MIT
"""Structured control flow: loops and branches that every transform goes through."""

from functorch_lite.control_flow.associative_scan import associative_scan as associative_scan
from functorch_lite.control_flow.branches import cond as cond
from functorch_lite.control_flow.branches import switch as switch
from functorch_lite.control_flow.implicit import custom_linear_solve as custom_linear_solve
from functorch_lite.control_flow.implicit import custom_root as custom_root
from functorch_lite.control_flow.mapping import map as map
from functorch_lite.control_flow.scanning import scan as scan
from functorch_lite.control_flow.whiling import fori_loop as fori_loop
from functorch_lite.control_flow.whiling import while_loop as while_loop
