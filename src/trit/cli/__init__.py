"""The command line: one thin file per command; `main` runs one.

Nothing else may live here: importing the file of `trit list` gives this package a name `list`.
"""

from trit.cli._main import main

__all__ = ["main"]
