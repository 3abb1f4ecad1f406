"""The command line: one thin file per command; `main` runs one.

    NAME.py     a command, and nothing else (_commands.py)
    _NAME.py    what several commands share
    folders     what stands behind commands; a folder is no command
    chat/       `run`: a chat, or one answer
    study/      `compare`: answers made, votes, results
    writing/    `convert`, `quantize`, `synth`: a job carried out and told
    figures/    `bench`, `eval`, `neurons`, `show`, `verify`: what was measured, for people

Nothing else may live here: importing the file of `trit list` gives this package a name `list`.
"""

from trit.cli._main import main

__all__ = ["main"]
