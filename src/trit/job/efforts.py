"""Which quantizer a wish for quality or for speed means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from trit.errors import UsageError

if TYPE_CHECKING:  # it brings an engine
    from trit.job.feedback import Feedback

QUANTIZERS = ("rtn", "gptq", "learned")
EFFORTS = {"fast": "rtn", "balanced": "gptq", "best": "learned"}  # effort -> quantizer
DEFAULT = "fast"


def feedback(
    quantizer: str | None,
    effort: str | None,
    calibration: str | os.PathLike[str] | None,
    threads: int | None = None,
) -> Feedback | None:
    """How error feedback is to be measured; None: there is to be none.

    quantizer    one of QUANTIZERS; None: what `effort` means
    effort       one of EFFORTS; None: DEFAULT
    calibration  a UTF-8 file; "default" or None: trit's passages and what the model writes
    UsageError for an unknown name.
    """
    if quantizer is not None and quantizer not in QUANTIZERS:
        raise UsageError(
            f"no quantizer is named '{quantizer}': expected one of {', '.join(QUANTIZERS)}."
        )
    if effort is not None and effort not in EFFORTS:
        raise UsageError(f"no effort is named '{effort}': expected one of {', '.join(EFFORTS)}.")
    name = quantizer or EFFORTS[effort or DEFAULT]
    if name == "rtn":
        return None
    from trit.job.feedback import Feedback
    from trit.job.importance import text_of
    from trit.job.learned import Learning

    text = None if calibration is None else text_of(calibration)
    return (Learning if name == "learned" else Feedback)(text, threads=threads)
