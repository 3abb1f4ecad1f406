"""How much memory a run takes: weights, cache of keys and values, scratch, the program itself.

Everything follows from the plan, as the engine allocates it (core/cache.cpp, core/decoder.cpp):

    weights   each tensor once: mapped, or copied into a faster order in place of the file's pages
    cache     pages of PAGE positions; layers with a window keep what the rows to come can see
    scratch   the buffers of a pass, logits, and what large pages of memory round up
    program   interpreter, libraries, and the vocabulary
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from trit.engine import BATCH, CACHE_TYPES, PAGE, Engine
from trit.errors import UsageError
from trit.plan import Attention, Layer, MixtureOfExperts, Plan

CACHE_BLOCK = 32  # to a multiple of which keys and values of a head are padded
CACHE_BITS = {"f32": 32.0, "f16": 16.0, "q8_0": 8.5}  # of a cached value
SLAB = 8 << 20  # pages of the cache are cut from pieces of this size (core/cache.cpp) …
LARGE_PAGE = 2 << 20  # … which the system backs in these

# Anonymous memory, measured on Linux with Python 3.11 (docs/log.md).
PROGRAM_BYTES = 28 << 20  # the interpreter, numpy, trit and its command line
TOKEN_BYTES, MERGE_BYTES = 88, 88  # of a vocabulary's entry, of a merge

_LOGIT_ROWS = 2  # of the vocabulary: the engine's answer, and the sampler's copy
_BLOCK_QUERIES = 64  # of a block of attention
_SPAN = 4 * PAGE  # positions that are summed up on their own


@dataclass(frozen=True)
class Needs:
    """Bytes of memory, each part apart."""

    weights: int
    cache: int
    scratch: int
    program: int

    @property
    def total(self) -> int:
        """All four."""
        return self.weights + self.cache + self.scratch + self.program

    def to_dict(self) -> dict[str, int]:
        """As JSON has it."""
        return {
            "weights_bytes": self.weights,
            "cache_bytes": self.cache,
            "scratch_bytes": self.scratch,
            "program_bytes": self.program,
            "total_bytes": self.total,
        }


def needs(
    plan: Plan,
    weights: int,
    ctx: int,
    *,
    metadata: Mapping[str, object] | None = None,
    cache_type: str = "f16",
    batch: int = BATCH,
    threads: int = 1,
    sequences: int = 1,
) -> Needs:
    """What a run of `plan` takes with `sequences` contexts of `ctx` positions, each filled.

    weights    bytes of all tensors
    metadata   keys of the file, for its vocabulary; without, one of as many tokens as the plan has
    batch      rows per pass, of which there are never more than positions
    UsageError for a type of cache that there is not.
    """
    batch = min(batch, sequences * ctx)  # buffers grow with the rows that a pass has
    return Needs(
        weights=weights,
        cache=sequences * cache_bytes(plan, ctx, cache_type, batch),
        scratch=scratch_bytes(plan, ctx, cache_type, batch, threads, sequences),
        program=program_bytes(plan, metadata or {}),
    )


def needs_now(
    engine: Engine, weights: int, metadata: Mapping[str, object], vocabulary: bool = True
) -> Needs:
    """What a run was to take with the positions that the engine holds now: to compare.

    `vocabulary`: whether it was read.
    """
    found = needs(
        engine.plan,
        weights,
        max(1, engine.cache_pages()) * PAGE,
        metadata=metadata,
        cache_type=engine.cache_type,
        batch=engine.batch,
        threads=engine.threads,
    )
    return found if vocabulary else replace(found, program=PROGRAM_BYTES)


def cache_bytes(plan: Plan, ctx: int, cache_type: str = "f16", batch: int = BATCH) -> int:
    """What the engine's cache takes for one sequence of `ctx` positions, however they come.

    A pass holds on to those of the pass before it, and begins anywhere within a page.
    """
    groups = _page_bytes(plan, ctx, cache_type)
    return sum(_pages(window, ctx, batch) * page for window, page in groups.items())


def _page_bytes(plan: Plan, ctx: int, cache_type: str) -> dict[int, int]:
    """By window (0: none), the bytes of a page of all layers that have it."""
    if cache_type not in CACHE_TYPES:
        raise UsageError(f"--cache-type {cache_type}: expected {', '.join(CACHE_TYPES)}.")
    groups: dict[int, int] = {}
    for layer in plan.layers:
        mixer = layer.mixer
        window = mixer.window if mixer.window and mixer.window < ctx else 0
        padded = -(-mixer.head_dim // CACHE_BLOCK) * CACHE_BLOCK
        values = 2 * mixer.kv_heads * padded * PAGE
        groups[window] = groups.get(window, 0) + int(values * CACHE_BITS[cache_type]) // 8
    return groups


def _pages(window: int, ctx: int, batch: int) -> int:
    """Most pages of a group that one sequence holds at a time."""
    pages = -(-ctx // PAGE)
    return min(pages, (window + 2 * batch - 3) // PAGE + 2) if window else pages


def scratch_bytes(
    plan: Plan,
    ctx: int,
    cache_type: str = "f16",
    batch: int = BATCH,
    threads: int = 1,
    sequences: int = 1,
) -> int:
    """The buffers of passes of `batch` rows, logits, and the rounding of large pages."""
    widest = max((_row_values(layer) for layer in plan.layers), default=0)
    pairs = {layer.mixer.rope for layer in plan.layers if layer.mixer.rope}
    rotations = 2 * sum(len(rope.inv_freq) for rope in pairs)
    rows = 4 * batch * (3 * plan.width + widest + rotations)
    workers = threads * max((_worker_bytes(layer.mixer, batch) for layer in plan.layers), default=0)
    partials = max(
        (_partial_bytes(layer.mixer, ctx, batch, threads) for layer in plan.layers), default=0
    )
    logits = _LOGIT_ROWS * 4 * plan.head.rows
    return rows + workers + partials + logits + _rounding(plan, ctx, cache_type, batch, sequences)


def _row_values(layer: Layer) -> int:
    """Floats per row of a layer's buffers: queries, keys, values, feed-forward, and the inputs in
    the arrangement of the products (floats for formats that are not multiplied as integers)."""
    mixer, part = layer.mixer, layer.feed_forward
    q, kv = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
    if isinstance(part, MixtureOfExperts):
        slots = part.top_k * (2 * part.up.rows + 2 * part.down.rows + part.down.cols)
        shared = 3 * part.shared.part.up.rows + part.down.rows if part.shared else 0
        return 2 * q + 2 * kv + slots + shared + 2 * part.up.cols + part.router.rows
    inner = part.up.rows
    return 2 * q + 2 * kv + 3 * max(inner, q)


def _worker_bytes(mixer: Attention, batch: int) -> int:
    """Scratch of one thread: of products and of attention (core/kernels.h)."""
    product = -(-batch // 16) * 16 * 16 * 4
    queries = max(mixer.heads // mixer.kv_heads, _BLOCK_QUERIES)
    dim = -(-mixer.head_dim // CACHE_BLOCK) * CACHE_BLOCK
    attention = (queries + 16) * (PAGE + 1 + dim) + PAGE * dim + 2 * queries * (dim + 2)
    return 4 * max(product, attention)


def _partial_bytes(mixer: Attention, ctx: int, batch: int, threads: int) -> int:
    """Sums of attention by span, which few rows of a long context are cut into."""
    heads, seen = mixer.heads // mixer.kv_heads, min(ctx, mixer.window or ctx)
    rows = max(1, _BLOCK_QUERIES // heads)  # of a block
    # Only passes with fewer than four tasks, a block and a key head each, for every thread.
    blocks = min(-(-batch // rows), -(-4 * threads // mixer.kv_heads) - 1)
    spans = -(-seen // _SPAN) + 1
    return 4 * blocks * spans * mixer.kv_heads * rows * heads * (mixer.head_dim + 2)


def _rounding(plan: Plan, ctx: int, cache_type: str, batch: int, sequences: int) -> int:
    """What the cache holds beyond its pages where the system backs it in large ones."""
    spare = 0
    for window, page in _page_bytes(plan, ctx, cache_type).items():
        pages = sequences * _pages(window, ctx, batch)
        each = SLAB // page if page < SLAB else 1
        if each * page < LARGE_PAGE:
            continue
        slabs, rest = divmod(pages, each)
        held = slabs * _large(each * page) + _large(rest * page)
        spare += held - pages * page
    return spare


def _large(count: int) -> int:
    return -(-count // LARGE_PAGE) * LARGE_PAGE


def program_bytes(plan: Plan, metadata: Mapping[str, object]) -> int:
    """The interpreter with its libraries, and the vocabulary of the file."""
    tokens = _count(metadata.get("tokenizer.ggml.tokens"), plan.vocab_size)
    merges = _count(metadata.get("tokenizer.ggml.merges"), 0 if metadata else tokens)
    return PROGRAM_BYTES + TOKEN_BYTES * tokens + MERGE_BYTES * merges


def _count(values: object, otherwise: int) -> int:
    return len(values) if hasattr(values, "__len__") else otherwise
