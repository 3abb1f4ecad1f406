"""A training run small enough for tests: a config, an essay, and what its diary must not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trit.training import log

ESSAY = Path(__file__).parent / "text" / "essay.txt"
CONFIG = """
seed = 3
[model]
width = 32
layers = 2
heads = 4
kv_heads = 2
ffn = 64
context = 32
[tokenizer]
vocab = 300
[data]
files = ["essay.txt"]
held_out = 0.1
licence = "MIT"
provenance = "an essay of trit's tests"
[training]
steps = 12
batch = 4
warmup = 2
[run]
checkpoint_every = 3
held_out_every = 4
held_out_windows = 4
sample_every = 6
sample_tokens = 6
prompts = ["The "]
[output]
type = "F16"
"""
WIDE = {"width = 32": "width = 256", "ffn = 64": "ffn = 512", '"F16"': '"TQ2_0"'}


def write(folder: Path, changes: dict[str, str] | None = None, name: str = "run.toml") -> Path:
    """Write the config, with some of its text replaced, and the essay beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "essay.txt").write_bytes(ESSAY.read_bytes())
    text = CONFIG
    for old, new in (changes or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def diary(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log without those figures that depend on the clock."""
    clock = {"tokens_per_second", "seconds"}
    return [
        {key: value for key, value in entry.items() if key not in clock}
        for entry in log.read(folder)
    ]
