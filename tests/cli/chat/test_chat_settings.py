"""What was asked: flags read, and what they make of a model's own sampling."""

import pytest

from trit.cli.chat.settings import Asked, biases, described
from trit.errors import UsageError
from trit.runtime.sample import SamplerSettings


def test_settings() -> None:
    assert biases(["1+2", "3-0.5", "4-inf"]) == {1: 2, 3: -0.5, 4: float("-inf")}
    for wrong in ("x+1", "5", "5+", "5+one", "+1"):
        with pytest.raises(UsageError):
            biases([wrong])
    base = SamplerSettings(temperature=0.3, top_p=0.7)
    asked = Asked(top_p=0.9, seed=-1)
    assert asked.sampling(base) == SamplerSettings(temperature=0.3, top_p=0.9)
    assert described(asked.sampling(base)).endswith("a new seed each time")
