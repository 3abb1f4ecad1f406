"""Importance data: both layouts of llama.cpp are read, and damaged files rejected."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from trit.errors import InvalidFileError
from trit.files import imatrix

CHUNKS, CHUNK_SIZE = 7, 512


def write_gguf(path: Path, tensors: dict[str, np.ndarray], keys: bool = True) -> Path:
    """An imatrix as llama-imatrix writes it, through the gguf package."""
    import gguf

    writer = gguf.GGUFWriter(path, "")
    writer.kv_data[0].pop("general.architecture", None)
    writer.add_type("imatrix")
    if keys:
        writer.add_array("imatrix.datasets", ["wiki.train.raw", "code.txt"])
        writer.add_uint32("imatrix.chunk_count", CHUNKS)
        writer.add_uint32("imatrix.chunk_size", CHUNK_SIZE)
    for name, values in tensors.items():
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def legacy_entry(name: str, calls: int, values: np.ndarray) -> bytes:
    raw = name.encode()
    head = struct.pack("<i", len(raw)) + raw + struct.pack("<ii", calls, values.size)
    return head + values.astype("<f4").tobytes()


def write_legacy(path: Path, entries: list[bytes], tail: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<i", len(entries)) + b"".join(entries) + tail)
    return path


def test_gguf_sums_become_means(tmp_path: Path) -> None:
    sums = np.arange(8, dtype=np.float32).reshape(1, 8)
    experts = np.arange(12, dtype=np.float32).reshape(3, 4)
    path = write_gguf(
        tmp_path / "i.gguf",
        {
            "blk.0.attn_q.weight.in_sum2": sums,
            "blk.0.attn_q.weight.counts": np.array([[4.0]]),
            "blk.0.ffn_up_exps.weight.in_sum2": experts,
            "blk.0.ffn_up_exps.weight.counts": np.array([[2.0], [0.0], [4.0]]),
        },
    )
    loaded = imatrix.load(path)
    assert loaded.datasets == ("wiki.train.raw", "code.txt")
    assert loaded.chunks == CHUNKS
    dense = loaded.importance("blk.0.attn_q.weight", (5, 8))
    np.testing.assert_array_equal(dense, sums / 4)
    stacked = loaded.importance("blk.0.ffn_up_exps.weight", (3, 5, 4))
    expected = np.stack([experts[0] / 2, np.ones(4, np.float32), experts[2] / 4])
    np.testing.assert_array_equal(stacked, expected)
    assert loaded.importance("blk.1.attn_q.weight", (5, 8)) is None


def test_newer_files_have_plain_sums_too(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "i.gguf", {**GOOD, "a.in_sum": -np.ones((1, 4))})
    np.testing.assert_array_equal(imatrix.load(path).entries["a"], np.ones(4, np.float32))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    sums = {
        "b": (np.array([[1.5, 3.0], [0.0, 0.0]]), np.array([3, 0])),
        "a": (np.array([[2.0, 4.0, 0.0]]), np.array([2])),
    }
    shapes = {name: (len(counts), table.shape[1]) for name, (table, counts) in sums.items()}
    path = tmp_path / "i.gguf"
    with imatrix.begin(path, shapes, ["one", "two"], 7, 64, {"trit.x": "y"}) as writer:
        for name, (table, counts) in sums.items():
            imatrix.put(writer, name, table, counts)
        assert not path.exists()
        writer.finish()
    loaded = imatrix.load(path)
    assert (loaded.chunks, loaded.datasets) == (7, ("one", "two"))
    assert loaded.metadata == {"general.type": "imatrix", "trit.x": "y"}
    np.testing.assert_array_equal(loaded.entries["a"], np.array([1, 2, 0], np.float32))
    np.testing.assert_array_equal(loaded.entries["b"], np.array([0.5, 1, 1, 1], np.float32))


def test_legacy_sums_become_means(tmp_path: Path) -> None:
    values = np.array([2.0, 4.0, 8.0, 0.0])
    name = b"wiki.train.raw"
    tail = struct.pack("<ii", CHUNKS, len(name)) + name
    path = write_legacy(tmp_path / "i.dat", [legacy_entry("blk.0.ffn_up.weight", 2, values)], tail)
    loaded = imatrix.load(path)
    assert loaded.datasets == ("wiki.train.raw",)
    assert loaded.chunks == CHUNKS
    expected = np.array([[1.0, 2.0, 4.0, 0.0]], np.float32)
    np.testing.assert_array_equal(loaded.importance("blk.0.ffn_up.weight", (9, 4)), expected)
    bare = write_legacy(tmp_path / "j.dat", [legacy_entry("x", 0, values)])
    assert imatrix.load(bare).chunks == 0
    np.testing.assert_array_equal(imatrix.load(bare).entries["x"], values.astype(np.float32))


def test_data_of_another_model_is_an_error(tmp_path: Path) -> None:
    entries = [legacy_entry(n, 1, np.ones(4)) for n in ("token_embd.weight", "output.weight")]
    loaded = imatrix.load(write_legacy(tmp_path / "i.dat", entries))
    assert loaded.importance("token_embd.weight", (9, 8)) is None
    with pytest.raises(InvalidFileError, match=r"output.weight.*1 × 8.*got 4.*another model"):
        loaded.importance("output.weight", (9, 8))


GOOD = {"a.in_sum2": np.ones((1, 4)), "a.counts": np.ones((1, 1))}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"a.in_sum2": np.array([[1.0, np.nan, 1.0, 1.0]])},
            "finite mean of squares, got nan at 1",
        ),
        ({"a.in_sum2": np.array([[1.0, 1.0, -1.0, 1.0]])}, "got -1.0 at 2"),
        ({"a.counts": np.array([[-1.0]])}, "expected counts"),
        ({"a.counts": np.ones((3, 1))}, "multiple of 3 sums, got 4"),
        ({"a.counts": None}, "a.counts"),
        ({"a.in_sum2": None, "a.counts": None, "b.weight": np.ones(4)}, "only .in_sum2"),
        ({"a.in_sum2": None}, "no entries"),
    ],
)
def test_bad_gguf_imatrix(
    tmp_path: Path, change: dict[str, np.ndarray | None], problem: str
) -> None:
    tensors = {name: values for name, values in {**GOOD, **change}.items() if values is not None}
    with pytest.raises(InvalidFileError, match=problem):
        imatrix.load(write_gguf(tmp_path / "bad.gguf", tensors))


def test_gguf_without_its_keys(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"imatrix\.datasets"):
        imatrix.load(write_gguf(tmp_path / "bad.gguf", GOOD, keys=False))


def test_every_cut_of_a_legacy_file_is_an_error_or_shorter(tmp_path: Path) -> None:
    """Cut anywhere in the entries it is rejected; the tail is optional."""
    entries = [legacy_entry("blk.0.ffn_up.weight", 2, np.ones(6))]
    whole = write_legacy(tmp_path / "i.dat", entries, struct.pack("<ii", 3, 2) + b"hi").read_bytes()
    body = len(whole) - 10
    for cut in range(len(whole)):
        path = tmp_path / "cut.dat"
        path.write_bytes(whole[:cut])
        if cut in (body, body + 4):
            assert len(imatrix.load(path).entries) == 1
        else:
            with pytest.raises(InvalidFileError):
                imatrix.load(path)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<i", -1),
        struct.pack("<i", 1 << 30),
        struct.pack("<ii", 1, 1 << 30),
        struct.pack("<ii", 1, -4),
        struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", 1, (1 << 31) - 1),
        struct.pack("<ii", 1, 1) + b"\xff" + struct.pack("<ii", 1, 1) + bytes(4),
        b"not importance data at all",
    ],
)
def test_hostile_legacy_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.dat"
    path.write_bytes(data)
    with pytest.raises(InvalidFileError, match=r"bad\.dat"):
        imatrix.load(path)


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidFileError, match="expected a regular file"):
        imatrix.load(tmp_path / "pipe")
    with pytest.raises(InvalidFileError, match=r"absent\.dat.*cannot be read"):
        imatrix.load(tmp_path / "absent.dat")
