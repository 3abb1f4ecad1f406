"""What requests of a blind test are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, StringConstraints

STRICT = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)
VoterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
