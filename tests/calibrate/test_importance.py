"""Files of importance data and Gram matrices: what is in them, and that they are all or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import small_model
import text_model
import trit
from trit.calibrate import FINGERPRINT, data, imatrix, walk
from trit.cli._measuring import remarks
from trit.errors import DoesNotFitError, InvalidFileError, TritError, UsageError
from trit.files import checkpoint, gguf
from trit.files import imatrix as files

Floats = NDArray[np.float32]

CTX = 64
Q, K, DOWN = "blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.1.ffn_down.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(text_model.TEXT, encoding="utf-8")
    return path


def test_the_file_is_what_llama_cpp_writes(model: Path, text: Path, tmp_path: Path) -> None:
    """Its keys, their types and its tensors, seen by the gguf package."""
    gguf_package = pytest.importorskip("gguf")
    out = tmp_path / "out.gguf"
    result = imatrix(model, out, text, ctx=CTX, chunks=3)
    reader = gguf_package.GGUFReader(out)
    fields = {name: (f.types, f.contents()) for name, f in reader.fields.items()}
    kinds = gguf_package.GGUFValueType
    assert fields["general.type"] == ([kinds.STRING], "imatrix")
    assert fields["imatrix.chunk_count"] == ([kinds.UINT32], 3)
    assert fields["imatrix.chunk_size"] == ([kinds.UINT32], CTX)
    assert fields["imatrix.datasets"] == ([kinds.ARRAY, kinds.STRING], [str(text)[-127:]])
    about = json.loads(fields["trit.calibration"][1])
    assert about["texts"] == [{"name": str(text), "sha256": result.texts[0].sha256}]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == 2 * result.entries == 2 * 7 * small_model.LAYERS
    expected = {}
    with checkpoint.open(model) as file:
        given = data(file, text, CTX, 3)
        for layer in walk(file, given.tokens):
            expected |= {name: inputs for inputs in layer.inputs for name in inputs.names}
    for name, inputs in expected.items():
        sums, counts = tensors[f"{name}.in_sum2"], tensors[f"{name}.counts"]
        assert sums.tensor_type == counts.tensor_type == gguf_package.GGMLQuantizationType.F32
        assert list(sums.shape) == [inputs.sums.shape[1], 1] and list(counts.shape) == [1, 1]
        assert np.array_equal(sums.data, inputs.sums.astype(np.float32))
        assert counts.data.reshape(-1).tolist() == [3 * CTX]
    loaded = files.load(out)
    assert loaded.chunks == 3 and set(loaded.entries) == set(expected)
    np.testing.assert_allclose(loaded.entries[Q], expected[Q].means[0], rtol=1e-6)


def test_experts_apart(tmp_path: Path) -> None:
    weights = small_model.mixture()
    for name in weights:
        if "gate_inp" in name:  # the fourth is never chosen
            weights[name][:] = np.array([[1], [-1], [0], [0]])
    keys = small_model.MIXTURE_KEYS | _tokenizer()
    model = small_model.write(tmp_path / "mixture.gguf", weights, "f16", keys)
    result = imatrix(model, tmp_path / "out.gguf", "acbdce" * 20, ctx=32)
    stacks = [f"blk.{i}.ffn_{kind}_exps.weight" for i in (0, 1) for kind in ("down", "gate", "up")]
    assert result.unseen == {name: [3] for name in result.unseen}
    assert sorted(result.unseen) == sorted(stacks)
    with gguf.open(result.path, model=False) as file:
        counts = file[f"{stacks[0]}.counts"].decode()
        sums = file[f"{stacks[0]}.in_sum2"].decode()
    assert counts.shape == (4, 1) and counts[3] == 0 and counts.sum() == 2 * result.tokens
    assert sums.shape == (4, small_model.FEED_FORWARD // 2) and not sums[3].any()
    loaded = files.load(result.path).importance(stacks[0], (4, 9, sums.shape[1]))
    assert loaded is not None and (loaded[3] == 1).all() and (loaded[:3] != 1).any()
    small = trit.quantize(model, tmp_path / "small.gguf", "Q8_0", imatrix=result.path)
    assert small.weighted > 0


@pytest.mark.parametrize("poison", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("exact", [False, True])
def test_a_model_that_gives_no_numbers(tmp_path: Path, poison: float, exact: bool) -> None:
    """NaN and infinity in a weight, and sums too large: the layer is named, nothing is written."""

    def spoil(weights: dict[str, Floats]) -> None:
        weights[DOWN][3:] = poison

    model = text_model.write(tmp_path / "model.gguf", matrices="f32", change=spoil)
    out = tmp_path / "out.gguf"
    out.write_bytes(b"older")
    with pytest.raises(TritError, match=r"model\.gguf: .*blk\.1\.ffn_down\.weight") as caught:
        imatrix(model, out, text_model.TEXT, ctx=CTX, exact=exact, gram=tmp_path / "gram.gguf")
    assert "finite" in str(caught.value)
    assert out.read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 2


def test_columns_that_never_fire(tmp_path: Path) -> None:
    """They are told of, and a block of nothing but such is rounded as without data."""

    def silence(weights: dict[str, Floats]) -> None:
        weights["blk.0.attn_norm.weight"][:] = -1  # 1 is added
        weights["blk.0.attn_norm.weight"][40:] = 0
        weights["blk.1.attn_norm.weight"][7] = -1

    model = text_model.write(tmp_path / "model.gguf", change=silence)
    result = imatrix(model, tmp_path / "out.gguf", text_model.TEXT, ctx=CTX)
    heads = ("attn_q", "attn_k", "attn_v")
    expected = {f"blk.{i}.{name}.weight": (40, 1)[i] for i in (0, 1) for name in heads}
    assert result.silent == result.to_dict()["silent_columns"] == expected
    assert any("123 columns of 6 of the tensors never fired" in each for each in remarks(result))
    loaded = files.load(result.path)
    assert (loaded.entries[Q] == 0).tolist() == [column < 40 for column in range(256)]
    trit.quantize(model, tmp_path / "plain.gguf", "Q4_0")
    trit.quantize(model, tmp_path / "small.gguf", "Q4_0", imatrix=result.path)
    with (
        gguf.open(model) as source,
        gguf.open(tmp_path / "plain.gguf") as plain,
        gguf.open(tmp_path / "small.gguf") as small,
    ):
        given = source[Q].decode()
        errors = [np.square(file[Q].decode() - given)[:, :32].sum() for file in (plain, small)]
        assert errors[1] < 1.2 * errors[0]
        assert not np.array_equal(plain[Q].decode(), small[Q].decode())


def _tokenizer() -> dict[str, gguf.Plain | gguf.Value]:
    tokens = [chr(each) for each in range(ord("a"), ord("a") + small_model.VOCAB - 1)]
    return {
        "tokenizer.ggml.tokens": [*tokens, "ab"],
        "tokenizer.ggml.token_type": np.ones(small_model.VOCAB, np.int32),
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.add_bos_token": False,
    }


@pytest.mark.parametrize("tied", [True, False])
def test_the_output_matrix_on_request(tmp_path: Path, text: Path, tied: bool) -> None:
    model = text_model.write(tmp_path / "model.gguf")
    name = "token_embd.weight"
    if not tied:
        name = "output.weight"
        with gguf.open(model) as file:
            keys, tensors = dict(file.values), dict(file.tensors)
            table = tensors["token_embd.weight"]
            tensors[name] = gguf.Tensor(name, table.shape, table.format, table.data)
            model = tmp_path / "untied.gguf"
            gguf.write(model, keys, tensors.values())
    plain = imatrix(model, tmp_path / "a.gguf", text, ctx=CTX)
    whole = imatrix(model, tmp_path / "b.gguf", text, ctx=CTX, output=True)
    assert whole.entries == plain.entries + 1
    assert name not in files.load(plain.path).entries
    with checkpoint.open(model) as file:
        given = data(file, text, CTX)
        for layer in walk(file, given.tokens):
            hidden = layer.outputs.astype(np.float64)
        norm = file.tensors["output_norm.weight"].decode()
    x = hidden / np.sqrt(np.square(hidden).mean(axis=1, keepdims=True) + 1e-5) * norm
    expected = np.square(x).mean(axis=0)
    np.testing.assert_allclose(files.load(whole.path).entries[name], expected, rtol=1e-5)


def test_gram_matrices(model: Path, text: Path, tmp_path: Path) -> None:
    out, gram = tmp_path / "out.gguf", tmp_path / "gram.gguf"
    result = imatrix(model, out, text, ctx=CTX, gram=gram)
    assert result.gram == gram
    with gguf.open(gram, model=False) as file:
        lines = list(file.metadata["trit.gram.inputs"])  # type: ignore[call-overload]
        assert lines[0] == f"{Q} {K} blk.0.attn_v.weight" and len(lines) == 4 * small_model.LAYERS
        energies = files.load(out).entries
        for line in lines:
            first, *others = line.split(" ")
            matrix = file[f"{first}.gram"].decode()
            assert matrix.shape == (energies[first].size,) * 2
            assert np.array_equal(matrix, matrix.T)
            count = file[f"{first}.counts"].decode().item()
            assert count == result.tokens
            np.testing.assert_allclose(np.diag(matrix) / count, energies[first], rtol=1e-5)
            for other in others:
                assert np.array_equal(energies[other], energies[first])
    assert file.metadata["general.type"] == "trit.gram"


def test_a_text_of_less_than_a_chunk(model: Path, tmp_path: Path) -> None:
    result = imatrix(model, tmp_path / "out.gguf", "short", ctx=CTX)
    assert (result.chunks, result.ctx) == (1, 6) and "less than a chunk" in result.notes[0]
    loaded = files.load(result.path)
    assert loaded.chunks == 1 and loaded.entries[Q].any()


def test_chunks_begin_with_bos_and_what_is_left_over_is_not_read(model: Path) -> None:
    with checkpoint.open(model) as file:
        whole = data(file, "ab" * 50, ctx=100)
        cut = data(file, "ab" * 50, ctx=32)
        first = data(file, "ab" * 50, ctx=32, chunks=2)
    assert whole.tokens.shape == (1, 100) and cut.tokens.shape == (3, 32)
    assert np.array_equal(first.tokens, cut.tokens[:2]) and not cut.notes
    assert (cut.tokens[:, 0] == 0).all() and (cut.tokens[:, 1:] != 0).all()
    flat = whole.tokens.reshape(-1)
    assert np.array_equal(cut.tokens[1, 1:], flat[33:64])


@pytest.mark.parametrize(
    ("given", "kind", "problem"),
    [
        ({"text": ""}, UsageError, r"\(text\): the text is empty"),
        ({"text": " \n\t"}, UsageError, r"\(text\): the text is empty"),
        ({"text": Path("absent.txt")}, InvalidFileError, "absent.txt: expected a file of UTF-8"),
        ({"text": "x", "ctx": 0}, UsageError, "--ctx 0"),
        ({"text": "x", "chunks": 0}, UsageError, "--chunks 0"),
        ({"text": "x", "ctx": 200}, DoesNotFitError, r"chunks of 200 tokens .*made for 128"),
        ({"text": "x" * 999, "out": Path("absent/out.gguf")}, UsageError, "no folder absent"),
    ],
)
def test_what_cannot_be_measured_leaves_nothing(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, object],
    kind: type[Exception],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=problem):
        imatrix(model, **{"out": tmp_path / "out.gguf", **given})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_tokenizer(tmp_path: Path) -> None:
    path = small_model.write(tmp_path / "model.gguf", small_model.arrays())
    with gguf.open(path) as file:
        keys = {key: v for key, v in file.values.items() if not key.startswith("tokenizer")}
        gguf.write(tmp_path / "bare.gguf", keys, file.tensors.values())
    with pytest.raises(InvalidFileError, match=r"bare\.gguf.*tokenizer\.ggml\.model"):
        imatrix(tmp_path / "bare.gguf", tmp_path / "out.gguf", "text")
    assert not (tmp_path / "out.gguf").exists()


def test_the_source_is_never_the_output(model: Path, text: Path) -> None:
    before = model.read_bytes()
    for named in ({"out": model}, {"out": text.with_name("o.gguf"), "gram": model}):
        with pytest.raises(UsageError, match="is an input"):
            imatrix(model, text=text, ctx=CTX, **named)
    assert model.read_bytes() == before and [p.name for p in text.parent.iterdir()] == ["text.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_broken_off_it_leaves_nothing_and_what_was_there(
    model: Path, text: Path, tmp_path: Path, error: type[BaseException]
) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"older")

    def interrupt(what: str, done: int, total: int) -> None:
        if done > total // 2:
            raise error

    with pytest.raises(error):
        imatrix(model, out, text, ctx=CTX, gram=tmp_path / "gram.gguf", on_progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gguf", "text.txt"]
    assert out.read_bytes() == b"older"


def test_the_same_bytes_whatever_the_threads(model: Path, text: Path, tmp_path: Path) -> None:
    made = [
        imatrix(model, tmp_path / f"{n}.gguf", text, ctx=CTX, threads=n).path.read_bytes()
        for n in (1, 2, 3)
    ]
    assert made[0] == made[1] == made[2]


def test_a_fingerprint_of_all_it_depends_on(model: Path, text: Path, tmp_path: Path) -> None:
    def mark(**named: object) -> str:
        out = tmp_path / "out.gguf"
        imatrix(model, out, **{"text": text, "ctx": CTX, **named})  # type: ignore[arg-type]
        return files.load(out).metadata[FINGERPRINT]

    other = tmp_path / "other.txt"
    other.write_text(text_model.TEXT + "more")
    cases = [{"text": other}, {"ctx": 32}, {"chunks": 2}, {"exact": True}, {"output": True}]
    marks = [mark(), *(mark(**case) for case in cases)]
    assert len(set(marks)) == len(marks) and mark() == marks[0]
