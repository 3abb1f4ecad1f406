"""Imports point one way, and `import trit` stays light.

LEVELS is the order in Python, CORE_LEVELS in C++: a module imports from levels before its own.
Files of a registry do not import each other; what begins with an underscore is for its neighbours,
and so is what lies in a folder of a registry.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "trit"
CORE = ROOT / "core"

LEVELS = [
    {"errors"},
    {"formats", "machine", "plan", "sizes"},
    {"archs"},
    {"files"},
    {"zoo", "_core", "pictures"},
    {"engine", "reference"},
    {"runtime"},
    {"evaluate"},
    {"calibrate", "describe"},
    {"quantizers"},
    {"recipe"},
    {"job"},
    {"convert", "shards", "synth", "budget", "export", "neurons"},
    {"quantize"},
    {"estimate", "doctor"},
    {"recommend"},
    {"verify", "report"},
    {"training", "compare"},
    {"server"},
    {"cli"},
    {"__init__", "__main__"},
]
REGISTRIES = {"formats", "archs", "quantizers", "cli"}  # a file is an entry; entries are strangers

CORE_LEVELS = [
    {"format.h", "isa", "sampling", "threads", "unicode_table", "arena", "buffers"},
    {"kernels.h", "routing"},
    {"formats", "ops", "pretokenizer"},
    {"quantizers"},
    {"dispatch", "gptq", "machine", "moments", "vocabulary"},
    {"gptq_descent", "model.h", "packed", "prepared", "tokenizer"},
    {"cache"},
    {"decoder"},
    {"experts", "decoder_attention"},
    {"bindings_arrays", "bindings_tokenizer"},
    {"bindings_gptq", "bindings_moments"},
    {"bindings_decoder"},
    {"bindings"},
]
GENERATED = {"format_includes.inc", "format_rows.inc"}

HEAVY = {
    "torch", "gguf", "tokenizers", "huggingface_hub", "jinja2", "rich", "transformers", "fastapi",
    "uvicorn", "pydantic",
}  # fmt: skip


def modules(package: Path) -> dict[str, set[str]]:
    """Every module (dotted, without the leading `trit.`) and the modules of trit it imports."""
    paths = sorted(package.rglob("*.py"))
    names = {_dotted(path.relative_to(package)): path for path in paths}
    known = set(names) | {"_core"}
    return {name: set(_imports(name, path, known)) for name, path in names.items()}


def _dotted(relative: Path) -> str:
    parts = relative.with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def _imports(name: str, path: Path, known: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import; write it from trit"
            base = node.module or ""
            deeper = [f"{base}.{alias.name}" for alias in node.names]
            targets = [t if t.removeprefix("trit.") in known else base for t in deeper]
        else:
            continue
        for target in targets:
            if target == "trit":
                yield "__init__"
            elif target.startswith("trit."):
                yield target.removeprefix("trit.")


def back_arrows(graph: dict[str, set[str]]) -> list[str]:
    """Every import that goes against the order, in words."""
    place = {top: number for number, level in enumerate(LEVELS) for top in level}
    tops = {name.partition(".")[0] for name in graph}
    private = [top for top in sorted(tops - set(place)) if top.startswith("_")]
    for top in private * len(private):  # each stands with the first who uses it, private or not
        users = [place[n.partition(".")[0]] for n, to in graph.items()
                 if top in to and n.partition(".")[0] in place]  # fmt: skip
        place[top] = min(users, default=len(LEVELS))
    wrong = [f"{top}: has no place in LEVELS" for top in sorted(tops - set(place))]
    for name, targets in sorted(graph.items()):
        wrong += [
            f"{name} -> {target}: {reason}"
            for target in sorted(targets)
            if (reason := _objection(name, target, place))
        ]
    return wrong


def _objection(name: str, target: str, place: dict[str, int]) -> str:
    top, _, inner = name.partition(".")
    target_top, _, target_inner = target.partition(".")
    if top not in place or target_top not in place:
        return ""
    if top == target_top:
        entry = target_inner and "." not in target_inner and not target_inner.startswith("_")
        strangers = top in REGISTRIES and entry and not inner.startswith("_")
        return "files of a registry do not import each other" if strangers else ""
    if target_top.startswith("_") and target_top != "_core":
        return "" if place[target_top] <= place[top] else "back arrow"
    return "" if place[target_top] < place[top] else "back arrow"


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Module cycles, as `a -> b -> a`; empty when there are none."""
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                visit(target, [*path, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return found


def test_python_imports_point_one_way() -> None:
    graph = modules(PACKAGE)
    assert len(graph) > 10, "the package was not found"
    assert back_arrows(graph) == []


def test_no_cycles_among_modules() -> None:
    assert cycles(modules(PACKAGE)) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("formats/q9.py", "from trit import engine"),
        ("files/gguf.py", "import trit.runtime.model"),
        ("formats/q9.py", "from trit.formats import q4_0"),
        ("cli/chat/talk.py", "import trit.cli.run"),
        ("plan.py", "from trit.formats import Format"),
        ("engine.py", "def f():\n    from trit.cli import main"),
        ("newcomer.py", ""),
    ],
)
def test_the_check_sees_back_arrows(tmp_path: Path, file: str, text: str) -> None:
    present = ("formats/q4_0.py", "files/_tensor.py", "engine.py", "cli/__init__.py", file)
    for known in present:
        (tmp_path / known).parent.mkdir(exist_ok=True)
        (tmp_path / known).write_text("")
    (tmp_path / file).write_text(text)
    assert len(back_arrows(modules(tmp_path))) == 1


def core_back_arrows(core: Path) -> list[str]:
    """Every #include of the core that goes against the order, in words."""
    place = {name: number for number, level in enumerate(CORE_LEVELS) for name in level}
    wrong = []
    for path in sorted([*core.rglob("*.h"), *core.rglob("*.cpp")]):
        source = path.relative_to(core)
        for line in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.MULTILINE):
            target = Path(line)
            if line in GENERATED or _unit(target) == _unit(source):
                continue
            missing = [unit for unit in (_unit(source), _unit(target)) if unit not in place]
            if missing:
                wrong.append(f"{missing[0]}: has no place in CORE_LEVELS")
            elif _unit(source) == "quantizers" and line.startswith("formats/_"):
                continue  # tables of levels, written down once
            elif place[_unit(target)] >= place[_unit(source)]:
                wrong.append(f"{source} -> {line}: back arrow")
    return wrong


def _unit(path: Path) -> str:
    """What has a place in the order: a folder, a header alone, or a .h and .cpp of one name."""
    if len(path.parts) > 1:
        return path.parts[0]
    return path.name if path.name in {"format.h", "kernels.h", "model.h"} else path.stem


def test_core_includes_point_one_way() -> None:
    assert len(list(CORE.rglob("*.h"))) > 10, "the core was not found"
    assert core_back_arrows(CORE) == []


def test_the_check_sees_back_includes(tmp_path: Path) -> None:
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops" / "norm.h").write_text('#include "isa/isa.h"\n#include "decoder.h"\n')
    assert core_back_arrows(tmp_path) == ["ops/norm.h -> decoder.h: back arrow"]


def test_import_trit_loads_nothing_heavy() -> None:
    script = "import sys, trit; print(*{name.partition('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert HEAVY & set(result.stdout.split()) == set()


def test_only_bindings_include_python() -> None:
    sources = [*CORE.rglob("*.h"), *CORE.rglob("*.cpp")]
    binding = [path.name for path in sources if "nanobind" in path.read_text()]
    assert binding and all(re.fullmatch(r"bindings(\.cpp|_\w+\.h)", name) for name in binding)
