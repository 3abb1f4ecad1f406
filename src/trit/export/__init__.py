"""Folders for other engines: a Hugging Face folder as one of AWQ, compressed-tensors, HQQ.

    export("model", "model-awq", "awq", group_size=128)

The linears of the layers get integers of 2 to 8 bits with a scale and a zero per group of inputs;
embedding, head, norms and biases stay floats. The new folder is whole or absent.
"""

from trit.export._export import Export, export
from trit.export._exported import Exported, check, usual_quantizer

__all__ = ["Export", "Exported", "check", "export", "usual_quantizer"]
