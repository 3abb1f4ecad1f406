"""English to train a small model on, from what comes with every Python: its own documentation.

    python benchmarks/documentation_text.py benchmarks/training/documentation.txt

The language reference's topics (`pydoc_data.topics`) and the docstrings of the standard library's
sources, those of tests left out, each a document; equal ones once, in an order drawn with a fixed
seed, so that what is held out at the end is of the same kind. The licence is Python's (PSF-2.0),
which permits to use, change and pass on. The text depends on the Python that runs this: a run
records its sha256.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SEPARATOR = "<|endoftext|>"
SHORTEST = 200  # characters of a document: below, there is hardly a sentence
SKIPPED = {"test", "tests", "site-packages", "idle_test", "lib2to3", "encodings", "__pycache__"}


def docstrings(library: Path) -> Iterator[str]:
    """The docstrings of all modules, classes and functions, in the order of the paths."""
    for path in sorted(library.rglob("*.py")):
        if SKIPPED & set(path.relative_to(library).parts):
            continue
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue  # some are wrong on purpose
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""


def documents() -> list[str]:
    """All documents, in their order."""
    from pydoc_data import topics

    library = Path(sysconfig.get_paths()["stdlib"])
    found = [inspect.cleandoc(text) for text in (*topics.topics.values(), *docstrings(library))]
    kept = sorted({text.strip() for text in found if len(text.strip()) >= SHORTEST})
    random.Random(0).shuffle(kept)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    found = documents()
    out.write_text(f"\n{SEPARATOR}\n".join(found) + "\n", encoding="utf-8")
    print(f"{out}: {len(found):,} documents, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
