"""Models that talk, for `trit run`, its chat, and whoever else wants one."""

from pathlib import Path

import pytest

import talking_model


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that does not end its answers within a test."""
    keys = {"llama.context_length": 1 << 20}
    return talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf", keys)


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template begins its thoughts, which at random it does not end."""
    template = talking_model.TEMPLATE.replace(
        "assistant\n",
        "assistant\n{% if enable_thinking is not defined %}<think>\n{% else %}</think>{% endif %}",
    )
    folder = tmp_path_factory.mktemp("thinker")
    return talking_model.write(folder / "model.gguf", {"tokenizer.chat_template": template})
