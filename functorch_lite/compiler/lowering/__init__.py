# SPDX-License-Identifier: MIT
"""From primitives to loop IR, one family a file, named as the families of `primitives` are."""
