# SPDX-License-Identifier: MIT
"""Random keys in memory: which keys get a barrier, and that the bits stay the same."""

import numpy as np

import functorch_lite as fl
from functorch_lite import random
from functorch_lite.compiler.passes.keys import hold_keys
from tests.compiler.passes.support import check_pass, program_of

KEY = np.array([0, 7], np.uint32)


def names(program):
    return [e.prim.name for e in program.equations]


def drawn_after_splits(n_splits):
    def fun(key):
        def one(key):
            for _ in range(n_splits):
                key = random.split(key)[0]
            return random.bits(key, (3,))

        return [fl.vmap(one)(random.split(key, 5))]

    return fun


def test_each_hash_of_many_hashed_keys_reads_memory():
    result = check_pass(hold_keys, program_of(drawn_after_splits(2), KEY), [KEY])
    assert names(result).count("barrier") == 3


def test_keys_that_two_hashes_read_are_held_once():
    def fun(key):
        keys = random.split(key, 5)
        return [random.bits(keys[0], (3,)), fl.vmap(random.bits)(keys), fl.vmap(random.fold_in)(keys, np.arange(5))]

    result = check_pass(hold_keys, program_of(fun, KEY), [KEY])
    assert names(result).count("barrier") == 1


def test_single_keys_and_keys_from_outside_are_left_alone():
    def chain(key):
        return [random.bits(random.split(random.split(key)[0])[1], (3,))]

    def outside(keys):
        return [fl.vmap(random.bits)(keys)]

    for program in (program_of(chain, KEY), program_of(outside, np.stack([KEY] * 5))):
        assert hold_keys(program) is program


def test_keys_of_a_loop_body_are_held():
    def fun(key):
        def step(carry, key):
            return carry, fl.vmap(lambda k: random.bits(k, (2,)))(random.split(key, 3))

        return [fl.lax.scan(step, 0.0, random.split(key, 4))[1]]

    result = check_pass(hold_keys, program_of(fun, KEY), [KEY])
    assert str(result).count("barrier") == 1


def test_a_chain_of_splits_compiles_to_the_bits_of_the_evaluator():
    fun = drawn_after_splits(3)
    np.testing.assert_array_equal(fl.jit(fun)(KEY)[0], fun(KEY)[0])
