"""Models in several GGUF files: all found from any one, and what is wrong with a set named."""

from dataclasses import replace
from pathlib import Path

import gguf_bytes as raw
import numpy as np
import pytest
from test_files_budget import assert_rejected

from trit.errors import InvalidFileError
from trit.files import gguf


def split_keys(number: int, count: int, tensors: int) -> tuple[bytes, ...]:
    return (
        raw.key("split.no", raw.U16, number.to_bytes(2, "little")),
        raw.key("split.count", raw.U16, count.to_bytes(2, "little")),
        raw.key("split.tensors.count", raw.I32, raw.u32(tensors)),
    )


def shard(number: int, count: int, tensors: int, names: list[str]) -> raw.Recipe:
    """A shard of float vectors; only the first names the architecture."""
    keys = (raw.ARCHITECTURE,) if number == 0 else ()
    return raw.Recipe(
        values=(*keys, *split_keys(number, count, tensors)),
        records=tuple(raw.record(name, [8], 0, 32 * i) for i, name in enumerate(names)),
        data=b"".join(np.full(8, ord(name[0]), dtype="<f4").tobytes() for name in names),
    )


def write_set(folder: Path, recipes: dict[str, raw.Recipe]) -> Path:
    for name, recipe in recipes.items():
        raw.write(folder / name, recipe.build())
    return folder / next(iter(recipes))


FIRST, SECOND = "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"
GOOD = {FIRST: shard(0, 2, 3, ["a", "b"]), SECOND: shard(1, 2, 3, ["c"])}


def test_any_shard_opens_the_whole(tmp_path: Path) -> None:
    write_set(tmp_path, GOOD)
    for name in GOOD:
        with gguf.open(tmp_path / name) as file:
            assert list(file.tensors) == ["a", "b", "c"]
            assert file.metadata["general.architecture"] == "llama"
            assert file["c"].decode().tolist() == [ord("c")] * 8


CASES = {
    "missing": ({FIRST: GOOD[FIRST]}, SECOND, "all 2 shards"),
    "miscounted tensors": (
        {FIRST: shard(0, 2, 4, ["a", "b"]), SECOND: shard(1, 2, 4, ["c"])},
        FIRST,
        "'split.tensors.count': expected the 3 .* got 4",
    ),
    "miscounted shards": (
        {FIRST: shard(0, 3, 3, ["a", "b"]), SECOND: GOOD[SECOND]},
        FIRST,
        "'split.count': expected 2, got 3",
    ),
    "swapped": (
        {FIRST: GOOD[FIRST], SECOND: shard(0, 2, 3, ["c"])},
        SECOND,
        "'split.no': expected 1, got 0",
    ),
    "without split keys": (
        {FIRST: GOOD[FIRST], SECOND: replace(GOOD[SECOND], values=())},
        SECOND,
        "'split.no': expected 1, got 0",
    ),
    "duplicate tensor": (
        {FIRST: GOOD[FIRST], SECOND: shard(1, 2, 3, ["a"])},
        SECOND,
        "tensor 'a': expected in one shard",
    ),
    "alone under a plain name": ({"m.gguf": GOOD[FIRST]}, "m.gguf", "expected 1, got 2"),
    "a string for a count": (
        {"m.gguf": raw.Recipe(values=(*raw.KEYS, raw.key("split.no", raw.STRING, raw.text("0"))))},
        "m.gguf",
        "'split.no': expected an integer, got '0'",
    ),
    "shard 3 of 2": ({"m-00003-of-00002.gguf": GOOD[FIRST]}, "00003-of", "from 1 to 2, got 3"),
    "99,999 shards": ({"m-00001-of-99999.gguf": GOOD[FIRST]}, "00002-of-99999", "all 99999 shards"),
    "a broken second": (
        {FIRST: GOOD[FIRST], SECOND: replace(GOOD[SECOND], magic=b"GGML")},
        SECOND,
        "expected the magic",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rejected(tmp_path: Path, name: str) -> None:
    recipes, culprit, message = CASES[name]
    path = write_set(tmp_path, recipes)
    assert_rejected(lambda: gguf.open(path), culprit, message)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    with (
        gguf.open(write_set(tmp_path, GOOD)) as file,
        pytest.raises(InvalidFileError, match="tensor 'z': expected among the 3 tensors"),
    ):
        file["z"]
