"""Shards straight from convert and quantize: those that `trit split` makes of the one file."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import text_model
from trit import shards
from trit.cli import main
from trit.convert import ConvertResult, convert
from trit.errors import DoesNotFitError, TritError, UsageError
from trit.files import _writer, gguf
from trit.quantize import quantize
from trit.verify import verify

MAX = 300_000  # bytes: some shards of the small model
Convert = Callable[..., ConvertResult]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def split_of_one(model: Path, folder: Path, make: Convert, kind: str) -> dict[str, bytes]:
    """What `trit split` makes of the file that `make` writes whole."""
    folder.mkdir()
    make(model, folder / "small.gguf", kind)
    shards.split(folder / "small.gguf", folder / "small", max_bytes=MAX)
    (folder / "small.gguf").unlink()
    return contents(folder)


@pytest.fixture(scope="module")
def expected(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return split_of_one(model, tmp_path_factory.mktemp("split") / "x", quantize, "Q8_0")


@pytest.mark.parametrize(("make", "kind"), [(convert, "f16"), (quantize, "Q4_K_M")])
def test_equal_to_the_split_of_the_one_file(
    model: Path, tmp_path: Path, make: Convert, kind: str
) -> None:
    wanted = split_of_one(model, tmp_path / "split", make, kind)
    assert len(wanted) >= 3
    out = tmp_path / "out"
    out.mkdir()
    planned = make(model, out / "small.gguf", kind, max_size=MAX, dry_run=True)
    assert not names(out)
    result = make(model, out / "small.gguf", kind, max_size=MAX)
    assert contents(out) == wanted
    assert [path.name for path in result.shards] == sorted(wanted)
    assert result.bytes == planned.bytes == sum(map(len, wanted.values()))
    assert result.path == result.shards[0]


def test_they_are_one_model_that_can_be_verified(model: Path, tmp_path: Path) -> None:
    result = quantize(model, tmp_path / "small.gguf", "Q4_0", max_size="150kB")
    with gguf.open(result.shards[1]) as file, gguf.open(model) as source:
        assert list(file.tensors) == list(source.tensors)
    proof = verify(result.shards[0], model)
    assert (proof.by, proof.bytes) == ("bytes", result.bytes)
    one = quantize(model, tmp_path / "one.gguf", "Q4_0").path
    shards.merge(result.shards[0], tmp_path / "merged.gguf")
    assert one is not None and (tmp_path / "merged.gguf").read_bytes() == one.read_bytes()


def interrupted(model: Path, out: Path, at: float) -> None:
    """A job stopped after a share of its work, as by Ctrl-C."""

    def stop(what: str, done: int, total: int) -> None:
        if what in ("writing", "verifying") and done >= at * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(model, out, "Q8_0", max_size=MAX, on_progress=stop)


@pytest.mark.parametrize("at", [0.1, 0.3, 0.45, 0.8, 1.0])
def test_resumed_they_are_the_same(
    model: Path, tmp_path: Path, expected: dict[str, bytes], at: float
) -> None:
    out = tmp_path / "small.gguf"
    interrupted(model, out, at)
    assert not [name for name in names(tmp_path) if name.endswith(".gguf")]
    assert [name for name in names(tmp_path) if name.endswith(".partial")]
    result = quantize(model, out, "Q8_0", max_size=MAX)
    assert contents(tmp_path) == expected
    assert result.resumed > 0
    if at >= 0.5:  # all was written
        assert result.resumed == len(result.tensors)


@pytest.mark.parametrize("published", [1, 2])
def test_a_failure_between_the_names_takes_them_back(
    model: Path,
    tmp_path: Path,
    expected: dict[str, bytes],
    published: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, left = _writer.Writer.publish, [published]

    def publish(self: gguf.Writer) -> None:
        if not left[0]:
            raise TritError("the disk is gone") from OSError()
        left[0] -= 1
        whole(self)

    with monkeypatch.context() as patch:
        patch.setattr(_writer.Writer, "publish", publish)
        patch.setattr(_writer.Writer, "discard", lambda self: None)  # as a kill leaves it
        with pytest.raises(TritError, match="the disk is gone"):
            quantize(model, tmp_path / "small.gguf", "Q8_0", max_size=MAX)
    assert not [name for name in names(tmp_path) if name.endswith(".gguf")]
    quantize(model, tmp_path / "small.gguf", "Q8_0", max_size=MAX)
    assert contents(tmp_path) == expected


def test_a_kill_between_the_names_is_gone_on_from(
    model: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    out = tmp_path / "small.gguf"
    interrupted(model, out, 1.0)
    last = max(tmp_path.glob("*.partial"))
    last.rename(last.with_suffix(""))  # its journal is still there
    result = quantize(model, out, "Q8_0", max_size=MAX)
    assert contents(tmp_path) == expected
    assert result.resumed == len(result.tensors)


def test_what_is_there_stays(model: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    taken = tmp_path / sorted(expected)[1]
    taken.write_text("mine")
    for journal in (False, True):  # that of no job
        if journal:
            taken.with_name(f"{taken.name}.partial.journal").write_text("{}\n")
        with pytest.raises(UsageError, match="is there already"):
            quantize(model, tmp_path / "small.gguf", "Q8_0", max_size=MAX)
        assert taken.read_text() == "mine"
        left = {name for name in names(tmp_path) if "journal" not in name}
        assert left == {taken.name}


def test_what_is_there_meanwhile_stays(
    model: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    taken = tmp_path / sorted(expected)[0]

    def write(stage: str, done: int, total: int) -> None:
        if done == total:
            taken.write_text("mine")

    with pytest.raises(UsageError, match="is there already"):
        quantize(model, tmp_path / "small.gguf", "Q8_0", max_size=MAX, on_progress=write)
    assert taken.read_text() == "mine"
    assert not {name for name in names(tmp_path) if name.endswith(".gguf")} - {taken.name}


def test_what_cannot_be(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "small.gguf"
    with pytest.raises(UsageError, match="too small for tensor"):
        convert(model, out, max_size=2000)
    with pytest.raises(UsageError, match="--max-size many: expected a size"):
        convert(model, out, max_size="many")
    with pytest.raises(UsageError, match="a budget and --max-size"):
        quantize(model, out, bpw=6.0, max_size=MAX)
    with pytest.raises(UsageError, match="--card and --max-size"):
        quantize(model, out, "Q8_0", card=True, max_size=MAX)
    usage = os.statvfs(tmp_path)
    free = type("Usage", (), {"free": 2 * MAX, "total": usage.f_blocks})
    monkeypatch.setattr(_writer.shutil, "disk_usage", lambda folder: free)
    with pytest.raises(DoesNotFitError, match="writing it needs"):
        quantize(model, out, "F16", max_size=MAX)
    assert not names(tmp_path)


def test_commands(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "small.gguf")
    assert main(["quantize", str(model), out, "Q8_0", "--max-size", "150kB", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [Path(path).name for path in answer["shards"]] == names(tmp_path)
    assert sum(Path(path).stat().st_size for path in answer["shards"]) == answer["bytes"]
    assert main(["quantize", str(model), out, "Q8_0", "--max-size", "150kB"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["convert", str(model), "-o", f"{tmp_path}/big.gguf", "--max-size", "300kB"]) == 0
    said = capsys.readouterr()
    assert "and so on" in said.err and "shards" in said.out
    assert main(["quantize", str(model), out, "--to", "awq", "--max-size", "1GB"]) == 2
    assert "--max-size and --to" in capsys.readouterr().err
