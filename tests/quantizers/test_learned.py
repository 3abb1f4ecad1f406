"""Learned rounding: better than its beginning or the same, and the same again after a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

import small_model
import text_model
from trit import calibrate, quantize, recipe
from trit.errors import TritError, UnsupportedError, UsageError
from trit.files import checkpoint, gguf
from trit.files._chain import Chain, States
from trit.files.checkpoint import Checkpoint
from trit.files.source import open_source
from trit.formats import get
from trit.job import efforts, feedback
from trit.job import learned as jobs
from trit.job.feedback import Feedback
from trit.job.learned import Learning
from trit.quantize import prepare_quantize
from trit.quantizers import learned, rtn
from trit.quantizers.learned import Learned, Settings, Start
from trit.verify import verify

pytestmark = pytest.mark.unsanitized

TYPE = "Q3_K_M"
STEPS = 16


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    random = np.random.default_rng(0)
    path.write_text(" ".join(random.choice(text_model.TEXT.split()) for _ in range(400)))
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("source") / "source.gguf")


@pytest.fixture(scope="module")
def straight(source: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, made without a break."""
    return learn(source, text, tmp_path_factory.mktemp("straight") / "straight.gguf")


@contextmanager
def first_layer(path: Path, text: Path) -> Iterator[tuple[Checkpoint, calibrate.LayerPass]]:
    with checkpoint.open(path) as model:
        walk = calibrate.walk(model, calibrate.data(model, text, ctx=32).tokens, threads=1)
        yield model, next(walk)
        walk.close()


def trained(model: Checkpoint, layer: calibrate.LayerPass, name: str, steps: int) -> Learned:
    plan = calibrate.plan_for(model)
    starts = {}
    for matrix in calibrate.weights(plan, 0):
        weights = model.tensors[matrix].decode()
        starts[matrix] = Start(weights, name, rtn.quantize(weights, name, threads=1))
    inputs, outputs = (x.reshape(-1, 32, plan.width) for x in (layer.hidden, layer.outputs))
    return learned.train(
        plan, layer.plan, model.tensors, starts, inputs, outputs, Settings(steps), threads=1
    )


def test_a_layer_comes_nearer_to_its_aim(source: Path, text: Path) -> None:
    with first_layer(source, text) as (model, layer):
        found = trained(model, layer, "q3_k", 12)
        again = trained(model, layer, "q3_k", 12)
    assert found.step > 0 and found.loss < 0.9 * found.begun
    assert again.loss == found.loss
    assert all(np.array_equal(again.data[name], data) for name, data in found.data.items())


def test_what_helps_nothing_changes_nothing(
    source: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned, "TRAVEL", {name: 1000.0 for name in learned.TRAVEL})
    with first_layer(source, text) as (model, layer):
        found = trained(model, layer, "q4_k", STEPS)
        assert found.step == 0 and found.loss == found.begun
        for name, data in found.data.items():
            assert np.array_equal(data, rtn.quantize(model.tensors[name].decode(), "q4_k"))


def test_too_few_pieces(source: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("a short text, of two pieces, at best. " * 2)
    with (
        first_layer(source, short) as (model, layer),
        pytest.raises(UsageError, match=r"makes \d pieces, learned rounding needs at least 4"),
    ):
        trained(model, layer, "q4_k", STEPS)


def learn(source: Path, text: Path, out: Path, on_progress: object = None) -> Path:
    learning = Learning(text, threads=1, training=Settings(STEPS))
    wishes = recipe.overrides((), None, None, pure=False)
    with prepare_quantize(source, out, TYPE, wishes, feedback=learning) as job:
        job.run(on_progress)  # type: ignore[arg-type]
    return out


def test_a_file(source: Path, text: Path, straight: Path, tmp_path: Path) -> None:
    quantize(source, tmp_path / "fed.gguf", TYPE, quantizer="gptq", calibration=text, threads=1)
    with gguf.open(straight) as file, gguf.open(tmp_path / "fed.gguf") as fed:
        asked = json.loads(str(file.metadata["trit.recipe"]))
        changed = set()
        for name, tensor in file.tensors.items():
            other = fed.tensors[name]
            assert tensor.format is other.format
            if not np.array_equal(tensor.data, other.data):
                changed.add(name)
        assert changed and all(name.startswith("blk.") for name in changed)
    assert asked["quantizer"] == "learned" and asked["calibration"] == "text.txt"
    assert asked["training"].keys() == {"steps", "seed", "threads", "torch"}
    assert asked["training"]["steps"] == STEPS and asked["training"]["threads"] == 1
    assert not list(straight.parent.glob("*.partial*"))
    with pytest.raises(UsageError, match="no quality card, and its rounding was learned"):
        verify(straight, source)


class Stop:
    """Progress that interrupts at the n-th step."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, what: str, done: int, total: int) -> None:
        self.left -= what == "learning"
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_interrupted_job_resumes_to_the_same_bytes(
    source: Path, text: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, layers = tmp_path / "out.gguf", []
    train = learned.train

    def watched(*args: object, **options: object) -> Learned:
        layers.append(args[1])
        return train(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(learned, "train", watched)
    with pytest.raises(KeyboardInterrupt):
        learn(source, text, out, Stop(STEPS + 1))  # in the second layer
    assert (tmp_path / "out.gguf.partial.chain").exists()
    learn(source, text, out)
    assert out.read_bytes() == straight.read_bytes()
    assert len(layers) == small_model.LAYERS + 1, "only what was interrupted is done again"
    assert not list(tmp_path.glob("*.partial*"))


def test_states_are_used_as_they_were_kept(
    source: Path, text: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not made again: spoiled, they are what the second layer is trained on."""
    out = tmp_path / "out.gguf"
    with pytest.raises(KeyboardInterrupt):
        learn(source, text, out, Stop(STEPS + 1))
    load, moved = Chain.load, []

    def spoiled(self: Chain) -> States | None:
        kept = load(self)
        assert kept is not None and kept.index == 1
        moved.append(kept)
        rounded = kept.arrays["rounded"] * np.float32(1.5)
        return States(kept.index, {**kept.arrays, "rounded": rounded})

    monkeypatch.setattr(Chain, "load", spoiled)
    learn(source, text, out)
    assert moved and out.read_bytes() != straight.read_bytes()


def test_without_its_states_a_job_makes_them_again(
    source: Path, text: Path, straight: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    for spoil in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:1000])):
        out.unlink(missing_ok=True)
        with pytest.raises(KeyboardInterrupt):
            learn(source, text, out, Stop(STEPS + 1))
        spoil(tmp_path / "out.gguf.partial.chain")
        learn(source, text, out)
        assert out.read_bytes() == straight.read_bytes()


def test_states_of_another_job(tmp_path: Path) -> None:
    x = np.ones((4, 8), np.float32)
    partial = tmp_path / "out.gguf.partial"
    Chain(partial, "this").save(States(3, {"plain": x, "rounded": 2 * x}))
    kept = Chain(partial, "this").load()
    assert kept is not None and kept.index == 3
    assert np.array_equal(kept.arrays["plain"], x)
    assert np.array_equal(kept.arrays["rounded"], 2 * x)
    assert Chain(partial, "that").load() is None
    Chain(partial, "that").discard()
    assert Chain(partial, "this").load() is None and not list(tmp_path.iterdir())


def test_what_cannot_be_trained_is_fed_back(source: Path, text: Path, tmp_path: Path) -> None:
    learning = Learning(text, threads=1, training=Settings(STEPS))
    wishes = recipe.overrides(["ffn_up=iq3_s", "attn=q4_k"], None, None, pure=False)
    with prepare_quantize(source, tmp_path / "o.gguf", TYPE, wishes, feedback=learning) as job:
        assert "iq3_s cannot be trained: those tensors keep error feedback" in job.warnings
        job.run()
    with gguf.open(tmp_path / "o.gguf") as file:
        assert file.tensors["blk.0.ffn_up.weight"].format is get("iq3_s")


def test_a_card_proves_it(source: Path, text: Path, tmp_path: Path) -> None:
    from trit.job import carding

    learning = Learning(text, threads=1, training=Settings(STEPS))
    wishes = recipe.overrides((), None, None, pure=False)
    with prepare_quantize(source, tmp_path / "o.gguf", TYPE, wishes, feedback=learning) as job:
        carding.run(job, 1, None)
    proof = verify(tmp_path / "o.gguf", source, threads=1)
    assert proof.by == "card" and proof.because is not None and "was learned" in proof.because


def test_experts_are_refused(tmp_path: Path, text: Path) -> None:
    weights = small_model.mixture()
    path = small_model.write(tmp_path / "m.gguf", weights, "f32", small_model.MIXTURE_KEYS)
    with pytest.raises(UnsupportedError, match=r"mixture of experts is not supported.*balanced"):
        quantize(path, tmp_path / "out.gguf", TYPE, effort="best", calibration=text)
    assert not list(tmp_path.glob("out*"))


def test_without_torch(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for budget in ({"type": TYPE}, {"bpw": 6.0}):
        with pytest.raises(UnsupportedError, match=r"needs torch: pip install 'trit\[train\]'"):
            quantize(source, tmp_path / "o.gguf", effort="best", **budget)  # type: ignore[arg-type]


def test_efforts() -> None:
    best, forced = efforts.feedback(None, "best", None), efforts.feedback("learned", "fast", None)
    assert best == forced == Learning()
    assert efforts.feedback(None, "balanced", None) == Feedback()


def test_the_cost_is_reckoned(source: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products there and back twice, and the looks, at the speed of the machine."""
    assert jobs._rate(gguf.TensorInfo("w", (64, 64), get("q4_0")), threads=1) > 1e6
    monkeypatch.setattr(jobs, "_rate", lambda info, threads: 1e9)
    monkeypatch.setattr(feedback, "_first_layer_seconds", lambda source, chunks, threads: 0.0)
    info = gguf.TensorInfo("blk.0.attn_q.weight", (256, 256), get("q4_0"))
    with closing(open_source(source)) as model:
        few, many = (Learning(text, training=Settings(n)).seconds(model, [info]) for n in (10, 20))
        assert many - few == pytest.approx(jobs.OVERHEAD * 30 * 2 * 256**2 * 128 / 1e9)
        assert few > many - few
        assert Learning(text).seconds(model, []) == Feedback(text).seconds(model, [info]) == 0


def test_an_error_leaves_nothing(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **options: object) -> Learned:
        raise TritError("out of luck")

    monkeypatch.setattr(jobs.learned, "train", fails)
    with pytest.raises(TritError, match="out of luck"):
        learn(source, text, tmp_path / "out.gguf")
    assert not list(tmp_path.glob("out*"))
