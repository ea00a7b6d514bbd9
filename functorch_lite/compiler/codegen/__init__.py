# SPDX-License-Identifier: MIT
"""Code generators: from loop IR to the text of a target."""
