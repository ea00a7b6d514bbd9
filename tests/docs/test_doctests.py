# SPDX-License-Identifier: MIT
"""The examples in the docstrings of the package run and give what they show."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import functorch_lite

OPTIONAL = ("cupy", "mpi4py", "grain", "onnx", "onnxruntime", "rich", "matplotlib", "safetensors", "sklearn", "torch")
MODULES = ["functorch_lite", *(m.name for m in pkgutil.walk_packages(functorch_lite.__path__, "functorch_lite."))]


def loaded(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name and error.name.split(".")[0] in OPTIONAL:
            pytest.skip(f"{error.name} is not installed")
        raise


def own_tests(module):
    """The examples written in the module; a docstring taken over from NumPy or SciPy is theirs to test."""
    source = Path(module.__file__).read_text()
    for test in doctest.DocTestFinder().find(module, extraglobs={"np": np, "fl": functorch_lite}):
        if test.examples and all(e.source.splitlines()[0] in source for e in test.examples):
            yield test


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name):
    module = loaded(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner = doctest.DocTestRunner(optionflags=flags)
    for test in own_tests(module):
        runner.run(test)
    result = runner.summarize(verbose=False)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples fail; see the captured output"
