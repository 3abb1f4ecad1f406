"""Hugging Face folders that are quantized already: AWQ, GPTQ, FP8, compressed-tensors, HQQ, BitNet.

`open_weights` gives every tensor under the name that the model's class has for it, as if the folder
had never been quantized. What is packed is decoded to float32 when its bytes are asked for, one
tensor at a time. Codes times float16 or bfloat16 scales are exact in float32; FP8 times a float32
scale is rounded once. Activations are left alone: a folder's wish to round those too is ignored.

One module per method; each names the parts that a quantized linear is saved in, checks them when
the folder is opened, and decodes them later.
"""

from trit.files.quantized._grid import Grid, Parts
from trit.files.quantized._open import Weights, open_weights, without_settings

__all__ = ["Grid", "Parts", "Weights", "open_weights", "without_settings"]
