"""What a run needs to go on after a kill: weights, the optimizer's memory, and how far it came.

One .npz file (numpy's, without pickles; every part has a checksum that reading checks), written
beside the old one, flushed, and renamed over it: at any moment there is one whole state or none.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trit.errors import InvalidFileError
from trit.files._whole import whole

FILE = "state.npz"
_ABOUT = "about"


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
    """Write a state; the one before stays until this one is on the disk."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    arrays[_ABOUT] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with whole(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path, tensors: Mapping[str, Tensor], fingerprint: str) -> dict[str, object] | None:
    """Copy a state into `tensors`; what was saved about it, None where there is none.

    InvalidFileError for a file that is damaged or of a run of another `fingerprint`.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            about: dict[str, object] = json.loads(bytes(file[_ABOUT]))
            if set(file.files) != {*tensors, _ABOUT} or about["fingerprint"] != fingerprint:
                raise ValueError("that of another run")
            for name, tensor in tensors.items():
                array = file[name]
                if array.shape != tuple(tensor.shape) or array.dtype != np.float32:
                    raise ValueError(f"'{name}' is {array.dtype} of {array.shape}")
                with torch.no_grad():
                    tensor.copy_(torch.from_numpy(array))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidFileError(
            path, "", f"expected the state of this run, got: {error}. "
            "Remove it to begin again from the first step."
        ) from None  # fmt: skip
    return about
