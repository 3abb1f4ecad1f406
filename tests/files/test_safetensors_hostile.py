"""Malformed safetensors files and indexes are rejected: typed, quickly, in little memory."""

import json
import random
from pathlib import Path

import gguf_bytes as raw
import hostile_safetensors as hostile
import pytest
from test_files_budget import assert_rejected
from test_gguf_hostile import mutate

from trit.errors import InvalidFileError, TritError
from trit.files import safetensors

VALID = hostile.pack(json.dumps(hostile.VALID).encode(), hostile.DATA)


@pytest.mark.parametrize("name", hostile.ALL)
def test_rejected(tmp_path: Path, name: str) -> None:
    case = hostile.ALL[name]
    path = raw.write(tmp_path / "hostile.safetensors", case.build(), case.size)
    assert_rejected(lambda: safetensors.open(path), "hostile.safetensors", case.message)


def test_a_cut_at_every_byte(tmp_path: Path) -> None:
    for count in range(len(VALID)):
        path = raw.write(tmp_path / "cut.safetensors", VALID[:count])
        with pytest.raises(InvalidFileError, match="expected"):
            safetensors.open(path)


def test_mutants_open_or_raise_our_own_error(tmp_path: Path) -> None:
    rng = random.Random(20261024)
    path, opened = tmp_path / "mutant.safetensors", 0
    for _ in range(3000):
        raw.write(path, mutate(VALID, rng))
        try:
            with safetensors.open(path) as file:
                for tensor in file.tensors.values():
                    assert tensor.decode().shape == tensor.shape
            opened += 1
        except TritError as error:
            assert "mutant.safetensors" in str(error)
    assert 50 < opened < 2500


def accepted_by_the_package(path: Path) -> bool:
    package = pytest.importorskip("safetensors")
    try:
        with package.safe_open(path, "np"):
            return True
    except package.SafetensorError:
        return False


def test_mutants_are_judged_as_the_package_judges_them(tmp_path: Path) -> None:
    """All but space before the header and repeated names, which the package lets pass."""
    rng = random.Random(20261025)
    header, both = len(VALID) - len(hostile.DATA), 0
    for _ in range(3000):
        mutant = bytearray(VALID)
        for _ in range(rng.choice((1, 1, 2))):
            mutant[rng.randrange(8, header)] = rng.choice(b'0123456789{}[],:" \\FBI-.e')
        path = raw.write(tmp_path / "mutant.safetensors", bytes(mutant))
        theirs = accepted_by_the_package(path)
        try:
            safetensors.open(path).close()
            ours = True
        except TritError:
            ours = False
        assert ours == theirs, bytes(mutant)
        both += ours
    assert 50 < both < 2500


INDEX = "model.safetensors.index.json"


def write_index(folder: Path, weight_map: object, **other: object) -> Path:
    for number, names in enumerate((("a", "b", "c"), ("d",)), 1):
        entries = {k: v for k, v in hostile.VALID.items() if k in names}
        if "d" in names:
            entries = {"d": hostile.entry("F16", [2], 0, 4)}
        data = bytes(4) if "d" in names else hostile.DATA
        raw.write(
            folder / f"model-{number}.safetensors", hostile.pack(json.dumps(entries).encode(), data)
        )
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map} | other))
    return folder


ONE, TWO = "model-1.safetensors", "model-2.safetensors"
GOOD = {"a": ONE, "b": ONE, "c": ONE, "d": TWO}


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    note = {"total_size": 44, "nested": [{"x": [1, -2.5e3, True, None, "s"]}, {}, []]}
    with safetensors.open(write_index(tmp_path, GOOD, metadata=note)) as file:
        assert sorted(file.tensors) == ["a", "b", "d"]
        assert {n: s.dtype for n, s in file.stored.items()} == {"c": "I64"}
        assert [path.name for path in file.paths] == [ONE, TWO]


INDEXES: dict[str, tuple[object, str]] = {
    "shard missing": (GOOD | {"e": "model-3.safetensors"}, "expected that file beside"),
    "tensor missing": (GOOD | {"e": TWO}, "expected tensor 'e'"),
    "tensor in another shard": (GOOD | {"a": TWO}, f"tensor 'a': expected in {TWO}"),
    "tensor not in the index": ({"a": ONE, "b": ONE, "c": ONE}, ""),
    "up and away": (GOOD | {"a": "../model-1.safetensors"}, "a file in the same folder"),
    "absolute": (GOOD | {"a": "/etc/passwd"}, "a file in the same folder"),
    "backslashes": (GOOD | {"a": "..\\model-1.safetensors"}, "a file in the same folder"),
    "a drive": (GOOD | {"a": "C:model"}, "a file in the same folder"),
    "dots": (GOOD | {"a": ".."}, "a file in the same folder"),
    "NUL": (GOOD | {"a": "a\0b"}, "a file in the same folder"),
    "no name": (GOOD | {"a": ""}, "a file in the same folder"),
    "subfolder": (GOOD | {"a": "x/model-1.safetensors"}, "a file in the same folder"),
    "the folder itself": (GOOD | {"a": "."}, "a file in the same folder"),
    "a number": (GOOD | {"a": 1}, "weight_map 'a' at offset"),
    "a list": (["a"], "expected '{'"),
    "empty": ({}, "expected a weight_map"),
}


@pytest.mark.parametrize("name", INDEXES)
def test_bad_indexes(tmp_path: Path, name: str) -> None:
    weight_map, message = INDEXES[name]
    write_index(tmp_path, weight_map)
    if name == "tensor not in the index":
        (tmp_path / ONE).rename(tmp_path / TWO)
        write_map = dict.fromkeys("ab", TWO)
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": write_map}))
        message = "tensor 'c': expected in the index"
    assert_rejected(lambda: safetensors.open(tmp_path), str(tmp_path), message)


RAW_INDEXES = {
    "not JSON": (b"\x80", "expected"),
    "no weight_map": (b'{"metadata":{}}', "expected a weight_map"),
    "two weight_maps": (b'{"weight_map":{"a":"x"},"weight_map":{}}', "once"),
    "deep": (b'{"x":' + b"[" * 100_000, "16 levels"),
    "deep objects": (b'{"x":' + b'{"a":' * 100_000, "16 levels"),
    "a long note": (b'{"x":[' + b"0," * 10**6 + b"0]}", "expected"),
    "10^6 keys": (b"{" + b",".join(b'"%d":0' % n for n in range(10**6)) + b"}", "64 keys"),
    "10^6 tensors": (
        b'{"weight_map":{' + b",".join(b'"%d":"x"' % n for n in range(10**6)) + b"}}",
        "160000 keys",
    ),
    "a bare word": (b'{"x":nope}', "a value"),
}


@pytest.mark.parametrize("name", RAW_INDEXES)
def test_bad_index_bytes(tmp_path: Path, name: str) -> None:
    content, message = RAW_INDEXES[name]
    (tmp_path / INDEX).write_bytes(content)
    assert_rejected(lambda: safetensors.open(tmp_path), INDEX, message)


def test_an_index_over_the_limit(tmp_path: Path) -> None:
    raw.write(tmp_path / INDEX, b"{", (1 << 26) + 1)
    assert_rejected(lambda: safetensors.open(tmp_path), INDEX, "at most 67108864 bytes")


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder, outside = tmp_path / "model", tmp_path / "secret"
    folder.mkdir()
    outside.write_bytes(VALID)
    write_index(folder, GOOD)
    (folder / ONE).unlink()
    (folder / ONE).symlink_to(outside)
    assert_rejected(lambda: safetensors.open(folder), INDEX, "a link to .*secret")
    (folder / ONE).unlink()
    (folder / ONE).symlink_to("real")
    (folder / "real").write_bytes(VALID)
    assert len(safetensors.open(folder).tensors) == 3


def test_links_of_the_hugging_face_cache_are_followed(tmp_path: Path) -> None:
    folder, blobs = (
        tmp_path / "models--a--b" / "snapshots" / "123",
        tmp_path / "models--a--b" / "blobs",
    )
    folder.mkdir(parents=True)
    blobs.mkdir()
    write_index(folder, GOOD)
    for number, name in enumerate((ONE, TWO, INDEX)):
        (folder / name).rename(blobs / f"{number}")
        (folder / name).symlink_to(f"../../blobs/{number}")
    assert len(safetensors.open(folder).tensors) == 3


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidFileError, match=r"\*\.safetensors files in the folder, got none"):
        safetensors.open(tmp_path)
    with pytest.raises(InvalidFileError, match="cannot be read"):
        safetensors.open(tmp_path / "absent.safetensors")
