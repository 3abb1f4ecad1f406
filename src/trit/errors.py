"""Everything trit raises for a user's input, and the exit code each one ends a command with.

    TritError                    1   something the user can act on
    ├── UsageError               2   a flag or an argument that makes no sense
    ├── DoesNotFitError          3   the job needs more memory, disk or context than there is
    ├── InvalidFileError         1   bytes that break a promise of their format
    ├── UnsupportedError         1   legal, but trit cannot do it (an architecture, a type)
    ├── TemplateError            1   a chat template that fails or exceeds its limits
    └── SourceError              1   a model that cannot be had (network, hash, missing package)

An `assert` is for our own bugs; these are for input. A message says what, where, expected, got and
what to do next.
"""


class TritError(Exception):
    """Base of every error trit raises on purpose."""

    exit_code = 1


class UsageError(TritError):
    """The request itself makes no sense."""

    exit_code = 2


class DoesNotFitError(TritError):
    """Not enough memory, disk or context for the request."""

    exit_code = 3


class InvalidFileError(TritError):
    """A file whose bytes break a promise of its format.

    `path` names the file, `where` the tensor, key or offset; the message carries expected and got.
    """

    def __init__(self, path: object, where: str, problem: str) -> None:
        self.path = str(path)
        self.where = where
        super().__init__(f"{self.path}: {where}: {problem}" if where else f"{self.path}: {problem}")


class UnsupportedError(TritError):
    """A legal input that trit does not handle."""


class TemplateError(TritError):
    """A chat template that fails, or exceeds its limits on time, memory or output."""


class SourceError(TritError):
    """A model that could not be fetched, or whose hash is wrong."""
