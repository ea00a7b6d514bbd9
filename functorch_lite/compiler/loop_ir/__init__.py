# SPDX-License-Identifier: MIT
"""Loop IR: typed, structured, single assignment loops over flat buffers. What every target is generated from."""
