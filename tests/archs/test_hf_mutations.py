"""JSON files of a folder with parts replaced at random: they load, or a TritError says why not.

Nothing else may come out of them: no KeyError, no OverflowError, no gigabytes.
"""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
from tiny import byte_tokenizer

from trit import archs
from trit.errors import TritError
from trit.files import checkpoint

ROWS = 280
MUTANTS = 300
SECONDS = 1.0

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31 - 1, 2**31, 2**63, 10**400, 0.5, -0.5, 1e-300, 1e300,
    1e39, "", "x", "\u0000", "default", "yarn", "llama3", "longrope", [], [1], [[1]], ["x"], [None],
    {}, {"a": 1}, {"type": "Sequence"}, {"rope_type": "yarn", "factor": 1e300}, [{}],
    "1" * 5000, {"rope_type": "llama3", "rope_theta": 2**31},
    {"full_attention": 3, "sliding_attention": {}},
]  # fmt: skip

ROPES: list[dict[str, Any]] = [
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 32},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    {"rope_type": "linear", "factor": 2.0},
]


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path into a JSON value; of a long container only the first entries."""
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in list(entries)[:12]:
            yield (*here, key)
            yield from places(item, (*here, key))


def mutate(value: Any, chance: random.Random) -> Any:
    """A copy with one part replaced or removed."""
    changed = copy.deepcopy(value)
    *parents, last = chance.choice(list(places(value)))
    part = changed
    for key in parents:
        part = part[key]
    if chance.random() < 0.2:
        del part[last]
    else:
        part[last] = copy.deepcopy(chance.choice(VALUES))
    return changed


def open_and_plan(folder: Path) -> bool:
    """Whether the folder loads; False if a TritError says why not."""
    start = time.perf_counter()
    try:
        with checkpoint.open(folder) as model:
            archs.plan(model)
        return True
    except TritError as error:
        assert str(error)
        return False
    finally:
        assert time.perf_counter() - start < SECONDS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tensors = folders.weights()
    tensors["model.embed_tokens.weight"] = np.ones((ROWS, folders.WIDTH), dtype=np.float32)
    folders.write(tmp_path, folders.CONFIG | {"vocab_size": ROWS}, tensors)
    byte_tokenizer(tmp_path, ROWS)
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.5, "top_k": 20}')
    assert open_and_plan(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_mutated_files(file: str, folder: Path) -> None:
    original = json.loads((folder / file).read_text())
    chance = random.Random(file)
    loaded = 0
    for i in range(MUTANTS):
        start = original
        if file == "config.json" and i % 2:
            start = original | {"rope_scaling": chance.choice(ROPES)}
        (folder / file).write_text(json.dumps(mutate(start, chance)))
        loaded += open_and_plan(folder)
    assert loaded
    if file in ("config.json", "tokenizer.json"):
        assert loaded < MUTANTS


@pytest.mark.parametrize(
    "arch",
    [
        f"{name}ForCausalLM"
        for name in ("Gemma2", "Gemma3", "Phi3", "Mixtral", "Qwen2Moe", "Qwen3Moe")
    ],
)
def test_mutated_configs_of_other_families(arch: str) -> None:
    module = archs.for_hf(arch)
    rope = {"rope_type": "longrope", "long_factor": [1.0, 2.0], "short_factor": [1.0, 1.5]}
    base: dict[str, Any] = {
        "model_type": "mixtral" if arch.startswith("Mixtral") else "other",
        "num_hidden_layers": 2,
        "num_experts_per_tok": 2,
        "num_experts": 4,
        "norm_topk_prob": True,
        "mlp_only_layers": [],
        "use_sliding_window": True,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_scaling": rope if arch.startswith("Phi3") else None,
        "sliding_window": 16,
        "query_pre_attn_scalar": 64,
        "final_logit_softcapping": 30.0,
    }
    chance = random.Random(arch)
    made = 0
    for _ in range(MUTANTS):
        try:
            config = module.complete(mutate(base, chance))
            module.metadata_from_hf(config)
            module.extra_tensors(config)
            made += 1
        except TritError as error:
            assert str(error)
    assert 0 < made < MUTANTS
