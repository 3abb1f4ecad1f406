"""Schemathesis against the server's own OpenAPI document: no answer that it does not promise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks

from server import live
from trit.runtime.model import Model
from trit.server.app import create_app
from trit.server.settings import Settings

LIMITS = Settings(n_predict=3)


def no_model() -> Model:
    raise AssertionError("the document is made without one")


schema = schemathesis.openapi.from_dict(create_app({"talker": no_model}, LIMITS).openapi())
load_all_checks()
# What is of the document's shape may still make no sense: no such model, a template that refuses.
NOT_PROMISED = [schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = live.write(tmp_path_factory.mktemp("models"))
    with live.served({"talker": live.opener(path)}, LIMITS) as (address, _):
        yield address


@schema.parametrize()
@settings(
    max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate], derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_every_answer_is_documented(case: schemathesis.Case, address: str) -> None:
    """In status, type and shape; and what breaks the document is refused."""
    case.call_and_validate(base_url=f"http://{address}", excluded_checks=NOT_PROMISED)
