"""What an architecture takes that has no word of its own to say: nothing added, nothing changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def extra_tensors(
    config: Mapping[str, Any], path: object = "config.json"
) -> dict[str, npt.NDArray[np.float32]]:
    """Tensors a GGUF has and the folder has not: none."""
    return {}


def transform(
    gguf_name: str, array: npt.NDArray[Any], metadata: Mapping[str, Any]
) -> npt.NDArray[Any]:
    """The array as it is."""
    return array
