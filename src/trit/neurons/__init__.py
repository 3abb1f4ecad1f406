"""Dark neurons: what each neuron of a model's feed-forwards does, and a model without the darkest.

    found = neurons("model.gguf", Path("text.txt"))
    found.rare("above_rms", 0.1)       # share that exceed a token's RMS for < 10% of the tokens
    found.claim()                      # whether 80% of them "rarely activate", in a sentence
    prune("model.gguf", "narrow.gguf", 0.2, Path("text.txt")).evaluation.divergence

A neuron is a row of `ffn_gate` and `ffn_up` and a column of `ffn_down`; its activation is the input
of `ffn_down`. What firing means is defined in `_firing`, what a neuron contributes in `_tally`.
"""

from trit.neurons._each import write_each
from trit.neurons._firing import DEFINITIONS
from trit.neurons._measure import Neurons, neurons
from trit.neurons._plot import draw
from trit.neurons._prune import Pruned, prune
from trit.neurons._tally import RARE, LayerNeurons

__all__ = [
    "DEFINITIONS",
    "RARE",
    "LayerNeurons",
    "Neurons",
    "Pruned",
    "draw",
    "neurons",
    "prune",
    "write_each",
]
