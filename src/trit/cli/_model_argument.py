"""The model of a command that takes it as an argument, or with llama.cpp's -m."""

from trit.errors import UsageError


def chosen(command: str, argument: str | None, option: str | None) -> str:
    """The model that was given; UsageError for none, or for two."""
    if argument is not None and option is not None:
        raise UsageError(f"two models: {argument} and {option}")
    name = argument if argument is not None else option
    if name is None:
        raise UsageError(f"no model: trit {command} MODEL. 'trit list' names some.")
    return name
