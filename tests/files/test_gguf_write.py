"""Written files are whole or absent, after a failure, a kill or a full disk; then equal bytes."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trit import formats
from trit.errors import DoesNotFitError, TritError, UsageError
from trit.files import _writer, gguf

METADATA: dict[str, gguf.Plain] = {"general.architecture": "llama", "x.list": [1, 2, 3]}


def make_tensors(seed: int = 0) -> list[gguf.Tensor]:
    rng = np.random.default_rng(seed)
    shapes = {
        "a": ((3, 64), "q8_0"),
        "b": ((5,), "f32"),
        "c": ((2, 2, 32), "q4_0"),
        "d": ((7,), "f16"),
    }
    tensors = []
    for name, (shape, format_name) in shapes.items():
        format = formats.get(format_name)
        rows = (*shape[:-1], format.row_bytes(shape[-1]))
        data = rng.integers(0, 60, rows, dtype=np.uint8)
        tensors.append(gguf.Tensor(name, shape, format, data))
    return tensors


def write_job(path: Path, job: str | None, tensors: list[gguf.Tensor]) -> list[str]:
    """Write with a Writer; the names of the tensors that had to be made."""
    made = []
    with gguf.Writer(path, METADATA, tensors, job=job) as writer:
        by_name = {tensor.name: tensor for tensor in tensors}
        for info in writer.remaining:
            made.append(info.name)
            writer.add(info.name, by_name[info.name].data)
        writer.finish()
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    tensors, steps = make_tensors(), []
    gguf.write(
        tmp_path / "m.gguf", METADATA, tensors, lambda done, total: steps.append((done, total))
    )
    with gguf.open(tmp_path / "m.gguf") as file:
        assert list(file.tensors) == ["a", "b", "c", "d"]
        for tensor in tensors:
            assert file[tensor.name].shape == tensor.shape
            assert file[tensor.name].format is tensor.format
            np.testing.assert_array_equal(file[tensor.name].data, tensor.data)
        assert file.metadata["general.architecture"] == "llama"
        assert file.metadata["x.list"].tolist() == [1, 2, 3]  # type: ignore[union-attr]
    assert names(tmp_path) == ["m.gguf"]
    total = 2 * sum(tensor.nbytes for tensor in tensors)
    assert steps[-1] == (total, total)
    assert steps == sorted(steps)


def test_every_type_of_value_survives(tmp_path: Path) -> None:
    kinds = gguf.ValueType
    values = {
        "general.architecture": gguf.Value(kinds.STRING, "llama"),
        "u8": gguf.Value(kinds.UINT8, 255),
        "i8": gguf.Value(kinds.INT8, -128),
        "u16": gguf.Value(kinds.UINT16, 65_535),
        "i16": gguf.Value(kinds.INT16, -32_768),
        "u32": gguf.Value(kinds.UINT32, 2**32 - 1),
        "i32": gguf.Value(kinds.INT32, -(2**31)),
        "u64": gguf.Value(kinds.UINT64, 2**64 - 1),
        "i64": gguf.Value(kinds.INT64, -(2**63)),
        "f32": gguf.Value(kinds.FLOAT32, 0.5),
        "f64": gguf.Value(kinds.FLOAT64, 0.1),
        "yes": gguf.Value(kinds.BOOL, True),
        "text": gguf.Value(kinds.STRING, "é" * 300),
        "texts": gguf.Value(kinds.STRING, ["a", "", "é"]),
        "bools": gguf.Value(kinds.BOOL, [True, False]),
        "none": gguf.Value(kinds.FLOAT32, []),
        "longs": gguf.Value(kinds.UINT64, np.array([1, 2**63], dtype=np.uint64)),
    }
    gguf.write(tmp_path / "a.gguf", values, [])
    with gguf.open(tmp_path / "a.gguf") as file:
        for key, value in values.items():
            assert file.values[key].type is value.type
            assert file.values[key].is_array is value.is_array
            got = file.metadata[key]
            plain = value.value
            if isinstance(got, np.ndarray):
                assert got.tolist() == list(plain)  # type: ignore[arg-type]
            else:
                assert got == plain and (value.is_array or type(got) is type(plain))
        gguf.write(tmp_path / "b.gguf", file.values, file.tensors.values())
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        (True, "BOOL"), (3, "UINT32"), (-3, "INT32"), (2**40, "UINT64"), (-(2**40), "INT64"),
        (1.5, "FLOAT32"), ("s", "STRING"), ([1, -2], "INT32"), ([1.0], "FLOAT32"),
        (["s"], "STRING"), ([2**40, -1], "INT64"), (np.arange(3, dtype=np.uint16), "UINT16"),
        ([True], "BOOL"),
    ],
)  # fmt: skip
def test_plain_values_get_the_usual_types(tmp_path: Path, plain: gguf.Plain, expected: str) -> None:
    gguf.write(tmp_path / "m.gguf", METADATA | {"k": plain}, [])
    with gguf.open(tmp_path / "m.gguf") as file:
        assert file.values["k"].type.name == expected


def test_a_value_that_does_not_fit_its_type_is_our_bug(tmp_path: Path) -> None:
    kinds = gguf.ValueType
    for kind, plain in (
        (kinds.UINT8, 256), (kinds.UINT32, -1), (kinds.INT8, [1, 128]), (kinds.UINT64, [-1]),
        (kinds.BOOL, 2), (kinds.INT32, np.array([2**31])), (kinds.UINT32, ["a"]),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            gguf.write(tmp_path / "m.gguf", {"k": gguf.Value(kind, plain)}, [])
    assert names(tmp_path) == []


def test_the_alignment_of_the_keys_is_kept(tmp_path: Path) -> None:
    gguf.write(tmp_path / "m.gguf", METADATA | {"general.alignment": 256}, make_tensors())
    with gguf.open(tmp_path / "m.gguf") as file:
        assert file.alignment == 256
        np.testing.assert_array_equal(file["d"].data, make_tensors()[3].data)


def test_an_interrupted_job_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    tensors = make_tensors()
    assert write_job(tmp_path / "whole.gguf", "job", tensors) == ["a", "b", "c", "d"]
    path = tmp_path / "m.gguf"
    for stop in range(4):
        with (
            pytest.raises(KeyboardInterrupt),
            gguf.Writer(path, METADATA, tensors, job="job") as writer,
        ):
            assert len(writer.remaining) == 4 - stop
            writer.add(tensors[stop].name, tensors[stop].data)
            raise KeyboardInterrupt
        assert not path.exists()
        with pytest.raises(TritError):
            gguf.open(writer.partial)  # nothing unfinished passes for a model
    assert write_job(path, "job", tensors) == []
    assert path.read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert names(tmp_path) == ["m.gguf", "whole.gguf"]


def leave_partial(path: Path, job: str, done: int) -> gguf.Writer:
    with gguf.Writer(path, METADATA, make_tensors(), job=job) as writer:
        for tensor in make_tensors()[:done]:
            writer.add(tensor.name, tensor.data)
    return writer


def test_another_job_starts_over(tmp_path: Path) -> None:
    leave_partial(tmp_path / "m.gguf", "one", 2)
    other = make_tensors(seed=1)
    assert write_job(tmp_path / "m.gguf", "two", other) == ["a", "b", "c", "d"]
    with gguf.open(tmp_path / "m.gguf") as file:
        np.testing.assert_array_equal(file["a"].data, other[0].data)


def test_without_a_job_nothing_is_taken_up_and_nothing_left(tmp_path: Path) -> None:
    leave_partial(tmp_path / "m.gguf", "one", 2)
    with gguf.Writer(tmp_path / "m.gguf", METADATA, make_tensors()) as writer:
        assert len(writer.remaining) == 4
        writer.add("a", make_tensors()[0].data)
    assert names(tmp_path) == []


def test_a_tensor_whose_bytes_changed_is_made_again(tmp_path: Path) -> None:
    writer = leave_partial(tmp_path / "m.gguf", "job", 3)
    raw = bytearray(writer.partial.read_bytes())
    raw[writer._blueprint.offsets["b"]] ^= 1
    writer.partial.write_bytes(raw)
    assert write_job(tmp_path / "m.gguf", "job", make_tensors()) == ["b", "d"]
    gguf.write(tmp_path / "whole.gguf", METADATA, make_tensors())
    assert (tmp_path / "m.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


@pytest.mark.parametrize("damage", ["torn", "empty", "nonsense", "gone", "other"])
def test_a_damaged_journal_costs_work_and_nothing_else(tmp_path: Path, damage: str) -> None:
    writer = leave_partial(tmp_path / "m.gguf", "job", 3)
    journal = tmp_path / "m.gguf.partial.journal"
    lines = journal.read_text().splitlines(keepends=True)
    if damage == "torn":
        journal.write_text("".join(lines[:-1]) + lines[-1][:20])
    elif damage == "empty":
        journal.write_text("")
    elif damage == "nonsense":
        journal.write_bytes(b"\xff\x00[1,2\n" + journal.read_bytes())
    elif damage == "gone":
        journal.unlink()
    else:
        entry = json.dumps({"tensor": "zz", "sha256": "0"})
        journal.write_text("".join(lines) + entry + "\n[1]\n")
    made = write_job(tmp_path / "m.gguf", "job", make_tensors())
    assert made == {"torn": ["c", "d"], "other": ["d"]}.get(damage, ["a", "b", "c", "d"])
    assert writer.path.exists() and names(tmp_path) == ["m.gguf"]


def test_the_input_is_never_overwritten(tmp_path: Path) -> None:
    source, link, alias = (tmp_path / name for name in ("m.gguf", "link.gguf", "alias.gguf"))
    gguf.write(source, METADATA, make_tensors())
    link.symlink_to(source)
    alias.hardlink_to(source)
    before = source.read_bytes()
    with gguf.open(source) as file:
        for target in (source, link, alias):
            with pytest.raises(UsageError, match="is the input"):
                gguf.write(target, file.values, file.tensors.values())
        gguf.write(tmp_path / "copy.gguf", file.values, file.tensors.values())
    assert before == source.read_bytes() == (tmp_path / "copy.gguf").read_bytes()
    gguf.write(source, METADATA, [])  # closed, it is a file like any other
    assert len(gguf.open(source).tensors) == 0


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        gguf.write(tmp_path, METADATA, [])
    with pytest.raises(UsageError, match="there is no folder"):
        gguf.write(tmp_path / "absent" / "m.gguf", METADATA, [])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="is no regular file"):
        gguf.write(pipe, METADATA, make_tensors())
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with gguf.Writer(tmp_path / "m.gguf", METADATA, make_tensors(), job="job") as writer:
        writer.add("a", make_tensors()[0].data)
        with pytest.raises(UsageError, match="another job"):
            gguf.Writer(tmp_path / "m.gguf", METADATA, make_tensors(), job="job")
        for tensor in make_tensors()[1:]:
            writer.add(tensor.name, tensor.data)
        writer.finish()
    assert len(gguf.open(tmp_path / "m.gguf").tensors) == 4


def test_space_is_checked_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(total=1 << 30, used=0, free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DoesNotFitError, match="100 free") as caught:
        gguf.write(tmp_path / "m.gguf", METADATA, make_tensors())
    assert caught.value.exit_code == 3
    assert names(tmp_path) == []


def failing(call: Callable[..., object], nth: int, error: int) -> Callable[..., object]:
    """The system call, failing at the n-th time and from then on."""
    count = 0

    def wrapper(*arguments: object) -> object:
        nonlocal count
        count += 1
        if count >= nth:
            raise OSError(error, os.strerror(error))
        return call(*arguments)

    return wrapper


SYSTEM_CALLS = ("open", "pwrite", "pread", "fsync", "posix_fallocate", "ftruncate", "fstat")


@pytest.mark.parametrize("name", SYSTEM_CALLS)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_any_failing_system_call_leaves_the_target_as_it_was(
    tmp_path: Path, name: str, error: int
) -> None:
    path = tmp_path / "m.gguf"
    gguf.write(tmp_path / "whole.gguf", METADATA, make_tensors())
    whole = (tmp_path / "whole.gguf").read_bytes()
    path.write_bytes(b"what was there before")
    failures = 0
    for nth in range(1, 40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_writer.os, name, failing(getattr(os, name), nth, error))
            try:
                write_job(path, "job" if nth % 2 else None, make_tensors())
            except TritError as problem:
                failures += 1
                if error == errno.ENOSPC and name in ("pwrite", "posix_fallocate"):
                    assert isinstance(problem, DoesNotFitError)
        if path.read_bytes() == whole:
            break  # so many calls of that name there are not (or only the last, of the folder)
        assert path.read_bytes() == b"what was there before"
    assert failures > 0 or (name, error) == ("posix_fallocate", errno.EIO)
    write_job(path, "job", make_tensors())
    assert path.read_bytes() == whole
    assert names(tmp_path) == ["m.gguf", "whole.gguf"]


def test_bytes_that_the_disk_changed_are_found_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all = _writer._write_all

    def flip(fd: int, piece: memoryview, at: int) -> None:
        write_all(fd, memoryview(bytes([piece[0] ^ 1]) + bytes(piece[1:])), at)

    tensors = make_tensors()
    with gguf.Writer(tmp_path / "m.gguf", METADATA, tensors, job="job") as writer:
        for tensor in tensors:
            with monkeypatch.context() as patch:
                patch.setattr(_writer, "_write_all", flip if tensor.name == "c" else write_all)
                writer.add(tensor.name, tensor.data)
        with pytest.raises(TritError, match="'c' was read back"):
            writer.finish()
    assert names(tmp_path) == []


def test_a_header_that_the_disk_changed_is_found_too(tmp_path: Path) -> None:
    write_all = _writer._write_all

    def flip(fd: int, piece: memoryview, at: int) -> None:
        write_all(fd, memoryview(bytes(piece).replace(b"llama", b"lhama")), at)

    with gguf.Writer(tmp_path / "m.gguf", METADATA, make_tensors(), job="job") as writer:
        for tensor in make_tensors():
            writer.add(tensor.name, tensor.data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_writer, "_write_all", flip)
            with pytest.raises(TritError, match="the header was read back"):
                writer.finish()
    assert names(tmp_path) == []


def test_stopping_a_resumption_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_partial(tmp_path / "m.gguf", "job", 3)

    def interrupt(*arguments: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_writer, "sha256_at", interrupt)
        with pytest.raises(KeyboardInterrupt):
            gguf.Writer(tmp_path / "m.gguf", METADATA, make_tensors(), job="job")
    assert write_job(tmp_path / "m.gguf", "job", make_tensors()) == ["d"]


def test_a_tensor_in_pieces(tmp_path: Path) -> None:
    tensors = make_tensors()
    with gguf.Writer(tmp_path / "m.gguf", METADATA, tensors) as writer:
        for tensor in reversed(tensors):
            rows = tensor.data.reshape(tensor.rows, -1)
            writer.add(tensor.name, (rows[i : i + 1] for i in range(tensor.rows)))
        writer.finish()
    gguf.write(tmp_path / "whole.gguf", METADATA, tensors)
    assert (tmp_path / "m.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


SLOW_JOB = """
    import sys, time
    import numpy as np
    from trit import formats
    from trit.files import gguf
    infos = [gguf.TensorInfo(f"t{i}", (64, 64), formats.get("f32")) for i in range(60)]
    with gguf.Writer(sys.argv[1], {"general.architecture": "x"}, infos, job="j") as writer:
        print("ready", len(writer.remaining), flush=True)
        for info in writer.remaining:
            time.sleep(float(sys.argv[2]))
            writer.add(info.name, np.full((64, 256), int(info.name[1:]), dtype=np.uint8))
        writer.finish()
"""


def run_slow_job(path: Path, pause: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(SLOW_JOB), str(path), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_at_any_moment_a_job_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    assert run_slow_job(tmp_path / "whole.gguf", 0).wait() == 0
    path, left = tmp_path / "m.gguf", 60
    for seconds in (0.02, 0.07, 0.11):
        process = run_slow_job(path, 0.005)
        assert process.stdout is not None
        left = int(process.stdout.readline().split()[1])
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not path.exists()
    process = run_slow_job(path, 0)
    assert process.stdout is not None
    assert int(process.stdout.readline().split()[1]) < left < 60
    assert process.wait() == 0
    process.stdout.close()
    assert path.read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    steps: list[tuple[int, int]] = []
    digest = gguf.sha256(tmp_path / "f", lambda done, total: steps.append((done, total)))
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert steps == [(3, 3)]
    with pytest.raises(TritError, match="cannot be read"):
        gguf.sha256(tmp_path / "absent")
