"""The model that a user named: which one, and its path, with the pull on stderr if there is one."""

from pathlib import Path

from trit.cli._progress import Progress
from trit.cli._terminal import note, wrapped
from trit.errors import UsageError


def chosen(command: str, argument: str | None, option: str | None) -> str:
    """The model given as an argument, or with llama.cpp's -m; UsageError for none, or for two."""
    if argument is not None and option is not None:
        raise UsageError(f"two models: {argument} and {option}")
    name = argument if argument is not None else option
    if name is None:
        raise UsageError(f"no model: trit {command} MODEL. 'trit list' names some.")
    return name


def resolve(reference: str, *, jsonl: bool = False) -> Path:
    """The path of a model reference; a zoo or Hugging Face model is pulled when it is missing.

    Raises SourceError when there is no such model, DoesNotFitError when the disk is too full.
    """
    from trit import zoo

    with Progress(jsonl=jsonl) as progress:
        return zoo.resolve(
            reference, on_progress=progress, announce=lambda text: note(wrapped(text))
        )
