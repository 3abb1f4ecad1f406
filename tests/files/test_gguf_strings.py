"""Arrays of strings: both walks agree, on anything at all; UTF-8 is checked exactly."""

import random
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from trit.errors import InvalidFileError
from trit.files import _strings, gguf
from trit.files._strings import StringArray, scan_strings


def pack(items: list[bytes]) -> bytes:
    return b"".join(struct.pack("<Q", len(item)) + item for item in items)


def scan(raw: bytes, count: int) -> StringArray:
    return scan_strings("m.gguf", "key 'x'", memoryview(raw), 0, count, len(raw))


def random_items(rng: random.Random, count: int) -> list[bytes]:
    """Short and long strings, empty ones, zeros, and texts that look like lengths."""
    kinds = [b"", b"a", "é€𝄞".encode(), b"\0" * 9, b"\5" + b"\0" * 7, b"x" * 127, b"x" * 128]
    kinds += [b"y" * 255, b"y" * 256, b"z" * 5000]
    weights = [3, 20, 10, 1, 1, 2, 2, 2, 2, 1]
    return rng.choices(kinds, weights, k=count)


@pytest.mark.parametrize("seed", range(40))
def test_both_walks_find_every_string(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    items = random_items(rng, rng.choice((0, 1, 2, 300, 3000)))
    raw = pack(items)
    for patience, window in ((10_000, 1 << 18), (7, 64), (0, 1 << 18), (10_000, 300)):
        monkeypatch.setattr(_strings, "_PATIENCE", patience)
        monkeypatch.setattr(_strings, "_WINDOW_BYTES", window)
        monkeypatch.setattr(_strings, "_CHECK_BYTES", rng.choice((16, 1000, 1 << 20)))
        found = scan(raw, len(items))
        assert [bytes(found.bytes_at(i)) for i in range(len(items))] == items
        assert list(found) == [item.decode() for item in items]
        assert found.encoded() == raw
        assert found.lengths().tolist() == [len(item) for item in items]
        assert found.end == len(raw)


@pytest.mark.parametrize("seed", range(200))
def test_both_walks_stop_at_the_same_fault(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    raw = bytearray(pack(random_items(rng, 60)))
    for _ in range(rng.randrange(1, 4)):
        raw[rng.randrange(len(raw))] = rng.choice((0, 1, 127, 128, 255))
    results = []
    for patience in (10_000, 0):
        monkeypatch.setattr(_strings, "_PATIENCE", patience)
        try:
            found = scan(bytes(raw), 60)
            results.append(str([bytes(found.bytes_at(i)) for i in range(60)]))
        except InvalidFileError as error:
            results.append(str(error))
    assert results[0] == results[1]


def test_utf8_is_checked_in_every_string(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_strings, "_CHECK_BYTES", 100)
    for bad in (b"\xff", b"\xc3", b"\xa9", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"):
        for place in (0, 7, 49):
            for length in (0, 90, 150, 5000):
                items = [b"a" * length] * 50
                items[place] = b"ok" * (length // 2) + bad
                with pytest.raises(InvalidFileError, match=f"string {place}: expected UTF-8"):
                    scan(pack(items), 50)


def test_a_character_cut_by_a_piece_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_strings, "_CHECK_BYTES", 10)
    for shift in range(4):
        text = "a" * shift + "𝄞€é" * 40
        assert list(scan(pack([text.encode()]), 1)) == [text]


def test_it_is_a_sequence() -> None:
    found = scan(pack([b"a", b"b", b"a"]), 3)
    assert (found[0], found[-1], found[1:], len(found)) == ("a", "a", ["b", "a"], 3)
    assert found == ["a", "b", "a"]
    assert found == scan(pack([b"a", b"b", b"a"]), 3)
    assert found != ["a", "b"]
    assert found.count("a") == 2 and "b" in found
    with pytest.raises(IndexError):
        found[3]


def test_a_large_vocabulary_opens_quickly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tokens = [f"tok{n:x}é" if n % 3 else "ab" * (n % 70) for n in range(151_936)]
    merges = [f"{tokens[i]} {tokens[i + 1]}" for i in range(151_000)]
    metadata: dict[str, gguf.Plain] = {
        "general.architecture": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": rng.integers(0, 6, len(tokens), dtype=np.int32),
        "tokenizer.ggml.merges": merges,
    }
    gguf.write(tmp_path / "m.gguf", metadata, [])
    seconds = []
    for _ in range(5):
        start = time.process_time()
        with gguf.open(tmp_path / "m.gguf") as file:
            seconds.append(time.process_time() - start)
            assert len(file.metadata["tokenizer.ggml.tokens"]) == 151_936  # type: ignore[arg-type]
    assert min(seconds) < 0.150
    with gguf.open(tmp_path / "m.gguf") as file:
        assert file.metadata["tokenizer.ggml.tokens"] == tokens
        assert file.metadata["tokenizer.ggml.merges"] == merges
