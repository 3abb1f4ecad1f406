"""Malformed GGUF files are rejected: a typed error that says where, quickly, in little memory."""

import random
import warnings
from dataclasses import replace
from pathlib import Path

import gguf_bytes as raw
import hostile_gguf
import pytest
from test_files_budget import assert_rejected

from trit.errors import InvalidFileError, TritError, UnsupportedError
from trit.files import gguf


@pytest.mark.parametrize("name", hostile_gguf.ALL)
def test_rejected(tmp_path: Path, name: str) -> None:
    case = hostile_gguf.ALL[name]
    path = raw.write(tmp_path / "hostile.gguf", case.build(), case.size)
    assert_rejected(lambda: gguf.open(path), "hostile.gguf", case.message)


def test_the_recipe_itself_is_valid(tmp_path: Path) -> None:
    path = raw.write(tmp_path / "valid.gguf", hostile_gguf.VALID.build())
    with gguf.open(path) as file:
        assert list(file.tensors) == ["norm.weight", "down.weight", "up.weight"]
        assert file["down.weight"].shape == (4, 64)
        assert list(file.metadata["tokenizer.ggml.tokens"]) == ["<s>", "hello", "é", ""]
        assert file.metadata["tokenizer.ggml.add_bos_token"] is True


def test_a_cut_at_every_byte_of_the_header(tmp_path: Path) -> None:
    whole, header = hostile_gguf.VALID.build(), hostile_gguf.VALID.header()
    for count in range(len(header) + 1):
        path = raw.write(tmp_path / "cut.gguf", whole[:count])
        with pytest.raises(InvalidFileError, match="expected"):
            gguf.open(path)


def test_version_2_is_read_as_version_3_is(tmp_path: Path) -> None:
    path = raw.write(tmp_path / "v2.gguf", replace(hostile_gguf.VALID, version=2).build())
    with gguf.open(path) as file:
        assert len(file.tensors) == 3


@pytest.mark.parametrize("count", [352 + 144, 352 + 145, 512])
def test_padding_is_not_junk(tmp_path: Path, count: int) -> None:
    path = raw.write(tmp_path / "m.gguf", replace(hostile_gguf.VALID, data=bytes(count)).build())
    with gguf.open(path) as file:
        assert file["up.weight"].data.shape == (1, 144)


@pytest.mark.parametrize("alignment", [8, 16, 64, 4096])
def test_other_alignments(tmp_path: Path, alignment: int) -> None:
    key = raw.key("general.alignment", raw.U32, raw.u32(alignment))
    offset = -(-40 // alignment) * alignment
    recipe = raw.Recipe(
        values=(*raw.KEYS, key),
        records=(raw.record("a", [10], 0, 0), raw.record("b", [2], 0, offset)),
        alignment=alignment,
        data=bytes(offset + 8),
    )
    with gguf.open(raw.write(tmp_path / "m.gguf", recipe.build())) as file:
        assert file["b"].decode().tolist() == [0, 0]


@pytest.mark.parametrize("ggml_type", [9, 15, 24, 25, 26, 27, 28])
def test_legal_types_without_a_format_are_unsupported(tmp_path: Path, ggml_type: int) -> None:
    recipe = raw.Recipe(records=(raw.record("a", [256], ggml_type, 0),), data=bytes(4096))
    with pytest.raises(UnsupportedError, match="tensor 'a' is of type"):
        gguf.open(raw.write(tmp_path / "m.gguf", recipe.build()))


def test_what_is_no_file(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.gguf")
    for path in (tmp_path, tmp_path / "absent.gguf", tmp_path / "pipe.gguf", Path("/dev/zero")):
        with pytest.raises(InvalidFileError, match=str(path)):
            gguf.open(path)


def test_files_without_a_model_need_no_architecture(tmp_path: Path) -> None:
    path = raw.write(tmp_path / "m.gguf", raw.Recipe(values=()).build())
    assert len(gguf.open(path, model=False).tensors) == 3
    with pytest.raises(InvalidFileError, match=r"general\.architecture"):
        gguf.open(path)


def mutate(whole: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, replaced by telling values, cut out, doubled, or the end cut off."""
    mutant = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(mutant))
        kind = rng.randrange(6)
        if kind == 0:
            mutant[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            mutant[at] = rng.randrange(256)
        elif kind == 2:
            mutant[at : at + 8] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * 8
        elif kind == 3:
            del mutant[at : at + rng.randrange(1, 16)]
        elif kind == 4:
            mutant[at:at] = mutant[at : at + rng.randrange(1, 16)]
        else:
            del mutant[at:]
        if not mutant:
            return b""
    return bytes(mutant)


def test_mutants_open_or_raise_our_own_error(tmp_path: Path) -> None:
    rng = random.Random(20261023)
    whole, header = hostile_gguf.VALID.build(), len(hostile_gguf.VALID.header())
    path, opened = tmp_path / "mutant.gguf", 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3000):
            # Most of the file is data, where nothing can go wrong: aim at the header.
            mutant = mutate(whole[:header], rng) + whole[header:]
            raw.write(path, mutant if rng.randrange(4) else mutate(whole, rng))
            try:
                with gguf.open(path) as file:
                    for tensor in file.tensors.values():
                        assert tensor.decode().shape == tensor.shape
                    for value in file.metadata.values():
                        str(list(value) if isinstance(value, gguf.StringArray) else value)
                opened += 1
            except TritError as error:
                assert "mutant.gguf" in str(error)
    assert 100 < opened < 2500  # both ends of the promise were tried
