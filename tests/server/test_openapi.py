"""Schemathesis against the server's own OpenAPI document: no answer that it does not promise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks

from server import live
from trit.runtime.model import Model
from trit.server.app import create_app
from trit.server.settings import Settings

LIMITS = Settings(n_predict=3)


def no_model() -> Model:
    raise AssertionError("the document is made without one")


schema = schemathesis.openapi.from_dict(create_app({"talker": no_model}, LIMITS).openapi())
OPERATIONS = {found.ok().label: found.ok() for found in schema.get_all_operations()}
load_all_checks()
# What is of the document's shape may still make no sense: no such model, a template that refuses.
NOT_PROMISED = [schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = live.write(tmp_path_factory.mktemp("models"))
    models, paths = {"talker": live.opener(path)}, {"talker": path}
    with live.served(models, LIMITS, paths=paths) as (address, _):
        yield address


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        pytest.param(label, mode, id=f"{label} {mode.value}")
        for label in sorted(OPERATIONS)
        for mode in GenerationMode
        if mode is GenerationMode.POSITIVE or label.startswith("POST")  # a GET cannot be malformed
    ],
)
def test_every_answer_is_documented(label: str, mode: GenerationMode, address: str) -> None:
    """In status, type and shape; and what breaks the document is refused."""

    @settings(
        max_examples=12, deadline=None, phases=[Phase.generate], derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def every(data: st.DataObject) -> None:
        case = data.draw(OPERATIONS[label].as_strategy(generation_mode=mode))
        case.call_and_validate(base_url=f"http://{address}", excluded_checks=NOT_PROMISED)

    every()
