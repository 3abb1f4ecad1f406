"""The sampling settings that a model's file asks for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

from trit.errors import InvalidFileError, UsageError
from trit.files.checkpoint import Checkpoint
from trit.runtime.sample import SamplerSettings

# Keys under general.sampling -> SamplerSettings, and whether a count.
_SAMPLING = {
    "temp": ("temperature", False),
    "top_k": ("top_k", True),
    "top_p": ("top_p", False),
    "min_p": ("min_p", False),
    "penalty_repeat": ("repeat_penalty", False),
    "penalty_last_n": ("penalty_last_n", True),
}


def own_sampling(file: Checkpoint) -> SamplerSettings:
    """The model's own settings (keys general.sampling.*), for the rest trit's."""
    settings = SamplerSettings()
    for key, (name, is_count) in _SAMPLING.items():
        where = f"general.sampling.{key}"
        value = file.metadata.get(where)
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(cast(float, value)):
            raise InvalidFileError(file.path, where, f"expected a number, got {value!r:.80}")
        if is_count:  # stock readers take any top-k below 1 as off
            given = max(int(cast(float, value)), 0 if name == "top_k" else -1)
            changes: dict[str, Any] = {name: given}
        else:
            changes = {name: float(cast(float, value))}
        try:
            settings = replace(settings, **changes)
        except UsageError as error:
            raise InvalidFileError(file.path, where, str(error)) from None
    return settings
