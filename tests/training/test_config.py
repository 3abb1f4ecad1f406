"""What a config may say, and what is said of one that makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_run
from trit.errors import InvalidFileError, UsageError
from trit.training import config as configs

WRONG = [
    ("width = 32", "widht = 32", r"key 'model.widht': there is no such key. Did you mean 'width'"),
    ("width = 32", "", r"key 'model.width': missing: expected an integer of 8 or more"),
    ("width = 32", "width = 'wide'", r"'model.width': expected an integer .*, got 'wide'"),
    ("width = 32", "width = true", r"'model.width': expected an integer .*, got True"),
    ("width = 32", "width = 36", r"'model.width': expected an even size for each of 4 heads"),
    ("kv_heads = 2", "kv_heads = 3", r"'model.kv_heads': expected a divisor of 4 heads, got 3"),
    ("ffn = 64", "ffn = 66", r"'model.ffn': expected rows in multiples of 4"),
    ("steps = 12", "steps = 0", r"'training.steps': expected an integer of 1 or more, got 0"),
    ("warmup = 2", "clip = -1", r"'training.clip': expected a number of 0.0 or more, got -1"),
    ("warmup = 2", "clip = nan", r"'training.clip': expected a number .*, got nan"),
    ("warmup = 2", "float_share = 2", r"'training.float_share': expected a number from 0.0 to 1.0"),
    ("warmup = 2", "matrices = 'sgd'", r"'training.matrices': expected one of 'muon', 'adamw'"),
    ("warmup = 2", "weight_decay = [0.1]", r"'training.weight_decay': expected a list of 2"),
    ("warmup = 2", "bf16 = 1", r"'training.bf16': expected true or false, got 1"),
    ('["essay.txt"]', "[3]", r"key 'data.files\[0\]': expected .*a path.*, got 3"),
    ('["essay.txt"]', "[]", r"key 'data.files': expected a text at least"),
    ('"F16"', '"Q4_K"', r"'output.type': expected one of 'TQ2_0', 'TQ1_0'"),
    ('"F16"', '"TQ1_0"', r"'model.width': expected a multiple of 256, for TQ1_0, got 32"),
    ('"F16"', '"F16"\nembedding = "q9"', r"'output.embedding': expected one of .*; got q9"),
    ("[run]", "[runs]", r"key 'runs': there is no such key. Did you mean 'run'"),
    ("seed = 3", "seed = 3\noutput = 4", r"."),
    ("seed = 3", "model = 4\n[other]", r"."),
    ("seed = 3", "seed = ", r"run.toml: is not TOML"),
]


@pytest.mark.parametrize(("old", "new", "said"), WRONG)
def test_what_makes_no_sense(old: str, new: str, said: str, tmp_path: Path) -> None:
    path = tiny_run.write(tmp_path, {old: new})
    with pytest.raises(InvalidFileError, match=said) as caught:
        configs.load(path)
    assert "run.toml" in str(caught.value)


def test_there_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        configs.load(tmp_path / "run.toml")
    with pytest.raises(UsageError, match="is a folder"):
        configs.load(tmp_path)


def test_defaults_and_numbers(tmp_path: Path) -> None:
    config = configs.load(tiny_run.write(tmp_path, {"warmup = 2": "rate = 1"}))
    assert config.training.rate == 1.0 and isinstance(config.training.rate, float)
    assert config.training.weight_decay == (0.1, 0.0)
    assert config.data.files == (Path("essay.txt"),) and config.seed == 3
    assert not config.twin and config.tokenizer.file is None


def test_the_document_tells_the_defaults(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
    (tmp_path / "doc.toml").write_text(text.split("```toml\n")[1].split("```")[0])
    config = configs.load(tmp_path / "doc.toml")
    assert config.tokenizer == configs.Tokenizer() and config.run == configs.Run()
    assert config.output == configs.Output()
    model = configs.Model(width=256, layers=4, heads=4, ffn=768)
    assert config.model == model and config.training == configs.Training(steps=2000)
    assert config.data == configs.Data(files=(Path("stories.txt"),))


def test_what_keeps_a_run_from_going_on(tmp_path: Path) -> None:
    old = configs.flat(configs.load(tiny_run.write(tmp_path)))
    free = {"checkpoint_every = 3": "checkpoint_every = 5", "seed = 3": "seed = 3\ntwin = true"}
    new = configs.flat(configs.load(tiny_run.write(tmp_path, free)))
    assert configs.differences(old, new) == []
    new = configs.flat(configs.load(tiny_run.write(tmp_path, {"batch = 4": "batch = 5"})))
    assert configs.differences(old, new) == ["training.batch was 4, is 5"]
