"""Ternary students: inserted norms change little in floats, the file is what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="distilling needs torch (extra train)")

import torch

import text_model
import tiny_distillation as tiny
from trit import archs
from trit.errors import UnsupportedError, UsageError
from trit.files import checkpoint, gguf
from trit.files.source import open_source
from trit.reference import Reference
from trit.training.distill import distill, ternary


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.teacher(tmp_path_factory.mktemp("teacher") / "teacher.gguf")


def divergence(path: Path, base: Path, tokens: np.ndarray) -> float:
    logits = []
    for each in (path, base):
        with checkpoint.open(each) as file, torch.no_grad():
            found = Reference(archs.plan(file), file.tensors).forward(tokens)
            logits.append(found.log_softmax(-1))
    return float((logits[1].exp() * (logits[1] - logits[0])).sum(-1).mean())


def test_inserted_norms_keep_what_is_said(teacher: Path, tmp_path: Path) -> None:
    tokens = np.frombuffer(tiny.ESSAY.read_bytes()[:256], np.uint8).astype(np.int64) + 2
    source = open_source(teacher)
    ternary.insert(source, archs.plan(source), tokens.reshape(4, 64), tmp_path / "begun.gguf")
    source.close()
    with gguf.open(tmp_path / "begun.gguf") as file:
        assert file.metadata["general.architecture"] == "bitnet"
        assert file.metadata["bitnet.attention.head_count"] == 4
        assert not any(key.startswith("llama.") for key in file.metadata)
        for i in range(2):  # one number for all, which is not the initial 1
            norm = file.tensors[f"blk.{i}.ffn_sub_norm.weight"].decode()
            assert len(norm) == 512 and len(np.unique(norm)) == 1 and 0 < norm[0] < 0.9

        def ones(weights: dict[str, Any]) -> None:
            for name in weights:
                if "sub_norm" in name:
                    weights[name][:] = 1.0

        arrays = {name: tensor.decode() for name, tensor in file.tensors.items()}
        ones(arrays)
        ternary.write(tmp_path / "ones.gguf", file.values, arrays)
    kept = divergence(tmp_path / "begun.gguf", teacher, tokens[:128])
    lost = divergence(tmp_path / "ones.gguf", teacher, tokens[:128])
    assert kept < 0.2 and kept < 0.7 * lost


def test_a_ternary_student_is_written_as_trained(teacher: Path, tmp_path: Path) -> None:
    settings = tiny.settings(student="TQ2_0", calibration=None, rate=2e-2, steps=16)
    result = distill(teacher, settings, tmp_path / "run", threads=1)
    assert result.best_step > 0 and result.kld_after < 0.7 * result.kld_before
    assert result.kld_torch < 5e-3  # the embedding is rounded only then
    with gguf.open(result.gguf) as file:
        assert file.metadata["general.architecture"] == "bitnet"
        assert file.tensors["token_embd.weight"].format.name == "q6_k"
        for name in ("blk.0.attn_q.weight", "blk.1.ffn_down.weight"):
            assert file.tensors[name].format.name == "tq2_0"
            assert len(np.unique(file.tensors[name].decode())) == 3
    assert not list(result.path.glob("*.f32"))
    again = tiny.settings(
        student="TQ1_0", init=result.path / "start.gguf", calibration=None, steps=2, measure_every=1
    )
    other = distill(teacher, again, tmp_path / "again", threads=1)
    with gguf.open(other.gguf) as file:
        assert file.tensors["blk.0.attn_q.weight"].format.name == "tq1_0"


def test_what_no_ternary_file_holds(tmp_path: Path) -> None:
    import small_model

    path = text_model.write(tmp_path / "untied.gguf", change=_untie)
    with pytest.raises(UnsupportedError, match="has no room for a head of its own"):
        distill(path, tiny.settings(student="TQ2_0", calibration=None), tmp_path / "run")
    assert small_model.EMBED == 256
    with pytest.raises(UsageError, match="is not quantized first"):
        distill(path, tiny.settings(student="TQ2_0"), tmp_path / "run")


def _untie(weights: dict[str, Any]) -> None:
    weights["output.weight"] = weights["token_embd.weight"].copy()
