"""Convert and quantize: the right bytes, nothing lost silently, whole or absent, resumable."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

import small_folder
import small_model
from trit import archs, formats, job
from trit.convert import convert
from trit.errors import InvalidFileError, TritError, UnsupportedError, UsageError
from trit.files import checkpoint, gguf
from trit.files.gguf import Value, ValueType
from trit.files.source import refuse_overwrite, source_sha256
from trit.job import transcode
from trit.job.transcode import Transcoder
from trit.quantize import prepare_quantize, quantize
from trit.quantizers import rtn
from trit.recipe import overrides


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return small_model.write(tmp_path / "source.gguf", small_model.arrays())


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".partial" in path.name)


def decoded(path: Path) -> dict[str, np.ndarray]:
    with gguf.open(path) as file:
        return {name: tensor.decode() for name, tensor in file.tensors.items()}


def test_convert_writes_the_stored_numbers(source: Path, tmp_path: Path) -> None:
    """F16 -> F32 and back is exact; vectors stay F32."""
    wide = convert(source, tmp_path / "wide.gguf", "f32")
    back = convert(wide.path, tmp_path / "back.gguf", "f16")
    assert {tensor.format for tensor in wide.tensors} == {"f32"}
    before, after = decoded(source), decoded(back.path)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    with gguf.open(back.path) as file:
        assert file["blk.0.attn_norm.weight"].format.name == "f32"
        assert file["blk.0.attn_q.weight"].format.name == "f16"


def test_keys_are_copied_with_their_types(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out.gguf", "bf16")
    with gguf.open(source) as old, gguf.open(tmp_path / "out.gguf") as new:
        assert set(new.values) - set(old.values) == {"general.quantization_version"}
        for key, value in old.values.items():
            assert new.values[key].type is value.type, key
            if key != "general.file_type":
                assert np.array_equal(np.array(new.metadata[key]), np.array(old.metadata[key])), key
        assert new.metadata["general.file_type"] == 32
        assert new.metadata["general.quantization_version"] == 2


def test_keys_of_the_old_file_are_dropped(tmp_path: Path) -> None:
    extra = {"trit.recipe": "old", "trit.source.sha256": "0" * 64, "trit.other": "stays"}
    path = small_model.write(tmp_path / "in.gguf", small_model.arrays(), extra=extra)
    convert(path, tmp_path / "out.gguf", "f16")
    with gguf.open(tmp_path / "out.gguf") as file:
        assert [key for key in file.metadata if key.startswith("trit.")] == ["trit.other"]


@pytest.mark.parametrize("mix", ["Q8_0", "Q4_0", "Q2_K", "Q4_K_M", "IQ4_XS", "Q6_K"])
def test_quantize_writes_what_the_dry_run_says(source: Path, tmp_path: Path, mix: str) -> None:
    out = tmp_path / "out.gguf"
    planned = quantize(source, None, mix, dry_run=True)
    done = quantize(source, out, mix)
    assert done.bytes == planned.bytes == out.stat().st_size
    assert [t.format for t in done.tensors] == [t.format for t in planned.tensors]
    assert leftovers(tmp_path) == []
    with gguf.open(out) as file:
        assert {n: t.format.name for n, t in file.tensors.items()} == {
            t.name: t.format for t in done.tensors
        }
        total = sum(tensor.nbytes for tensor in file.tensors.values())
    assert done.tensor_bytes == total
    assert done.bits_per_weight == 8 * total / done.weights
    before, after = decoded(source), decoded(out)
    for tensor in done.tensors:
        error = np.abs(before[tensor.name] - after[tensor.name]).max()
        # Uniform grids err by half a step; the coarsest here has 4 levels over a block's range.
        reach = np.abs(before[tensor.name]).max() * 2
        assert error <= reach / (2 ** formats.get(tensor.format).bits_per_weight / 2), tensor


def test_quantize_records_where_it_came_from(source: Path, tmp_path: Path) -> None:
    wishes = {"tensor_types": ["attn_v=q8_0"], "embedding_type": "Q5_K"}
    quantize(source, tmp_path / "out.gguf", "q4_k", **wishes)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    with gguf.open(tmp_path / "out.gguf") as file:
        assert file.metadata["trit.source.sha256"] == digest == source_sha256(source)
        assert json.loads(str(file.metadata["trit.recipe"])) == {
            "mix": "Q4_K_M",
            "tensor_types": ["attn_v=q8_0"],
            "embedding_type": "q5_k",
        }
        assert file.metadata["general.file_type"] == 15
        assert file["blk.1.attn_v.weight"].format.name == "q8_0"
        assert file["token_embd.weight"].format.name == "q5_k"


def test_same_bytes_for_any_threads_and_slabs(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = []
    for threads, slab in ((1, 1 << 22), (2, 1 << 22), (2, 1000)):
        monkeypatch.setattr(transcode, "SLAB_WEIGHTS", slab)
        path = tmp_path / f"{threads}-{slab}.gguf"
        quantize(source, path, "Q4_K_M", threads=threads)
        outputs.append(path.read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]


class Stop:
    """Progress that interrupts like Ctrl-C after so many bytes."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.seen: list[str] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self.seen:
            self.seen.append(what)
        if what == "writing" and done > self.after:
            raise KeyboardInterrupt


def test_an_interrupted_job_resumes_to_the_same_bytes(source: Path, tmp_path: Path) -> None:
    straight, out = tmp_path / "straight.gguf", tmp_path / "out.gguf"
    whole = quantize(source, straight, "Q4_K_M")
    out.write_bytes(b"an older file")
    for share in (3, 2):
        with pytest.raises(KeyboardInterrupt):
            quantize(source, out, "Q4_K_M", on_progress=Stop(whole.tensor_bytes // share))
        assert out.read_bytes() == b"an older file"
        assert leftovers(tmp_path) == ["out.gguf.partial", "out.gguf.partial.journal"]
    stages = Stop(1 << 60)
    done = quantize(source, out, "Q4_K_M", on_progress=stages)
    assert 0 < done.resumed < len(done.tensors)
    assert out.read_bytes() == straight.read_bytes()
    assert leftovers(tmp_path) == []
    assert stages.seen == ["checking what is there", "writing", "reading the source", "verifying"]


def test_another_job_does_not_take_up_the_partial_file(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(KeyboardInterrupt):
        quantize(source, out, "Q4_K_M", on_progress=Stop(100_000))
    assert quantize(source, out, "Q5_K_M").resumed == 0
    with pytest.raises(KeyboardInterrupt):
        quantize(source, out, "Q4_K_M", on_progress=Stop(100_000))
    small_model.write(source, small_model.arrays(seed=1))
    assert quantize(source, out, "Q4_K_M").resumed == 0


def test_another_core_does_not_take_up_the_partial_file(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.gguf"
    assert re.fullmatch("[0-9a-f]{64}", job.core_sha256())
    with pytest.raises(KeyboardInterrupt):
        quantize(source, out, "Q4_K_M", on_progress=Stop(100_000))
    monkeypatch.setattr(job, "core_sha256", lambda: "0" * 64)
    assert quantize(source, out, "Q4_K_M").resumed == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("verb", ["f32", "bf16", "f16", "Q4_K_M", "Q8_0"])
def test_nan_and_inf_are_named_and_nothing_is_left(tmp_path: Path, value: float, verb: str) -> None:
    weights = small_model.arrays()
    weights["blk.1.ffn_up.weight"][300, 7] = value
    path = small_model.write(tmp_path / "in.gguf", weights, "bf16")
    run = convert if verb.islower() else quantize
    where = r"blk\.1\.ffn_up\.weight"
    if verb != "bf16":  # copied as it is: the file's own check counts, it does not say where
        where += r".*\[300, 7\]"
    with pytest.raises(InvalidFileError, match=where):
        run(path, tmp_path / "out.gguf", verb)
    assert [p.name for p in tmp_path.iterdir()] == ["in.gguf"]


def test_what_float16_cannot_hold_is_an_error(tmp_path: Path) -> None:
    weights = small_model.arrays()
    weights["blk.0.ffn_up.weight"][1, 2] = 70_000
    path = small_model.write(tmp_path / "in.gguf", weights, "f32")
    with pytest.raises(UnsupportedError, match=r"blk\.0\.ffn_up.*70000.*\n.*bf16"):
        convert(path, tmp_path / "out.gguf", "f16")
    convert(path, tmp_path / "out.gguf", "bf16")
    # 70000 / 127 fits a float16 scale.
    quantize(path, tmp_path / "out.gguf", "Q8_0")
    weights["blk.0.ffn_up.weight"][1, 2] = 1e9
    small_model.write(path, weights, "f32")
    with pytest.raises(TritError, match=r"blk\.0\.ffn_up"):
        quantize(path, tmp_path / "out.gguf", "Q8_0")


def test_the_source_is_never_the_output(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    symbolic, hard = tmp_path / "symbolic.gguf", tmp_path / "hard.gguf"
    symbolic.symlink_to(source)
    os.link(source, hard)
    for out in (source, symbolic, hard, tmp_path / "." / "source.gguf"):
        with pytest.raises(UsageError, match="is an input"):
            quantize(source, out, "Q8_0")
        with pytest.raises(UsageError, match="is an input"):
            convert(symbolic, out, "f32")
    assert source.read_bytes() == before


def test_an_input_that_is_gone_hides_no_other(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("text")
    with pytest.raises(UsageError, match=r"text\.txt is an input"):
        refuse_overwrite(text, (tmp_path / "gone.gguf", None, text))
    refuse_overwrite(text, ("text.txt", tmp_path / "gone.gguf"))  # a str is text, not a name


@pytest.mark.parametrize("layers", [1, 3])
def test_a_folder_of_other_layers_than_it_says_is_refused(tmp_path: Path, layers: int) -> None:
    model, out = small_folder.write(tmp_path / "model"), tmp_path / "out.gguf"
    (model / "config.json").write_text(
        json.dumps(small_folder.CONFIG | {"num_hidden_layers": layers}), encoding="utf-8"
    )
    expected = r"blk\.2\.attn_q\.weight.*missing" if layers == 3 else r"blk\.1\.attn_.*up to 0"
    with pytest.raises(InvalidFileError, match=expected):
        convert(model, out, "f16")
    with pytest.raises(InvalidFileError, match=expected):
        quantize(model, out, "Q8_0")
    with pytest.raises(InvalidFileError, match=expected):
        quantize(model, out, bpw=8)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_without_a_tokenizer_is_warned_of(tmp_path: Path) -> None:
    model, out = small_folder.write(tmp_path / "model"), tmp_path / "out.gguf"
    for made in (convert(model, out, "f16"), quantize(model, out, "Q8_0", dry_run=True)):
        assert [text for text in made.warnings if "the file cannot be run" in text]
    assert not convert(out, tmp_path / "again.gguf", "f32").warnings  # its writer was told
    vocab = {chr(ord("a") + number): number for number in range(12)}
    tokenizer = {
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
    }
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert convert(model, out, "f16").warnings == ()


def test_a_file_of_a_vocabulary_alone_is_refused(tmp_path: Path) -> None:
    path, out = tmp_path / "vocabulary.gguf", tmp_path / "out.gguf"
    gguf.write(path, small_model.keys(), [])
    expected = r"vocabulary\.gguf: tensors: expected weights, got none"
    for run in (
        lambda: convert(path, out, "f16"),
        lambda: quantize(path, out, "Q4_0"),
        lambda: quantize(path, out, bpw=4),
        lambda: archs.plan(checkpoint.open(path)),
    ):
        with pytest.raises(InvalidFileError, match=expected):
            run()
    assert not out.exists()


def test_a_quantized_source_is_warned_of(source: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.gguf"
    assert quantize(source, small, "Q4_0").warnings == ()
    again = quantize(small, None, "Q2_K", dry_run=True)
    assert len(again.warnings) == 1
    assert "Q4_0" in again.warnings[0]
    assert "rounded a second time" in again.warnings[0]
    expanded = convert(small, tmp_path / "wide.gguf", "f16")
    assert "does not come back" in expanded.warnings[0]
    # A tensor that has its format already is copied, not rounded again.
    copied = quantize(small, tmp_path / "copy.gguf", "Q4_0")
    with gguf.open(small) as old, gguf.open(copied.path) as new:
        for name, tensor in old.tensors.items():
            assert np.array_equal(new[name].data, tensor.data)


def ternary(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same matrices as one scale times -1, 0 or 1 per row (the embedding as it was)."""
    made = {}
    for name, array in weights.items():
        scale = np.float32(2.0**-5)
        is_plain = array.ndim < 2 or name == "token_embd.weight"
        made[name] = array if is_plain else np.sign(np.round(array * 16)) * scale
    return made


@pytest.mark.parametrize("mix", ["TQ1_0", "TQ2_0"])
def test_ternary_types_are_for_ternary_weights(tmp_path: Path, mix: str) -> None:
    weights = small_model.arrays()
    plain = small_model.write(tmp_path / "plain.gguf", weights)
    good = small_model.write(tmp_path / "ternary.gguf", ternary(weights))
    with pytest.raises(UnsupportedError, match=r"not ternary(.*\n)+.*trit distill MODEL.*--force"):
        quantize(plain, tmp_path / "out.gguf", mix)
    assert not (tmp_path / "out.gguf").exists()
    assert leftovers(tmp_path) == []
    quantize(plain, tmp_path / "forced.gguf", mix, force=True)
    done = quantize(good, tmp_path / "out.gguf", mix)
    before, after = decoded(good), decoded(done.path)
    packed = [tensor.name for tensor in done.tensors if tensor.format == mix.lower()]
    assert len(packed) == 7 * small_model.LAYERS
    assert all(np.array_equal(before[name], after[name]) for name in packed)


def test_a_late_block_that_is_not_ternary(tmp_path: Path) -> None:
    """The look before the start sees some rows; the rest is checked on the way."""
    weights = ternary(small_model.arrays())
    weights["blk.1.ffn_down.weight"][200, 100] = 0.01
    path = small_model.write(tmp_path / "in.gguf", weights)
    with pytest.raises(UnsupportedError, match=r"blk\.1\.ffn_down"):
        quantize(path, tmp_path / "out.gguf", "TQ2_0")
    assert [p.name for p in tmp_path.iterdir()] == ["in.gguf"]


def write_imatrix(path: Path, weights: dict[str, np.ndarray]) -> Path:
    tensors = []
    random = np.random.default_rng(5)
    for name, array in weights.items():
        if array.ndim == 2 and name.startswith("blk."):
            sums = (random.random((1, array.shape[1])) ** 8 * 1000).astype(np.float32)
            for part, values in ((".in_sum2", sums), (".counts", np.full((1, 1), 4, np.float32))):
                data = values.view(np.uint8).reshape(1, -1)
                tensors.append(gguf.Tensor(name + part, values.shape, formats.get("f32"), data))
    keys: dict[str, gguf.Plain | Value] = {
        "general.type": "imatrix",
        "imatrix.datasets": ["calibration.txt"],
        "imatrix.chunk_count": Value(ValueType.UINT32, 9),
        "imatrix.chunk_size": Value(ValueType.UINT32, 512),
    }
    gguf.write(path, keys, tensors)
    return path


def test_importance_data_is_used_and_recorded(source: Path, tmp_path: Path) -> None:
    weights = small_model.arrays()
    data = write_imatrix(tmp_path / "imatrix.gguf", weights)
    plain = quantize(source, tmp_path / "plain.gguf", "Q2_K")
    done = quantize(source, tmp_path / "out.gguf", "Q2_K", imatrix=data)
    assert (plain.weighted, done.weighted) == (0, 7 * small_model.LAYERS)
    with gguf.open(done.path) as file:
        assert file.metadata["quantize.imatrix.file"] == "imatrix.gguf"
        assert file.metadata["quantize.imatrix.dataset"] == "calibration.txt"
        assert file.metadata["quantize.imatrix.entries_count"] == 7 * small_model.LAYERS
        assert file.metadata["quantize.imatrix.chunks_count"] == 9
    from trit.files import imatrix

    importance = imatrix.load(data)
    before, better, worse = decoded(source), decoded(done.path), decoded(plain.path)
    for name in importance.entries:
        row = importance.importance(name, before[name].shape)
        with_it, without = (
            float((row * (before[name] - after[name]) ** 2).sum()) for after in (better, worse)
        )
        assert with_it < without, name


def test_importance_data_of_another_model(tmp_path: Path) -> None:
    data = write_imatrix(tmp_path / "imatrix.gguf", small_model.arrays())
    other = small_model.write(tmp_path / "odd.gguf", small_model.arrays(odd=64))
    with pytest.raises(InvalidFileError, match="another model"):
        quantize(other, None, "Q4_K_M", imatrix=data, dry_run=True)


def test_fallbacks_are_in_the_result(tmp_path: Path) -> None:
    odd = small_model.write(tmp_path / "odd.gguf", small_model.arrays(odd=64))
    done = quantize(odd, tmp_path / "out.gguf", "Q4_K_M")
    found = {tensor.name: (tensor.fallback_from, tensor.format) for tensor in done.fallbacks}
    assert found["blk.0.attn_q.weight"] == ("q4_k", "q5_0")
    assert found["token_embd.weight"] == ("q6_k", "q8_0")
    assert "blk.0.ffn_down.weight" not in found


def test_few_bits_want_importance(source: Path, tmp_path: Path) -> None:
    done = quantize(source, tmp_path / "out.gguf", "IQ2_XS", dry_run=True)
    assert {"iq2_xs", "q2_k"} & {tensor.format for tensor in done.tensors}
    assert any("IQ2_XS without importance" in text for text in done.warnings)
    done = quantize(source, tmp_path / "out.gguf", "IQ3_S", dry_run=True)
    assert not any("importance" in text for text in done.warnings)


def test_the_cost_is_known_before(source: Path, tmp_path: Path) -> None:
    with prepare_quantize(source, tmp_path / "out.gguf", "Q4_K_M", overrides()) as job:
        assert 0 < job.estimate_seconds() < 60
        assert job.replaces is False
    assert not (tmp_path / "out.gguf").exists()


def test_bad_requests(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown quantization type"):
        quantize(source, tmp_path / "out.gguf", "Q9")
    with pytest.raises(UsageError, match=r"trit quantize.*Q4_K_M"):
        convert(source, tmp_path / "out.gguf", "q4_k_m")
    with pytest.raises(UsageError, match="no folder"):
        convert(source, tmp_path / "absent" / "out.gguf", "f16")
    with pytest.raises(TritError, match="absent"):
        convert(tmp_path / "absent.gguf", tmp_path / "out.gguf", "f16")
    with pytest.raises(UnsupportedError, match="nvfp4"):
        quantize(source, tmp_path / "out.gguf", "Q4_K_M", tensor_types=["ffn_up=nvfp4"])
    assert [p.name for p in tmp_path.iterdir()] == ["source.gguf"]


def test_every_expert_is_rounded_by_itself(tmp_path: Path) -> None:
    """K-quants of a stack are those of its matrices; importance is that of each expert."""
    weights = small_model.mixture()
    path = small_model.write(tmp_path / "f32.gguf", weights, "f32", small_model.MIXTURE_KEYS)
    quantize(path, tmp_path / "out.gguf", "Q4_K_M")
    with gguf.open(tmp_path / "out.gguf") as model:
        kinds = set()
        for name, array in weights.items():
            if array.ndim < 3:
                continue
            tensor = model.tensors[name]
            kinds.add(tensor.format.name)
            assert tensor.shape == array.shape
            for data, matrix in zip(tensor.data, array, strict=True):
                assert np.array_equal(data, rtn.quantize(matrix, tensor.format.name))
        assert kinds == {"q4_k", "q6_k"}
        router = model.tensors["blk.0.ffn_gate_inp.weight"]
        assert router.format.name == "f32"
        stack = weights["blk.0.ffn_up_exps.weight"]
        importance = np.random.default_rng(0).random((len(stack), stack.shape[2]), np.float32)
        weighed = Transcoder(path, rtn.quantize).pieces(
            model.tensors["blk.0.ffn_up_exps.weight"], formats.get("q4_0"), importance
        )
        stored = model.tensors["blk.0.ffn_up_exps.weight"].decode()
        for data, matrix, own in zip(weighed, stored, importance, strict=True):
            assert np.array_equal(data, rtn.quantize(matrix, "q4_0", own))


@pytest.mark.parametrize("arch", ["llama", "mixtral", "qwen2moe", "qwen3moe"])
def test_llama_cpp_loads_what_is_written(arch: str, tmp_path: Path) -> None:
    """From a Hugging Face folder in one step, in stock llama.cpp, which finds the same likely.

    Both cache keys and values as float16, and round them apart, in attention too: in F32 that is
    all they differ by. A mixture's row may choose other experts for it, so that most rows count.
    """
    llama_cpp = pytest.importorskip("llama_cpp")
    pytest.importorskip("transformers")
    import sys

    sys.path.insert(0, str(Path(__file__).parent / "archs"))
    from tiny import Variant, tiny_model

    from trit import archs
    from trit.engine import Engine, Rows

    folder = tiny_model(arch, tmp_path / "hf", Variant(tokenizer=True))
    for mix in ("Q4_K_M", "Q8_0", "F32"):
        out = tmp_path / f"{mix}.gguf"
        quantize(folder, out, mix)
        model = llama_cpp.Llama(str(out), n_ctx=64, verbose=False, logits_all=True)
        tokens = model.tokenize(b"the end and the beginning")
        assert len(tokens) > 4
        model.eval(tokens)
        theirs = np.array(model.scores[: len(tokens)], dtype=np.float32)
        model.close()
    with gguf.open(out) as file:
        engine = Engine(archs.plan(file), file.tensors, threads=1)
        ours = engine.forward(Rows.of(tokens), range(len(tokens)))
    apart = np.abs(ours - theirs).max(axis=1) / np.abs(theirs).max()
    assert np.median(apart) < 5e-3
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean() > 0.8
