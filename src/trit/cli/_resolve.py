"""From the model a user named to a path, with the pull's announcement and progress on stderr."""

from pathlib import Path

from trit.cli._progress import Progress
from trit.cli._terminal import note, wrapped


def resolve(reference: str, *, jsonl: bool = False) -> Path:
    """The path of a model reference; a zoo or Hugging Face model is pulled when it is missing.

    Raises SourceError when there is no such model, DoesNotFitError when the disk is too full.
    """
    from trit import zoo

    with Progress(jsonl=jsonl) as progress:
        return zoo.resolve(
            reference, on_progress=progress, announce=lambda text: note(wrapped(text))
        )
