"""Models cut into shards and merged: the same bytes again, and what other readers find in them."""

import json
from pathlib import Path

import pytest

import text_model
from trit import shards
from trit.cli import main
from trit.errors import InvalidFileError, UsageError
from trit.files import gguf
from trit.sizes import parse_size


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


def test_split_and_merged_it_is_the_same_file(model: Path, tmp_path: Path) -> None:
    limit = model.stat().st_size // 3
    made = shards.split(model, tmp_path / "part", max_bytes=limit)
    assert len(made) >= 3
    for number, shard in enumerate(made, 1):
        assert shard.path.name == f"part-{number:05}-of-{len(made):05}.gguf"
        assert shard.bytes == shard.path.stat().st_size <= limit
    for shard in made:  # any of them stands for the model
        out = tmp_path / "merged.gguf"
        told = shards.merge(shard.path, out)
        assert out.read_bytes() == model.read_bytes()
        assert told.bytes == out.stat().st_size


def test_no_shard_could_have_taken_the_next_tensor(model: Path, tmp_path: Path) -> None:
    limit = model.stat().st_size // 3
    made = shards.split(model, tmp_path / "part", max_bytes=limit)
    with gguf.open(model) as file:
        sizes = [tensor.nbytes for tensor in file.tensors.values()]
    first = 0
    for shard in made[:-1]:
        first += shard.tensors
        assert shard.bytes + sizes[first] + 128 > limit  # 128: more than its entry and padding


def test_the_reference_reader_finds_all(model: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("gguf")
    made = shards.split(model, tmp_path / "part", max_tensors=5)
    with gguf.open(model) as file:
        expected = {name: bytes(tensor.data) for name, tensor in file.tensors.items()}
        keys = list(file.values)
    found = {}
    for number, shard in enumerate(made):
        read = reader.GGUFReader(shard.path)
        assert [len(read.tensors) <= 5, len(read.tensors)] == [True, shard.tensors]
        assert read.fields["split.no"].contents() == number
        assert read.fields["split.count"].contents() == len(made)
        assert read.fields["split.tensors.count"].contents() == len(expected)
        if number == 0:
            assert set(keys) <= set(read.fields)
        found |= {tensor.name: tensor.data.tobytes() for tensor in read.tensors}
    assert found == expected


def test_shards_are_cut_again(model: Path, tmp_path: Path) -> None:
    once = shards.split(model, tmp_path / "once", max_tensors=3)
    again = shards.split(once[1].path, tmp_path / "again", max_tensors=7)
    straight = shards.split(model, tmp_path / "straight", max_tensors=7)
    assert [s.path.read_bytes() for s in again] == [s.path.read_bytes() for s in straight]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "no limit"),
        ({"max_tensors": 0}, "expected one or more"),
        ({"max_bytes": 1000}, "too small for tensor"),
    ],
)
def test_limits_that_cannot_be_kept(
    model: Path, tmp_path: Path, limits: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        shards.split(model, tmp_path / "part", **limits)
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(model: Path, tmp_path: Path) -> None:
    planned = shards.split(model, tmp_path / "part", max_tensors=5, dry_run=True)
    assert not list(tmp_path.iterdir())
    planned[2].path.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        shards.split(model, tmp_path / "part", max_tensors=5)
    assert [path.name for path in tmp_path.iterdir()] == [planned[2].path.name]


def test_a_failure_in_the_middle_leaves_no_shard(model: Path, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards.split(model, tmp_path / "part", max_tensors=2, on_progress=stop)
    assert not list(tmp_path.iterdir())


def test_merging_wants_all_shards_and_another_name(model: Path, tmp_path: Path) -> None:
    made = shards.split(model, tmp_path / "part", max_tensors=5)
    with pytest.raises(UsageError, match="is an input"):
        shards.merge(made[0].path, made[1].path)
    made[1].path.unlink()
    with pytest.raises(InvalidFileError, match="expected all"):
        shards.merge(made[0].path, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_commands(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = tmp_path / "part"
    assert main(["split", str(model)]) == 2
    assert "--max-size" in capsys.readouterr().err
    assert main(["split", str(model), str(prefix), "--max-size", "400KiB", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert all(Path(each["path"]).stat().st_size == each["bytes"] <= 400 << 10 for each in answer)
    assert main(["merge", answer[0]["path"], str(tmp_path / "out.gguf")]) == 0
    assert f"{tmp_path / 'out.gguf'}: " in capsys.readouterr().out
    assert (tmp_path / "out.gguf").read_bytes() == model.read_bytes()


def test_sizes() -> None:
    assert parse_size("2GiB", "--x") == 2 << 30 == parse_size(" 2 gib", "--x")
    assert parse_size("2G", "--x") == parse_size("2GB", "--x") == 2_000_000_000
    assert parse_size("1.5k", "--x") == 1500 and parse_size("700", "--x") == 700
    for bad in ("", "GiB", "-1G", "0", "1 XB", "1e9", "nan", "0.1"):
        with pytest.raises(UsageError, match="--x"):
            parse_size(bad, "--x")
