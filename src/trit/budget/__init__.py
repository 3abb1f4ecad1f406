"""Formats to a budget: the least loss for the bytes there are.

    job, allocation, kept = prepare("model-f16.gguf", "out.gguf", target(fit="3.2GiB"), wishes)

How much the model's output moves when one tensor is rounded is measured, tensor by tensor; what
each format loses on each tensor is measured on a sample. Their products, summed, predict what a
choice of formats costs; an exact solver finds the best choice that fits.
"""

from trit.budget._allocation import Allocation, Point
from trit.budget._prepare import Prepared, again, prepare
from trit.budget._target import Target, target

__all__ = ["Allocation", "Point", "Prepared", "Target", "again", "prepare", "target"]
