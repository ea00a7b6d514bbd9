# SPDX-License-Identifier: MIT
"""What a user sees after each mistake: `golden/<mistake>.txt`, rewritten by `pytest --update-golden`.

A golden text has the exception's class and its built-in base, the message, and the notes below it. The line of the user
that the message names is shown by its text alone, without file name and number.
"""

import importlib
import inspect
import re
import warnings
from pathlib import Path

import pytest

from functorch_lite.core.tracer import Trace, Tracer
from functorch_lite.errors import FunctorchLiteError

HERE = Path(__file__).parent
MODULES = [
    importlib.import_module(f"tests.errors.mistakes.{path.stem}")
    for path in sorted((HERE / "mistakes").glob("[a-z]*.py"))
]
MISTAKES = {
    name: fun
    for module in MODULES
    for name, fun in inspect.getmembers(module, inspect.isfunction)
    if fun.__module__ == module.__name__ and not name.startswith("_")
}


def subclasses(cls):
    return {cls.__qualname__}.union(*(subclasses(sub) for sub in cls.__subclasses__()))


INTERNAL_NAMES = sorted(subclasses(Tracer) | subclasses(Trace) | {"Tag", "Linear", "Aval"})


def raised_by(mistake):
    with warnings.catch_warnings(), pytest.raises(Exception) as caught:
        warnings.simplefilter("error")
        mistake()
    return caught.value


def base_of(kind):
    return next(c.__name__ for c in kind.__mro__ if c.__module__ == "builtins")


def shown(error, file):
    """The exception as the user sees it, the name and number of their line taken away."""
    kind = type(error)
    head = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__name__}, a {base_of(kind)}"
    cause = error.__cause__ if kind.__module__ == "builtins" else None
    below = ["", "caused by", *shown(cause, file).splitlines()] if isinstance(cause, FunctorchLiteError) else []
    text = "\n".join([head, str(error), *getattr(error, "__notes__", []), *below]) + "\n"
    return re.sub(rf"{re.escape(file)}:\d+ \([\w<>.]+\): ", "", text)


@pytest.mark.parametrize("name", MISTAKES)
def test_message_is_the_golden_one(name, check_golden):
    mistake = MISTAKES[name]
    text = shown(raised_by(mistake), Path(mistake.__code__.co_filename).name)
    check_golden(HERE / "golden" / f"{name}.txt", text)


@pytest.mark.parametrize("name", MISTAKES)
def test_message_is_short_and_names_no_internal_class(name):
    error = raised_by(MISTAKES[name])
    text = "\n".join([str(error), *getattr(error, "__notes__", [])])
    assert text.count("\n") < 8
    assert not [word for word in INTERNAL_NAMES if re.search(rf"\b{word}\b", text)]


@pytest.mark.parametrize("name", MISTAKES)
def test_message_names_a_line_of_the_user(name):
    mistake = MISTAKES[name]
    error = raised_by(mistake)
    text = "\n".join([str(error), *getattr(error, "__notes__", [])])
    file = Path(mistake.__code__.co_filename)
    if isinstance(error, FunctorchLiteError) or hasattr(error, "__notes__"):
        found = re.search(rf"(?m)^  (?:in `\w+` )?at {re.escape(file.name)}:(\d+) \([\w<>.]+\): (.+)$", text)
        assert found and file.read_text().splitlines()[int(found[1]) - 1].strip() == found[2]


def test_every_golden_text_belongs_to_a_mistake():
    assert {path.stem for path in (HERE / "golden").glob("*.txt")} == set(MISTAKES)
