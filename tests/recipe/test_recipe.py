"""The named mixes give llama.cpp's types: recorded answers, and the tool itself if present."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mix_cases import CASES, OPTION_CASES, OPTION_MIXES, OPTIONS, Case
from trit import formats, recipe
from trit.errors import UsageError
from trit.recipe import Choice, Weight
from trit.recipe._mixes import ALIASES, MIXES

HERE = Path(__file__).parent.parent
GOLDEN = json.loads((HERE / "data" / "mixes.json").read_text())


def weights(case: Case) -> list[Weight]:
    return [Weight(name, shape, case.format(name, shape)) for name, shape in case.tensors]


def wishes(flags: tuple[str, ...]) -> recipe.Overrides:
    """llama-quantize's flags as ours."""
    pairs = list(itertools.pairwise(flags))
    named = {flag: value for flag, value in pairs if flag.startswith("--")}
    return recipe.overrides(
        [value for flag, value in pairs if flag == "--tensor-type"],
        named.get("--output-tensor-type"),
        named.get("--token-embedding-type"),
        "--pure" in flags,
    )


def unpack(packed: str) -> list[str]:
    types = []
    for run in packed.split():
        fmt, _, count = run.partition("*")
        types += [fmt] * int(count or 1)
    return types


def of_kind(choices: list[Choice], kind: str) -> list[str]:
    """The formats of one kind of tensor, by layer."""
    return [c.format for c in choices if re.sub(r"^blk\.\d+\.", "", c.name) == kind]


@pytest.mark.parametrize(("name", "flags"), [(n, f) for n in GOLDEN for f in GOLDEN[n]])
def test_mixes_match_recorded_answers(name: str, flags: str) -> None:
    case, answers = CASES[name], GOLDEN[name][flags]
    expected: dict[str, dict[str, list[str]]] = {}
    for kind, by_types in answers.items():
        for types, mixes in by_types.items():
            for mix in mixes.split():
                expected.setdefault(mix, {})[kind] = unpack(types)
    minimum = set(OPTION_MIXES) if flags in OPTIONS else set(MIXES)
    assert set(expected) >= minimum
    for mix, kinds in expected.items():
        choices = recipe.choose(
            mix,
            case.metadata,
            weights(case),
            wishes=wishes(OPTIONS.get(flags, ())),
            importance=flags == "imatrix",
        )
        assert len(choices) == len(case.tensors)
        assert {kind: of_kind(choices, kind) for kind in kinds} == kinds, mix


def test_recorded_answers_cover_the_cases() -> None:
    assert set(GOLDEN) == set(CASES)
    for name, answers in GOLDEN.items():
        expected = {"", "imatrix"} | (set(OPTIONS) if name in OPTION_CASES else set())
        assert set(answers) == expected
    assert set(OPTION_MIXES) <= set(MIXES)


def find_tool() -> str | None:
    return os.environ.get("LLAMA_QUANTIZE") or shutil.which("llama-quantize")


@pytest.mark.skipif(find_tool() is None, reason="no llama-quantize on PATH or in LLAMA_QUANTIZE")
@pytest.mark.parametrize("name", ["llama-tied-odd", "phi3-mini", "mixtral-8x7b", "qwen2-72b"])
def test_mixes_match_llama_quantize(name: str, tmp_path: Path) -> None:
    sys.path.insert(0, str(HERE.parent / "scripts"))
    from mixes_golden import dry_run, write_model

    case, model, tool = CASES[name], tmp_path / "m.gguf", find_tool()
    assert tool is not None
    write_model(model, case)
    for mix in (*MIXES, *ALIASES):
        ours = {c.name: c.format for c in recipe.choose(mix, case.metadata, weights(case))}
        assert ours == dry_run(tool, model, mix), mix


@pytest.mark.skipif(find_tool() is None, reason="no llama-quantize on PATH or in LLAMA_QUANTIZE")
@pytest.mark.parametrize(
    "name", ["smollm2-135m-instruct", "gemma-3-270m", "qwen2.5-coder-1.5b-instruct"]
)
def test_mixes_match_llama_quantize_on_real_models(
    name: str, zoo_model: Callable[[str], Path]
) -> None:
    sys.path.insert(0, str(HERE.parent / "scripts"))
    from mixes_golden import dry_run

    from trit.files import gguf

    path, tool = zoo_model(name), find_tool()
    assert tool is not None
    with gguf.open(path) as model:
        items = [Weight(n, t.shape, t.format.name) for n, t in model.tensors.items()]
        for mix in (*MIXES, *ALIASES):
            ours = {c.name: c.format for c in recipe.choose(mix, model.metadata, items)}
            assert ours == dry_run(tool, path, mix), mix


def test_fallbacks_are_carried() -> None:
    case = CASES["llama-tied-odd"]  # rows of 576
    made = {c.name: c for c in recipe.choose("Q4_K_M", case.metadata, weights(case))}
    assert made["blk.0.attn_q.weight"] == Choice("blk.0.attn_q.weight", "q5_0", "q4_k")
    assert made["blk.0.attn_v.weight"] == Choice("blk.0.attn_v.weight", "q8_0", "q6_k")
    assert made["blk.0.ffn_down.weight"].fallback_from is None  # rows of 1536
    assert made["token_embd.weight"] == Choice("token_embd.weight", "q8_0", "q6_k")
    assert made["blk.0.attn_norm.weight"].format == "f32"


def test_every_fallback_has_smaller_blocks() -> None:
    from trit.recipe._mixes import FALLBACKS

    for wished, fallback in FALLBACKS.items():
        if wished in formats.all():
            assert formats.get(fallback).block_weights < formats.get(wished).block_weights
    for mix in MIXES.values():
        assert mix.base in formats.all()


@pytest.mark.parametrize(
    ("text", "name"), [("q4_k_m", "Q4_K_M"), ("Q4_K", "Q4_K_M"), ("15", "Q4_K_M"), ("7", "Q8_0")]
)
def test_mix_names(text: str, name: str) -> None:
    assert recipe.mix(text).name == name


def test_bad_wishes_are_usage_errors() -> None:
    with pytest.raises(UsageError, match=r"Q9_K.*known.*Q4_K_M"):
        recipe.mix("Q9_K")
    with pytest.raises(UsageError, match="PATTERN=TYPE"):
        recipe.overrides(["attn_v"])
    with pytest.raises(UsageError, match="unknown format 'q9'"):
        recipe.overrides(["attn_v=q9"])
    with pytest.raises(UsageError, match="regular expression"):
        recipe.overrides(["attn_(v=q4_k"])
    with pytest.raises(UsageError, match="--output-tensor-type"):
        recipe.overrides(output="nope")


def test_unused_wishes_are_found() -> None:
    case = CASES["llama-tied-odd"]
    wanted = recipe.overrides(["attn_v=q8_0", "nothing=q4_0"], output="q8_0")
    assert recipe.unused(wanted, weights(case)) == ["--tensor-type nothing"]
    pure = recipe.overrides(output="q8_0", pure=True)
    assert recipe.unused(pure, weights(case)) == ["--output-tensor-type (no output.weight)"]


def test_expand_keeps_what_stock_converters_keep() -> None:
    case = CASES["mixtral-8x7b"]
    made = {c.name: c.format for c in recipe.expand("f16", weights(case))}
    assert made["blk.0.attn_norm.weight"] == made["blk.0.attn_q.bias"] == "f32"
    assert made["blk.0.ffn_gate_inp.weight"] == "f32"
    assert made["blk.0.ffn_down_exps.weight"] == made["output.weight"] == "f16"
    odd = CASES["llama-not-32"]
    q8 = {c.name: c for c in recipe.expand("q8_0", weights(odd))}
    assert q8["blk.0.attn_q.weight"] == Choice("blk.0.attn_q.weight", "f16", "q8_0")


def test_layers_come_in_number_order() -> None:
    """Layer 10 after layer 9, wherever the file has it: the counters of the rules depend on it."""
    case = CASES["llama-8b"]
    straight = recipe.choose("Q3_K_M", case.metadata, weights(case))
    backwards = recipe.choose("Q3_K_M", case.metadata, weights(case)[::-1])
    assert sorted(straight, key=lambda c: c.name) == sorted(backwards, key=lambda c: c.name)
    assert [c.name for c in backwards] == [name for name, _ in case.tensors][::-1]
