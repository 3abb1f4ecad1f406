"""What a training run is made of: one TOML file, every key checked before anything is read.

docs/training.md explains the keys. Paths are relative to the file. What the figures of a run depend
on is all here; `differences` names what keeps a run from being taken up again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trit import recipe
from trit.errors import InvalidFileError
from trit.training import _toml

TERNARY_TYPES = ("TQ2_0", "TQ1_0")
PLAIN_TYPES = ("F16", "F32")
BLOCK = 256  # weights under one scale in both ternary formats


def _count(default: int, low: int = 1) -> Any:
    return field(default=default, metadata={"low": low})


def _share(default: float) -> Any:
    return field(default=default, metadata={"low": 0.0, "high": 1.0})


def _positive(default: float) -> Any:
    return field(default=default, metadata={"low": 0.0})


@dataclass(frozen=True)
class Model:
    """The shape: BitNet b1.58, which is Llama's with sub-norms and a relu² gate."""

    width: int = field(metadata={"low": 8})
    layers: int = field(metadata={"low": 1, "high": 1000})
    heads: int = field(metadata={"low": 1})
    ffn: int = field(metadata={"low": 4})
    kv_heads: int = _count(0, low=0)  # 0: as many as heads
    context: int = _count(256, low=2)  # tokens of a training sequence, and of the model
    rope_base: float = field(default=10000.0, metadata={"low": 1.0})
    norm_eps: float = field(default=1e-5, metadata={"low": 1e-12, "high": 1e-2})
    tied: bool = True  # the head is the embedding


@dataclass(frozen=True)
class Tokenizer:
    """A byte-level BPE: trained on the data, or a tokenizer.json that exists."""

    vocab: int = field(default=4096, metadata={"low": 258, "high": 1 << 20})
    file: Path | None = None


@dataclass(frozen=True)
class Data:
    """Plain UTF-8 texts; the last share of each is held out."""

    files: tuple[Path, ...]
    separator: str = ""  # stands between two documents; "": a file is one
    held_out: float = field(default=0.05, metadata={"low": 1e-6, "high": 0.5})
    licence: str = ""  # of the texts, and with them of the model
    provenance: str = ""  # where they are from, in words


@dataclass(frozen=True)
class Training:
    """Steps, rates and what is spent on them."""

    steps: int = field(metadata={"low": 1})
    batch: int = _count(16)  # sequences of a step
    float_share: float = _share(0.25)  # of the steps, before weights become ternary
    matrices: str = field(default="muon", metadata={"choices": ("muon", "adamw")})
    matrix_rate: float = _positive(0.02)  # of the layers' matrices
    rate: float = _positive(0.003)  # of AdamW, which has the rest
    warmup: int = _count(20, low=0)  # steps
    stage: float = _share(0.5)  # share of the steps after which the second stage begins
    drop: float = _share(0.667)  # by which the rates are multiplied from there on
    weight_decay: tuple[float, float] = field(default=(0.1, 0.0), metadata={"low": 0.0})
    clip: float = _positive(1.0)  # norm of the whole gradient; 0: as it is
    twin_rate: float = _positive(1.0)  # the float twin's rates, relative to these
    bf16: bool = False
    gradient_checkpointing: bool = False
    device: str = field(default="auto", metadata={"choices": ("auto", "cpu", "cuda")})


@dataclass(frozen=True)
class Run:
    """What a run says and keeps on the way; 0: only at the end."""

    checkpoint_every: int = _count(100)
    held_out_every: int = _count(100, low=0)
    held_out_windows: int = _count(64)  # on the way; at the end all are read
    sample_every: int = _count(0, low=0)
    sample_tokens: int = _count(64)
    prompts: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Output:
    """The types of the GGUF file; the float twin's matrices are F16."""

    type: str = field(default="TQ2_0", metadata={"choices": TERNARY_TYPES + PLAIN_TYPES})
    embedding: str = "Q6_K"  # and of the head


@dataclass(frozen=True)
class Config:
    """A whole run. `twin`: `trit train` trains the float twin as well."""

    model: Model
    data: Data
    training: Training
    seed: int = _count(0, low=0)
    twin: bool = False
    tokenizer: Tokenizer = Tokenizer()
    run: Run = Run()
    output: Output = Output()


def load(path: Path) -> Config:
    """The config of a TOML file. UsageError without a file, InvalidFileError for what is in it."""
    config = _toml.table(Config, _toml.read(path), path)
    _check(config, path)
    return config


def _check(config: Config, path: Path) -> None:
    """What concerns several keys at once."""

    def wrong(key: str, problem: str) -> InvalidFileError:
        return InvalidFileError(path, f"key '{key}'", problem)

    model = config.model
    kv_heads = model.kv_heads or model.heads
    if model.width % (2 * model.heads):
        problem = f"expected an even size for each of {model.heads} heads"
        raise wrong("model.width", f"{problem}, got {model.width}.")
    if model.heads % kv_heads:
        raise wrong("model.kv_heads", f"expected a divisor of {model.heads} heads, got {kv_heads}.")
    rows = {"width": model.width, "ffn": model.ffn, "kv_heads": kv_heads * head_dim(model)}
    for key, size in rows.items():
        if size % 4:
            raise wrong(
                f"model.{key}", f"expected rows in multiples of 4, for packed digits; got {size}."
            )
        if config.output.type in TERNARY_TYPES and key != "kv_heads" and size % BLOCK:
            raise wrong(
                f"model.{key}",
                f"expected a multiple of {BLOCK}, for {config.output.type}, got {size}. "
                "Change it, or set output.type to 'F16'.",
            )
    if not config.data.files:
        raise wrong("data.files", "expected a text at least, got none.")
    if config.output.embedding.lower() not in recipe.WRITABLE | set(recipe.FLOATS):
        known = ", ".join(sorted(recipe.WRITABLE))
        raise wrong("output.embedding", f"expected one of {known}; got {config.output.embedding}.")


def head_dim(model: Model) -> int:
    """Numbers of a head."""
    return model.width // model.heads


def flat(config: Config) -> dict[str, Any]:
    """Every key with its value, by its dotted name; paths by their last part."""
    found: dict[str, Any] = {}

    def walk(values: Mapping[str, Any], before: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                walk(value, f"{before}{key}.")
            else:
                found[before + key] = plain(value)

    walk(asdict(config), "")
    return found


def plain(value: Any) -> Any:
    """A setting as JSON has it; paths by their last part."""
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    return value.name if isinstance(value, Path) else value


# What may change between two parts of a run: no figure depends on it.
FREE = frozenset({"run.checkpoint_every", "twin", "output.type", "output.embedding"})


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], free: Collection[str] = FREE
) -> list[str]:
    """What keeps `new` from going on with a run of `old` (both as `flat` gives them), in words."""
    keys = [key for key in {**old, **new} if key not in free]
    return [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in keys
        if old.get(key) != new.get(key)
    ]
