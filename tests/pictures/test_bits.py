"""Pictures: the grid is what the tensors are, files are pictures, the frontier is one."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

import small_model
from trit import formats, pictures
from trit.cli import main
from trit.errors import UsageError
from trit.files import checkpoint
from trit.formats import Format
from trit.pictures import bits, pareto

pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'trit[plot]'")


@dataclass(frozen=True)
class Named:
    """A tensor without bytes."""

    name: str
    shape: tuple[int, ...]
    format: Format

    @property
    def nbytes(self) -> int:
        return int(self.shape[0] * self.shape[-1] * self.format.bits_per_weight / 8)


def some() -> list[Named]:
    """Two layers of a mixture, each otherwise quantized, with embedding, output and a norm."""
    kinds = ("ffn_down_exps", "attn_q", "ffn_gate_inp", "ffn_up_shexp", "ffn_up", "other")
    mixed = {0: "q4_k", 1: "q6_k"}
    made = [
        Named(f"blk.{i}.{kind}.weight", (256, 512), formats.get(mixed[i]))
        for i in (1, 0)
        for kind in kinds
    ]
    made.append(Named("blk.0.attn_norm.weight", (256,), formats.get("f32")))
    made.append(Named("token_embd.weight", (100, 256), formats.get("q8_0")))
    return [*made, Named("output.weight", (100, 256), formats.get("f16"))]


def test_the_grid() -> None:
    found = bits.grid(some())
    assert found.layers == 2 and list(found.others) == ["token_embd", "output"]
    order = ["attn_q", "ffn_gate_inp", "ffn_up", "ffn_up_shexp", "ffn_down_exps", "other"]
    assert list(found.rows) == order
    assert found.rows["attn_q"][1] == bits.Cell("q6_k", 6.5625, 256 * 512 * 6.5625 / 8)
    assert list(found.formats) == ["f16", "q8_0", "q6_k", "q4_k"]
    assert found.formats["q4_k"].nbytes == 6 * 256 * 512 * 4.5 / 8
    assert found.vector_bytes == 256 * 256 * 4
    total = sum(tensor.nbytes for tensor in some()) - found.vector_bytes
    assert sum(cell.nbytes for cell in found.cells()) == total


def test_colours_are_told_apart() -> None:
    shades = {bits.colour(n) for n in (1.5, 2.0625, 3.4375, 4.5, 5.5, 6.5625, 8.5, 16, 32)}
    assert len(shades) == 8 and bits.colour(16) == bits.colour(32)
    lightness = [sum(bits.colour(n)[:3]) for n in (1.5, 4.5, 8.5)]
    assert lightness == sorted(lightness)


@pytest.mark.parametrize("kind", [".svg", ".png"])
def test_a_picture_is_the_same_again(kind: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        bits.draw(some(), tmp_path / f"{name}{kind}", "Some model: 5 bits")
    first, second = ((tmp_path / f"{name}{kind}").read_bytes() for name in ("a", "b"))
    assert first == second
    if kind == ".svg":
        text = first.decode()
        ElementTree.fromstring(text)
        for word in ("Some model: 5 bits", "attn_q", "ffn_down_exps", "token_embd", "GiB"):
            assert (word in text) == (word != "GiB"), word
        assert "Q4_K  4.5 bits" in text
    else:
        assert first.startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{kind}", f"b{kind}"]


def test_an_svg_for_a_page() -> None:
    figure = bits.figure(bits.grid(some()), "T")
    one, other = (pictures.svg(figure, name, "what it shows") for name in ("one", "other"))
    ElementTree.fromstring(one)
    assert 'aria-label="what it shows"' in one and "currentColor" in one
    ids = [set(re.findall(r'id="([^"]+)"', text)) for text in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', one))
    assert used and used <= ids[0]
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", one)


def test_the_frontier() -> None:
    def point(size: int, value: float) -> pareto.Point:
        return pareto.Point(f"{size}", size, value, value, value)

    points = [point(3, 1.0), point(1, 5.0), point(2, 6.0), point(4, 1.0), point(2, 4.0)]
    assert [p.label for p in pareto.frontier(points, True)] == ["1", "2", "3"]
    assert [p.value for p in pareto.frontier(points, False)] == [5.0, 6.0]
    best = pareto.frontier(points, True)
    for p in points:
        beaten = any(
            q.size <= p.size and q.value <= p.value and (q.size, q.value) != (p.size, p.value)
            for q in points
        )
        assert beaten == (p not in best), p


def test_show_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model.write(tmp_path / "model.gguf", small_model.mixture(), extra={
        **small_model.MIXTURE_KEYS})  # fmt: skip
    picture = tmp_path / "bits.svg"
    assert main(["show", str(model), "--picture", str(picture), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["parameters"] > 0 and f"written: {picture}" in captured.err
    text = picture.read_text()
    with checkpoint.open(model) as file:
        weights = sum(t.rows * t.cols for t in file.tensors.values())
        size = sum(t.nbytes for t in file.tensors.values())
    assert f"model: {8 * size / weights:.2f} bits per weight" in text and "ffn_up_exps" in text
    for name, says in (("bits.gif", "ends in .svg or .png"), ("absent/bits.png", "no folder")):
        assert main(["show", str(model), "--picture", str(tmp_path / name)]) == 2
        assert says in capsys.readouterr().err
    with pytest.raises(UsageError):
        pictures.check(tmp_path / "x", "--picture")
