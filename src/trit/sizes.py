"""Sizes as people write them: 3.2GiB, 500M, 4000000000."""

from __future__ import annotations

import math
import re

from trit.errors import UsageError

_UNITS: dict[str, int] = {
    **{"": 1, "b": 1},
    **{f"{letter}{tail}": 1000**power for power, letter in enumerate("kmgt", 1)
       for tail in ("", "b")},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*")


def parse_size(text: str, flag: str) -> int:
    """Bytes, rounded down: '2GiB' and '2gib' are 2 << 30, '2G' and '2GB' are 2,000,000,000.

    UsageError, which names the flag, for what is no size or none above zero.
    """
    match = _SIZE.fullmatch(text)
    if match is not None and match[2].lower() in _UNITS:
        count = math.floor(float(match[1]) * _UNITS[match[2].lower()])
        if count > 0:
            return count
    raise UsageError(f"{flag} {text}: expected a size such as 3.2GiB, 500MB or 2G")
