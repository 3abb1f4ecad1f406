"""`import trit`: quick, complete, and functions stay functions."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import talking_model
import trit
from trit import errors
from trit.zoo import _manifest

EXTRAS = {"torch", "gguf", "tokenizers", "huggingface_hub", "jinja2", "rich", "transformers"}


def python(script: str) -> list[str]:
    """The words a script prints in a fresh interpreter."""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


def test_import_is_quick_and_light() -> None:
    script = (
        "import time; begun = time.process_time(); import trit, sys;"
        "print(time.process_time() - begun, *sys.modules)"
    )
    seconds, *loaded = min((python(script) for _ in range(3)), key=lambda words: float(words[0]))
    assert float(seconds) < 0.15
    assert not {"numpy", "typer", *EXTRAS} & set(loaded)


def test_loading_a_model_needs_no_extra(path: Path) -> None:
    script = (
        f"import sys, trit; model = trit.load({str(path)!r});"
        "model.chat([{'role': 'user', 'content': 'x'}], max_tokens=2); print(*sys.modules)"
    )
    assert not {"psutil", "pydantic", *EXTRAS} & set(python(script))


def test_every_name_is_there() -> None:
    assert all(getattr(trit, name) is not None for name in trit.__all__)
    assert set(trit.__all__) <= set(dir(trit))
    assert trit.TritError is errors.TritError
    assert isinstance(trit.__version__, str)
    with pytest.raises(AttributeError, match="nothing_such"):
        trit.nothing_such  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    "before",
    ["", "import trit.convert, trit.evaluate, trit.evaluate.speed",
     "from trit.quantize import Job; from trit.evaluate import Text",
     "trit.convert, trit.evaluate; import trit.convert, trit.evaluate.speed, trit.neurons"],
)  # fmt: skip
def test_verbs_are_functions_whatever_was_imported(before: str) -> None:
    """`trit.convert` is also the name of a file."""
    script = (
        f"import trit\n{before}\n"
        "names = 'convert', 'quantize', 'evaluate', 'neurons'\n"
        "print(*(type(getattr(trit, name)).__name__ for name in names))\n"
        "from trit.convert import prepare_convert; from trit.evaluate.speed import bench"
    )
    assert python(script) == ["function"] * 4


def test_the_verbs_together(path: Path, tmp_path: Path) -> None:
    """Convert, quantize, measure the loaded model against its source, and let it talk."""
    seen: list[str] = []
    whole = trit.convert(path, tmp_path / "f32.gguf", "f32")
    small = trit.quantize(
        whole.path,
        tmp_path / "q8.gguf",
        "Q8_0",
        on_progress=lambda what, done, total: seen.append(what),
    )
    assert seen and small.bytes < whole.bytes
    with trit.load(small.path, threads=1) as model:
        assert len(model.generate("the", max_tokens=4, temperature=0).text) > 0
        result = trit.evaluate(
            model, reference=whole.path, text="the cat and the other " * 20, ctx=32
        )
    answer = result.to_dict()
    assert answer["model"] == str(small.path)
    assert 0 <= answer["kld_mean"] < 0.05


def test_the_verbs_take_names_of_the_zoo(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "cache" / "trit" / "models"
    shelf.mkdir(parents=True)
    shutil.copy(path, shelf / "tiny.gguf")
    manifest = tmp_path / "manifest.toml"
    manifest.write_text(
        '[[model]]\nname = "tiny"\ndescription = "for tests"\nfile = "tiny.gguf"\n'
        f'size = {path.stat().st_size}\nsha256 = "{"0" * 64}"\nlicence = "MIT"\n'
        'licence_url = "https://example.org"\nsource = []\n'
    )
    monkeypatch.setattr(_manifest, "MANIFEST", manifest)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out, text = tmp_path / "out.gguf", "the cat and the other " * 20
    assert trit.convert("tiny", None, "f16", dry_run=True).weights > 0
    assert trit.quantize("tiny", out, "Q8_0").path == out
    answer = trit.evaluate("tiny", text, reference="tiny", ctx=32, chunks=1).to_dict()
    assert answer["model"] == answer["reference"] == str(shelf / "tiny.gguf")
    for call in (
        lambda name: trit.convert(name, out, "f16"),
        lambda name: trit.quantize(name, out, "Q8_0"),
        lambda name: trit.evaluate(name, text, ctx=32),
        lambda name: trit.evaluate("tiny", text, reference=name, ctx=32),
    ):
        with pytest.raises(errors.SourceError, match="tinny"):
            call("tinny")
    with pytest.raises(errors.UsageError, match="Q8_9"):
        trit.quantize("tinny", out, "Q8_9")  # the type is looked at before anything is pulled
