# SPDX-License-Identifier: MIT
"""The project's own rules about its files: what is public, what may be imported where, how long a file may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import functorch_lite as fl

PACKAGE = Path(fl.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
OPTIONAL = {"cupy", "cupyx", "onnx", "onnxruntime", "mpi4py", "grain", "rich", "matplotlib", "safetensors", "sklearn"}

PUBLIC = {
    "ShapeDtype", "checkpoint", "checkpoint_name", "checkpoint_policies", "closure_convert", "config", "custom_jvp",
    "custom_vjp", "debug", "ensure_compile_time_eval", "eval_shape", "grad", "hessian", "hvp", "jacfwd", "jacrev",
    "jit", "jvp", "lax", "linear_transpose", "linearize", "make_jaxpr", "make_program", "nn", "numpy", "optim",
    "pure_callback", "random", "scipy", "stop_gradient", "tree", "value_and_grad", "vjp", "vmap",
}
_MODULES = {"blas_threads", "errors", "files", "packages", "rules"}
_SUBPACKAGES = {p.name for p in PACKAGE.iterdir() if p.is_dir()} | _MODULES


def test_the_public_names_are_these():
    names = {n for n in dir(fl) if not n.startswith("_")} - {"importlib", "TYPE_CHECKING"}
    assert names - (_SUBPACKAGES - PUBLIC) == PUBLIC


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_follows_the_house_rules(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert text.startswith("# SPDX-License-Identifier: MIT\n")
    assert ast.get_docstring(tree), "no module docstring"
    assert text.count("\n") <= 600, "longer than 600 lines"
    assert not list(_inner_imports(tree)), "an import inside a function"


def _inner_imports(tree):
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    name = (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
                    if name.split(".")[0] not in OPTIONAL:
                        yield name


def test_importing_the_package_imports_no_optional_package_and_no_scipy():
    code = "import functorch_lite, sys; print(' '.join(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not (OPTIONAL | {"scipy", "jax", "torch", "llvmlite"}) & set(loaded)
