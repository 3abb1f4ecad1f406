"""Models of a Hugging Face repository, against a hub on this machine."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
from fake_hub import FakeHub, Repository
from safetensors.numpy import save
from small_zoo import Shelf, tiny_model

Trit = Callable[..., "CompletedProcess[str]"]


def serve(hub: FakeHub, tmp_path: Path) -> Repository:
    model = tiny_model(tmp_path / "model.gguf")
    other = tiny_model(tmp_path / "other.gguf", spoilt=True)
    files = {"README.md": b"hello", "m-Q8_0.gguf": model, "m-Q4_K_M.gguf": model,
             "m-NaN.gguf": other, "mmproj-m-Q8_0.gguf": b"no model"}  # fmt: skip
    hub.repositories["org/tiny"] = Repository(files)
    return hub.repositories["org/tiny"]


def failure(result: "CompletedProcess[str]", code: int = 1) -> str:
    """The one line of a command that failed."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_a_file_is_pulled_into_the_shared_cache_once(
    hub: FakeHub, trit_with_hub: Trit, tmp_path: Path
) -> None:
    files = serve(hub, tmp_path).files
    result = trit_with_hub("pull", "hf:org/tiny:q8_0")
    assert result.returncode == 0, result.stderr
    path = Path(result.stdout.strip())
    assert path.name == "m-Q8_0.gguf" and path.is_relative_to(tmp_path / "hf")
    assert path.read_bytes() == files["m-Q8_0.gguf"]
    assert "downloading 0.0 MiB in 1 file\n" in result.stderr
    copies = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink()
              and p.stat().st_size == path.stat().st_size and p.parent != tmp_path]  # fmt: skip
    assert len(copies) == 1
    again = trit_with_hub("pull", "hf:org/tiny:q8_0", "--json")
    assert json.loads(again.stdout)["downloaded"] is False
    assert len(hub.downloads()) == 1


def test_offline_and_without_a_hub_the_cache_answers(
    hub: FakeHub, trit_with_hub: Trit, tmp_path: Path
) -> None:
    serve(hub, tmp_path)
    first = trit_with_hub("pull", "hf:org/tiny")
    assert Path(first.stdout.strip()).name == "m-Q4_K_M.gguf"
    offline = trit_with_hub("pull", "hf:org/tiny", HF_HUB_OFFLINE="1")
    assert offline.stdout == first.stdout, offline.stderr
    assert "HF_HUB_OFFLINE is set" in offline.stderr
    hub.close()
    dead = trit_with_hub("pull", "hf:org/tiny")
    assert dead.stdout == first.stdout, dead.stderr
    missing = trit_with_hub("pull", "hf:org/other", HF_HUB_OFFLINE="1")
    assert failure(missing) == "trit: error: hf:org/other: HF_HUB_OFFLINE is set."
    assert "cannot be reached" in failure(trit_with_hub("pull", "hf:org/other"))


def test_a_repository_without_gguf_is_a_folder(
    hub: FakeHub, trit_with_hub: Trit, tmp_path: Path
) -> None:
    weights = save({"w": np.ones((4, 4), np.float32)})
    files = {"config.json": b"{}", "model.safetensors": weights, "tokenizer.json": b"{}",
             "consolidated.safetensors": b"twice", "train.py": b"import os"}  # fmt: skip
    hub.repositories["org/folder"] = Repository(files)
    result = trit_with_hub("pull", "hf:org/folder")
    assert result.returncode == 0, result.stderr
    folder = Path(result.stdout.strip())
    assert {path.name for path in folder.iterdir()} == set(files) - {
        "consolidated.safetensors",
        "train.py",
    }


def test_wrong_bytes_are_an_error_and_leave_the_cache(
    hub: FakeHub, trit_with_hub: Trit, tmp_path: Path
) -> None:
    serve(hub, tmp_path).lies.add("m-Q8_0.gguf")
    assert "m-Q8_0.gguf: expected sha256" in failure(trit_with_hub("pull", "hf:org/tiny:Q8_0"))
    assert not list((tmp_path / "hf").rglob("*.gguf"))


def test_nan_in_the_weights(hub: FakeHub, trit_with_hub: Trit, tmp_path: Path) -> None:
    serve(hub, tmp_path)
    line = failure(trit_with_hub("pull", "hf:org/tiny:NaN"))
    assert "tensor 'token_embd.weight'" in line


def test_errors_are_one_clear_line(hub: FakeHub, trit_with_hub: Trit, tmp_path: Path) -> None:
    serve(hub, tmp_path)
    line = failure(trit_with_hub("pull", "hf:org/tiny:Q2_K"))
    assert "no GGUF file has Q2_K in its name. There are: m-NaN.gguf, m-Q4_K_M.gguf" in line
    assert "no such repository" in failure(trit_with_hub("pull", "hf:org/nothing"))
    assert "expected hf:org/repo" in failure(trit_with_hub("pull", "hf:nothing"), code=2)
    hub.repositories["org/gated"] = Repository({"m-Q4_K_M.gguf": b"x"}, gated=True)
    assert "hf:org/gated is gated" in failure(trit_with_hub("pull", "hf:org/gated"))


def test_the_users_token_is_sent(hub: FakeHub, trit_with_hub: Trit, tmp_path: Path) -> None:
    serve(hub, tmp_path).token = "secret"
    assert "set HF_TOKEN" in failure(trit_with_hub("pull", "hf:org/tiny"))
    result = trit_with_hub("pull", "hf:org/tiny", HF_TOKEN="secret")
    assert result.returncode == 0, result.stderr


def test_list_and_rm(hub: FakeHub, trit_with_hub: Trit, tmp_path: Path) -> None:
    serve(hub, tmp_path)
    for quant in ("Q8_0", "Q4_K_M"):  # the same bytes under two names: one blob
        assert trit_with_hub("pull", f"hf:org/tiny:{quant}").returncode == 0
    entries = json.loads(trit_with_hub("ls", "--json").stdout)
    assert [entry["name"] for entry in entries[-2:]] == ["hf:org/tiny:Q8_0", "hf:org/tiny:Q4_K_M"]
    first, second = (Path(entry["path"]) for entry in entries[-2:])
    assert trit_with_hub("rm", "hf:org/tiny:Q8_0").returncode == 0
    assert not first.exists() and second.exists()
    assert trit_with_hub("rm", "hf:org/tiny:Q4_K_M").returncode == 0
    assert not list((tmp_path / "hf").rglob("blobs/*"))
    assert "is not pulled" in failure(trit_with_hub("rm", "hf:org/tiny:Q4_K_M"))


MANIFEST_COMMAND = """
import sys
from pathlib import Path
from trit.cli import main
from trit.zoo import _manifest
_manifest.MANIFEST = Path(sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""


def pull_tiny(
    run_with_hub: Callable[..., "CompletedProcess[str]"], shelf: Shelf, *flags: str
) -> "CompletedProcess[str]":
    """`trit pull tiny` with the manifest of the shelf."""
    return run_with_hub("-c", MANIFEST_COMMAND, str(shelf.manifest), "pull", "tiny", *flags)


def test_a_zoo_model_may_lie_on_the_hub(
    hub: FakeHub, run_with_hub: Trit, shelf: Shelf, tmp_path: Path
) -> None:
    hub.repositories["org/tiny"] = Repository({"m.gguf": shelf.model})
    shelf.write_manifest(source='kind = "hub"\nrepo = "org/tiny"\nfile = "m.gguf"')
    result = pull_tiny(run_with_hub, shelf)
    assert result.returncode == 0, result.stderr
    assert "licence: MIT" in result.stderr
    assert Path(result.stdout.strip()).is_relative_to(tmp_path / "hf")
    assert not shelf.target.exists()
    assert "already here" in pull_tiny(run_with_hub, shelf).stderr
    assert len(hub.downloads()) == 1


def test_another_file_under_the_name_is_refused(
    hub: FakeHub, run_with_hub: Trit, shelf: Shelf, tmp_path: Path
) -> None:
    hub.repositories["org/tiny"] = Repository({"m.gguf": shelf.model[:-4] + b"evil"})
    shelf.write_manifest(source='kind = "hub"\nrepo = "org/tiny"\nfile = "m.gguf"')
    assert "m.gguf: expected sha256" in failure(pull_tiny(run_with_hub, shelf))
    assert not list((tmp_path / "hf").rglob("*.gguf"))


def test_the_next_source_is_tried_and_that_is_said(
    hub: FakeHub, run_with_hub: Trit, shelf: Shelf
) -> None:
    wheels = shelf.manifest.read_text().partition("[[model.source]]\n")[2]
    first = 'kind = "hub"\nrepo = "org/gone"\nfile = "m.gguf"'
    shelf.write_manifest(source=f"{first}\n\n[[model.source]]\n{wheels}")
    result = pull_tiny(run_with_hub, shelf)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(shelf.target)
    assert "hf:org/gone: no such repository" in result.stderr
    assert "Trying the next source." in " ".join(result.stderr.split())  # lines wrap at words


CONFIG = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 512, "intermediate_size": 1024,
    "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 4096,
    "max_position_embeddings": 2048, "tie_word_embeddings": True,
}  # fmt: skip


def test_what_fits_is_known_before_weights_are_fetched(
    hub: FakeHub, trit_with_hub: Trit, tmp_path: Path
) -> None:
    """`trit estimate hf:org/repo` fetches config.json alone."""
    weights = b"\0" * 1000
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights}
    hub.repositories["org/shape"] = Repository(files)
    result = trit_with_hub("estimate", "hf:org/shape", "--no-measure", "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    layer = 512 * (512 + 2 * 128 + 512 + 3 * 1024) + 2 * 512
    assert answer["parameters"] == 4096 * 512 + 3 * layer + 512
    assert "config.json alone" in result.stderr
    assert hub.downloads() == ["/org/shape/resolve/main/config.json"]
    # What the cache has is not asked for again; what a GGUF holds is known from the file alone.
    serve(hub, tmp_path)
    offline = trit_with_hub("estimate", "hf:org/shape", "--no-measure", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert "m-Q8_0.gguf" in failure(trit_with_hub("estimate", "hf:org/tiny", "--no-measure"))
