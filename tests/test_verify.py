"""`trit verify`: what a recipe makes again, and what it finds in a file that was changed."""

import json
from pathlib import Path

import numpy as np
import pytest

import small_model
import text_model
import trit
from trit.cli import main
from trit.errors import TritError, UsageError
from trit.evaluate import card
from trit.files import gguf
from trit.verify import verify


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


def quantized(source: Path, out: Path, **settings: object) -> Path:
    trit.quantize(source, out, "Q4_K_M", **settings)  # type: ignore[arg-type]
    return out


def change_recipe(path: Path, old: bytes, new: bytes) -> None:
    raw = path.read_bytes()
    assert len(old) == len(new) and raw.count(old) == 1
    path.write_bytes(raw.replace(old, new))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pure": True, "tensor_types": ["attn_v=q6_k", "ffn_(up|gate)=q5_0"]},
        {"output_type": "q8_0", "embedding_type": "q6_k", "card": True},
    ],
)
def test_the_bytes(source: Path, tmp_path: Path, settings: dict[str, object]) -> None:
    path = quantized(source, tmp_path / "q.gguf", **settings)
    before = path.read_bytes()
    seen: list[str] = []
    proof = verify(path, source, on_progress=lambda what, done, total: seen.append(what))
    assert (proof.by, proof.because, proof.bytes) == ("bytes", None, len(before))
    assert path.read_bytes() == before and {"reading the source", "making it again"} <= set(seen)
    assert [p.name for p in tmp_path.iterdir()] == ["q.gguf"]


def test_with_importance_data(source: Path, tmp_path: Path) -> None:
    text = text_model.TEXT * 4
    data = tmp_path / "data.gguf"
    trit.imatrix(source, data, text=text, ctx=64)
    path = quantized(source, tmp_path / "q.gguf", imatrix=data)
    assert verify(path, source).by == "bytes"  # found beside the file
    moved = data.rename(tmp_path / "moved.gguf")
    with pytest.raises(UsageError, match=r"no quality card, and its importance data data\.gguf"):
        verify(path, source)
    assert verify(path, source, imatrix=moved).by == "bytes"
    other = tmp_path / "other.gguf"
    trit.imatrix(source, other, text=text[7:], ctx=64)
    with pytest.raises(UsageError, match="is not the importance data of"):
        verify(path, source, imatrix=other)
    plain = quantized(source, tmp_path / "plain.gguf")
    with pytest.raises(UsageError, match="made without importance data"):
        verify(plain, source, imatrix=moved)


def test_with_error_feedback(source: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(text_model.TEXT * 16)
    path = quantized(source, tmp_path / "q.gguf", quantizer="gptq", calibration=text)
    assert verify(path, source, threads=1).by == "bytes"  # the text is found beside the file
    moved = text.rename(tmp_path / "moved.txt")
    with pytest.raises(UsageError, match=r"its calibration text text\.txt \(sha256 .* not at hand"):
        verify(path, source)
    assert verify(path, source, calibration=moved).by == "bytes"
    moved.write_text(text_model.TEXT * 15)
    with pytest.raises(UsageError, match="is not the calibration text it was made with"):
        verify(path, source, calibration=moved)
    moved.write_text(text_model.TEXT * 16)
    spoil(path, "blk.1.ffn_up.weight")
    with pytest.raises(TritError, match=r"'blk\.1\.ffn_up\.weight' is not what its recipe makes"):
        verify(path, source, calibration=moved)


@pytest.mark.parametrize("effort", ["fast", "balanced"])
def test_with_a_budget(source: Path, tmp_path: Path, effort: str) -> None:
    text = tmp_path / "text.txt"
    text.write_text(text_model.TEXT * 16)
    path = tmp_path / "q.gguf"
    trit.quantize(source, path, bpw=5.25, calibration=text, effort=effort)
    with gguf.open(path) as file:
        said = json.loads(str(file.metadata["trit.recipe"]))
        kept = tmp_path / str(file.metadata["quantize.imatrix.file"])
    assert "budget" in said and kept.exists()
    assert verify(path, source).by == "bytes"
    spoil(path, "blk.0.attn_q.weight")
    with pytest.raises(TritError, match=r"'blk\.0\.attn_q\.weight' is not what its recipe makes"):
        verify(path, source)


def spoil(path: Path, name: str) -> None:
    """Change a byte of a tensor."""
    with gguf.open(path) as file:
        data = np.asarray(file.tensors[name].data).reshape(-1)[:64].tobytes()
    raw = path.read_bytes()
    at = raw.index(data) + 40
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 16]) + raw[at + 1 :])


def test_the_first_tensor_that_differs_is_named(source: Path, tmp_path: Path) -> None:
    path = quantized(source, tmp_path / "q.gguf")
    with gguf.open(path) as file:
        base = np.frombuffer(path.read_bytes(), np.uint8)
        where = []
        for name in ("blk.0.ffn_up.weight", "blk.1.attn_k.weight"):
            data = np.asarray(file[name].data).reshape(-1)
            where.append(base.tobytes().index(data[:64].tobytes()))
        order = [n for n in file.tensors if n in ("blk.0.ffn_up.weight", "blk.1.attn_k.weight")]
    raw = bytearray(path.read_bytes())
    for at in where:
        raw[at + 40] ^= 1
    path.write_bytes(raw)
    with pytest.raises(TritError, match=f"tensor '{order[0]}' is not what its recipe makes"):
        verify(path, source)


def test_another_source_is_refused(source: Path, tmp_path: Path) -> None:
    path = quantized(source, tmp_path / "q.gguf")
    other = text_model.write(tmp_path / "other.gguf", seed=1)
    with pytest.raises(TritError, match="made from another source"):
        verify(path, other)


def test_keys_that_were_changed(source: Path, tmp_path: Path) -> None:
    path = quantized(source, tmp_path / "q.gguf")
    change_recipe(path, b"Small Model", b"Smart Model")
    with pytest.raises(TritError, match="its keys or its list of tensors differ"):
        verify(path, source)
    change_recipe(path, b'{"mix": "Q4_K_M"}', b'{"mix": "Q4_K_S"}')
    with pytest.raises(TritError, match="its keys or its list of tensors differ"):
        verify(path, source)


def test_the_card_in_place_of_the_bytes(source: Path, tmp_path: Path) -> None:
    path = quantized(source, tmp_path / "q.gguf", card=True)
    change_recipe(path, b'{"mix": "Q4_K_M"}', b'{"mix":"?","a":1}')
    proof = verify(path, source)
    assert proof.by == "card" and proof.because is not None and "recipe has a" in proof.because
    with gguf.open(path) as file:
        said = card.read(file.metadata, list(file.tensors))
    assert said is not None
    better = card.Card(
        said.text_sha256, said.ctx, said.tokens, card.Estimate(said.kld.mean * 0.5, 0.0),
        said.ppl, said.ppl_source, said.same_top, said.tensors,
    )  # fmt: skip
    card.write(path, better)
    with pytest.raises(TritError, match="its card says kld"):
        verify(path, source)


def test_bytes_and_card(source: Path, tmp_path: Path) -> None:
    path = quantized(source, tmp_path / "q.gguf", card=True)
    assert verify(path, source, card=True).by == "bytes and card"
    with pytest.raises(UsageError, match="no quality card: nothing can be proved"):
        verify(quantized(source, tmp_path / "plain.gguf"), source, card=True)


def test_files_of_others(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="says not how it was made"):
        verify(source, source)
    path = quantized(source, tmp_path / "q.gguf")
    change_recipe(path, b'{"mix": "Q4_K_M"}', b'["mix", "Q4_K_M"]')
    with pytest.raises(TritError, match="expected the JSON of a recipe"):
        verify(path, source)


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "q.gguf"
    assert main(["quantize", str(source), str(out), "Q4_K_M", "--card", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["card"]["kld"] > 0 and len(answer["card"]["tensor_errors"]) > 10
    assert main(["show", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    errors = shown["card"].pop("tensor_errors")  # float32 in the file
    assert errors == pytest.approx(answer["card"].pop("tensor_errors"), rel=1e-6)
    assert shown["card"] == answer["card"]
    assert len(shown["source_sha256"]) == 64 and shown["made_by"]
    assert main(["show", str(out)]) == 0
    text = capsys.readouterr().out
    assert "same top token" in text and "KLD" in text and "largest errors" in text
    assert main(["verify", str(out), "--source", str(source), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["proved_by"] == "bytes"
    assert main(["verify", str(out), "--source", str(source), "--card"]) == 0
    assert "its card holds too" in capsys.readouterr().out
    raw = bytearray(out.read_bytes())
    raw[-50] ^= 1
    out.write_bytes(raw)
    assert main(["verify", str(out), "--source", str(source)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "first that differs" in captured.err
    assert main(["quantize", str(source), str(out), "Q4_K_M", "--card"]) == 0
    assert "largest errors" in capsys.readouterr().out


def test_a_card_is_for_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small_model.write(tmp_path / "m.gguf", small_model.arrays())
    assert main(["quantize", str(path), str(tmp_path / "d"), "--to", "awq", "--card"]) == 2
    assert "--card is for GGUF files" in capsys.readouterr().err
