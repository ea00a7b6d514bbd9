# SPDX-License-Identifier: MIT
"""Random keys that are used twice, while that is checked."""

import numpy as np

import functorch_lite as fl
from functorch_lite import lax, random


def key_used_twice():
    with fl.config(check_key_reuse=True):
        key = random.key(0)
        weights = random.normal(key, (3,))
        weights + random.uniform(key, (3,))


def key_used_after_it_was_split():
    with fl.config(check_key_reuse=True):
        key = random.key(0)
        parts = random.split(key)
        random.normal(parts[0]) + random.normal(key)


def key_used_in_every_step_of_a_compiled_loop():
    @fl.jit
    def walk(key):
        def step(x, _):
            return x + random.normal(key), None

        return lax.scan(step, np.float32(0), None, length=3)

    with fl.config(check_key_reuse=True):
        walk(random.key(0))
