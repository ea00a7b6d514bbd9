# SPDX-License-Identifier: MIT
"""Every Python block of README.md and docs/*.md runs, and prints what the text block below it says.

The blocks of a file run in order in one namespace. Warnings are errors, as in all tests.
"""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = {"primitives.md"}
FILES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").glob("*.md") if p.name not in GENERATED)]
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n*^```text\n(?P<output>.*?)^```$)?", re.DOTALL | re.MULTILINE)


def blocks(path):
    """(line number, code, expected output or None) of each Python block."""
    text = path.read_text()
    return [(text[: m.start("code")].count("\n"), m["code"], m["output"]) for m in BLOCK.finditer(text)]


def run(code, path, line, namespace):
    """What the block prints; errors name the line of the markdown file."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * line + code, str(path), "exec"), namespace)
    return printed.getvalue()


def without_ends(text):
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_snippets_run_and_print_what_is_shown(path):
    namespace = {"__name__": "__main__"}
    for line, code, expected in blocks(path):
        printed = run(code, path, line, namespace)
        assert without_ends(printed) == without_ends(expected or ""), f"{path.name}:{line}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_links_lead_to_files(path):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    missing = [t for t in targets if not (path.parent / t).exists() and Path(t).name not in GENERATED]
    assert not missing


def test_the_block_pattern_finds_code_and_output():
    sample = ROOT / "README.md"
    assert any(expected for _, _, expected in blocks(sample))
