"""trit makes big language models small enough for the machine at hand, and measures what that cost.

    model = trit.load("hf:org/repo:Q4_K_M", ctx=8192)
    model.generate("Hi", max_tokens=64, temperature=0.7).text
    model.chat([{"role": "user", "content": "Hi"}], stream=True)
    trit.quantize("model-f16.gguf", "model.gguf", "Q4_K_M")
    trit.estimate("70B", ctx=8192, ram="32GB")
    trit.compare(["q8_0.gguf", "q2_k.gguf"], Path("prompts.txt"), "study.sqlite").to_dict()
    trit.evaluate("model.gguf", reference="model-f16.gguf", text=Path("text.txt")).to_dict()

The public API, and nothing else. A name is imported when it is first used, so `import trit` is
quick. Errors are in `trit.errors`; all derive from TritError.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trit.calibrate import Importance, imatrix
    from trit.compare import Comparison, compare
    from trit.convert import ConvertResult, convert
    from trit.doctor import Doctor, doctor
    from trit.errors import TritError
    from trit.estimate import Estimate, estimate
    from trit.evaluate import Evaluation, evaluate
    from trit.neurons import Neurons, Pruned, neurons, prune
    from trit.quantize import QuantizeResult, quantize
    from trit.recommend import Recommendation, recommend
    from trit.report import Report, report
    from trit.runtime.generate import Chunk, Generation
    from trit.runtime.model import Model, load
    from trit.runtime.sample import SamplerSettings
    from trit.synth import synth
    from trit.training import TrainResult, train
    from trit.training.distill import DistillResult, DistillSettings, distill

    __version__: str

__all__ = [
    "Chunk",
    "Comparison",
    "ConvertResult",
    "DistillResult",
    "DistillSettings",
    "Doctor",
    "Estimate",
    "Evaluation",
    "Generation",
    "Importance",
    "Model",
    "Neurons",
    "Pruned",
    "QuantizeResult",
    "Recommendation",
    "Report",
    "SamplerSettings",
    "TrainResult",
    "TritError",
    "__version__",
    "compare",
    "convert",
    "distill",
    "doctor",
    "estimate",
    "evaluate",
    "imatrix",
    "load",
    "neurons",
    "prune",
    "quantize",
    "recommend",
    "report",
    "synth",
    "train",
]

_MODULES = {
    "Chunk": "trit.runtime.generate",
    "Comparison": "trit.compare",
    "ConvertResult": "trit.convert",
    "DistillResult": "trit.training.distill",
    "DistillSettings": "trit.training.distill",
    "Doctor": "trit.doctor",
    "Estimate": "trit.estimate",
    "Evaluation": "trit.evaluate",
    "Generation": "trit.runtime.generate",
    "Importance": "trit.calibrate",
    "Model": "trit.runtime.model",
    "Neurons": "trit.neurons",
    "Pruned": "trit.neurons",
    "QuantizeResult": "trit.quantize",
    "Recommendation": "trit.recommend",
    "Report": "trit.report",
    "SamplerSettings": "trit.runtime.sample",
    "TrainResult": "trit.training",
    "TritError": "trit.errors",
    "compare": "trit.compare",
    "convert": "trit.convert",
    "distill": "trit.training.distill",
    "doctor": "trit.doctor",
    "estimate": "trit.estimate",
    "evaluate": "trit.evaluate",
    "imatrix": "trit.calibrate",
    "load": "trit.runtime.model",
    "neurons": "trit.neurons",
    "prune": "trit.neurons",
    "quantize": "trit.quantize",
    "recommend": "trit.recommend",
    "report": "trit.report",
    "synth": "trit.synth",
    "train": "trit.training",
}


class _Package(ModuleType):
    """This module. Some of its functions have the names of the files they come from: importing the
    file, which Python then wants to put in the function's place, must not hide the function."""

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _MODULES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def _load(name: str) -> object:
    if name == "__version__":
        value: object = _version()
    elif name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # a checker would take every name as known
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("trit")
    except PackageNotFoundError:  # a source tree on PYTHONPATH
        return "0+unknown"
