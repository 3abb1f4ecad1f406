"""Types of the compiled core (core/bindings.cpp); use it through trit.engine."""

import enum
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

page_positions: int
moment_block: int

class CacheFullError(Exception): ...
class WindowDroppedError(Exception): ...

def isas() -> list[str]: ...
def formats() -> list[dict[str, Any]]: ...
def decode(format: str, data: Bytes, columns: int, isa: str = "") -> Floats: ...
def unpack(
    format: str, blocks: Bytes, isa: str = ""
) -> tuple[Bytes, NDArray[np.int16], NDArray[np.int16], NDArray[np.uint16], NDArray[np.uint16]]: ...
def pack(
    format: str,
    codes: Bytes,
    sub_scale: NDArray[np.int16],
    sub_min: NDArray[np.int16],
    d: NDArray[np.uint16],
    dmin: NDArray[np.uint16],
    isa: str = "",
) -> Bytes: ...
def panel(
    format: str, data: Bytes, columns: int, isa: str = ""
) -> tuple[Bytes, Floats, Floats]: ...
def quantize(
    format: str, weights: Floats, importance: Floats | None, threads: int, isa: str = ""
) -> Bytes: ...
def gptq_factor(
    gram: Floats, order: Ints, share: float, floor: float, threads: int, isa: str = ""
) -> tuple[Floats, Floats] | None: ...
def gptq(
    format: str,
    weights: Floats,
    panels: Floats,
    variances: Floats,
    order: Ints,
    importance: Floats,
    given: Bytes | None,
    threads: int,
    isa: str = "",
) -> tuple[Bytes, NDArray[np.float64]]: ...
def gptq_descend(
    format: str,
    weights: Floats,
    panels: Floats,
    damping: Floats,
    given: Bytes,
    sweeps: int,
    threads: int,
    isa: str = "",
) -> Bytes: ...
def read_bandwidth(threads: int, bytes: int) -> float: ...
def int8_rate(threads: int, isa: str = "") -> float: ...
def draw(
    logits: Floats, top_k: int, top_p: float, least: float, temperature: float, uniform: float
) -> tuple[float, int]: ...
def greatest(logits: Floats, count: int) -> tuple[float, Longs]: ...

class Activation(enum.Enum):
    silu = 0
    gelu = 1
    relu2 = 2

class Norm:
    def __init__(self, weight: Floats, eps: float) -> None: ...

class Linear:
    def __init__(
        self, weight: int, row_start: int, rows: int, bias: Floats | None = None
    ) -> None: ...

class Rope:
    def __init__(self, inv_freq: Floats, adjacent: bool, magnitude: float) -> None: ...

class Attention:
    q: Linear
    k: Linear
    v: Linear
    output: Linear
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rope: int
    q_norm: Norm | None
    k_norm: Norm | None
    sub_norm: Norm | None
    window: int
    soft_cap: float
    sinks: Sequence[float]
    def __init__(self) -> None: ...

class FeedForward:
    gate: Linear | None
    up: Linear
    down: Linear
    activation: Activation
    sub_norm: Norm | None
    def __init__(self) -> None: ...

class MixtureOfExperts:
    router: Linear
    gate: int
    up: int
    down: int
    top_k: int
    activation: Activation
    renormalize: bool
    scale: float
    shared: FeedForward | None
    shared_gate: Linear | None
    def __init__(self) -> None: ...

class Layer:
    mixer: Attention
    feed_forward: FeedForward | MixtureOfExperts
    mixer_norm: Norm | None
    mixer_post_norm: Norm | None
    feed_forward_norm: Norm | None
    feed_forward_post_norm: Norm | None
    def __init__(self) -> None: ...

class Model:
    width: int
    embedding: int
    embedding_scale: float
    output_norm: Norm
    head: Linear
    head_scale: float
    head_soft_cap: float
    def __init__(self) -> None: ...
    def add_weight(
        self,
        isa: str,
        format: str,
        data: Bytes,
        columns: int,
        mapped: bool = False,
        adds: bool = False,
    ) -> int: ...
    def add_rope(self, rope: Rope) -> int: ...
    def add_layer(self, layer: Layer) -> None: ...

class CacheType:
    f32: CacheType
    f16: CacheType
    q8_0: CacheType

class Decoder:
    isa: str
    threads: int
    def __init__(
        self,
        model: Model,
        isa: str,
        threads: int,
        positions: int,
        pages: int,
        batch: int,
        cache_type: CacheType,
        repack: bool,
    ) -> None: ...
    def tile_bytes(self) -> int: ...
    def forward(
        self,
        tokens: Ints,
        sequences: Ints,
        positions: Longs,
        outputs: Ints,
        logits: bool,
        out: Floats,
    ) -> None: ...
    def embed(self, tokens: Ints, hidden: Floats) -> None: ...
    def layer(
        self,
        index: int,
        hidden: Floats,
        sequences: Ints,
        positions: Longs,
        taps: Sequence[tuple[int, Floats]],
        squares: Sequence[tuple[int, NDArray[np.float64]]],
        experts: Ints | None,
    ) -> None: ...
    def add_gram(self, x: Floats, gram: Floats) -> None: ...
    def head(self, hidden: Floats, logits: Floats) -> None: ...
    def remove(self, sequence: int, from_position: int) -> None: ...
    def fork(self, source: int, target: int, length: int) -> None: ...
    def length(self, sequence: int) -> int: ...
    def cache_bytes(self) -> int: ...
    def pages_used(self) -> int: ...
    def keeps_from(self, sequence: int) -> int: ...
    def restore(self, sequence: int, length: int, first: Sequence[int]) -> None: ...
    def copy_page(
        self, sequence: int, group: int, page: int, bytes: Bytes, write: bool
    ) -> None: ...
    def pages(self, sequence: int) -> int: ...
    def first_pages(self, sequence: int) -> list[int]: ...
    def page_bytes(self) -> list[int]: ...

class Tokenizer:
    size: int
    def __init__(
        self,
        tokens: Bytes,
        count: int,
        types: Ints | None,
        scores: Floats | None,
        merges: Bytes | None,
        merge_count: int,
        splits: Sequence[str],
        ignore_merges: bool,
        space_prefix: bool,
    ) -> None: ...
    def set_specials(self, ids: Ints, flags: Bytes) -> None: ...
    def encode(
        self, text: bytes, parse_special: bool, breaks: Sequence[int] = ...
    ) -> list[int]: ...
    def mark_starts(self, text: bytes) -> list[int]: ...
    def decode(self, ids: Sequence[int], skip_special: bool, strip_prefix: bool) -> bytes: ...
    def find(self, text: bytes) -> int: ...
    def text(self, id: int) -> bytes: ...
