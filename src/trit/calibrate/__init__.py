"""Text to statistics per tensor, layer by layer: what the quantizers know about a model's inputs.

    given = data(model, Path("text.txt"))
    for layer in walk(model, given.tokens, gram=True):
        layer.of("blk.0.attn_q.weight").means     # energy per column
        layer.of("blk.0.attn_q.weight").gram      # Σ x xᵀ
        layer.replace(quantized)                  # let the next layer see what these weights give

All of the text goes through one layer, then through the next: weights are read once, and memory
holds one layer and the hidden states, so a model may be larger than memory. `imatrix` writes what
was measured as a file of importance data that llama.cpp's tools read.
"""

from trit.calibrate._data import Data, data, openings, passages
from trit.calibrate._importance import (
    FINGERPRINT,
    Importance,
    entries,
    fingerprint,
    imatrix,
    is_measured,
    text_about,
    text_name,
)
from trit.calibrate._inputs import Inputs, shared
from trit.calibrate._model import Model, chunk_tokens, plan_for
from trit.calibrate._walk import LayerPass, OnProgress, walk
from trit.calibrate._weights import weights

__all__ = [
    "FINGERPRINT",
    "Data",
    "Importance",
    "Inputs",
    "LayerPass",
    "Model",
    "OnProgress",
    "chunk_tokens",
    "data",
    "entries",
    "fingerprint",
    "imatrix",
    "is_measured",
    "openings",
    "passages",
    "plan_for",
    "shared",
    "text_about",
    "text_name",
    "walk",
    "weights",
]
