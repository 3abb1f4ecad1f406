"""The scan of this folder, and the way from a plain function to a command line.

A command is a public module `name.py` here with

    ALIASES = ("ls",)                  # optional, other names
    def command(model: Annotated[str, typer.Argument(help="...")], ...) -> None:
        \"\"\"One line: the help.\"\"\"

The overview is read from the sources with `ast`, because importing every command costs more than
printing the help may take. On top of typer: underscores are accepted for dashes in flags, a bare
`--color` means `--color=on`, and every flag can be set by a variable `TRIT_<FLAG>`.
"""

import ast
import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trit.errors import UsageError

FOLDER = Path(__file__).parent
COLOR_WHEN = ("auto", "on", "off")


@dataclass(frozen=True)
class CommandFile:
    """One command of the folder: its names, its help line, its module."""

    name: str
    module: str
    help: str
    aliases: tuple[str, ...]


def scan(folder: Path = FOLDER) -> list[CommandFile]:
    """Every command of the folder, by name, without importing any; folders are none."""
    paths = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))
    return [_read(path) for path in paths]


def _read(path: Path) -> CommandFile:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    help_line, aliases = "", ()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "command":
            help_line = (ast.get_docstring(node) or "").partition("\n")[0]
        elif isinstance(node, ast.Assign) and _assigns(node, "ALIASES"):
            aliases = tuple(ast.literal_eval(node.value))
    name = path.stem.replace("_", "-")
    return CommandFile(name, f"trit.cli.{path.stem}", help_line, aliases)


def _assigns(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def find(name: str) -> CommandFile:
    """The command of this name or alias; UsageError names the nearest ones."""
    commands = scan()
    for entry in commands:
        if name == entry.name or name in entry.aliases:
            return entry
    import difflib

    names = [known for entry in commands for known in (entry.name, *entry.aliases)]
    near = difflib.get_close_matches(name, names, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else " See 'trit --help'."
    raise UsageError(f"no such command: {name}.{hint}")


def overview() -> str:
    """The text of `trit --help`, within 80 columns."""
    commands = scan()
    width = max((len(entry.name) for entry in commands), default=0)
    lines = [f"  {entry.name:<{width}}  {entry.help}" for entry in commands]
    return "\n".join(
        [
            "Usage: trit COMMAND [OPTIONS]...",
            "",
            "Makes big language models small enough for the machine at hand, and measures",
            "what that cost.",
            "",
            "Commands:",
            *(line if len(line) <= 80 else line[:79] + "…" for line in lines),
            "",
            "A model is a path (GGUF file or Hugging Face folder), a name of 'trit list', or",
            "hf:org/repo[:QUANT]. 'trit COMMAND --help' explains a command. Every flag can be",
            "set by a variable: --top-k is TRIT_TOP_K. 'trit --version' prints the version.",
        ]
    )


def load(entry: CommandFile) -> Callable[..., Any]:
    """Import the command's file; its function."""
    function: Callable[..., Any] = importlib.import_module(entry.module).command
    return function


def parser(entry: CommandFile) -> Any:
    """The command as typer makes it of the function."""
    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(entry.name, context_settings={"help_option_names": ["-h", "--help"]})(load(entry))
    return typer.main.get_command(app)


def run(entry: CommandFile, arguments: list[str]) -> int:
    """Parse `arguments` for one command, run it, return its exit code."""
    import typer

    command = parser(entry)
    known = _flags(command.params)
    for parameter in command.params:
        _set_variable(parameter)
    try:
        normal = list(normalise(arguments, known))
        _refuse_clusters(entry.name, normal, known, command.params)
        with command.make_context(f"trit {entry.name}", normal) as context:
            _prefer_arguments(context)
            result = command.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    return result if isinstance(result, int) else 0


def _flags(parameters: Iterable[Any]) -> frozenset[str]:
    return frozenset(
        flag
        for parameter in parameters
        if parameter.param_type_name == "option"
        for flag in (*parameter.opts, *parameter.secondary_opts)
    )


def _set_variable(parameter: Any) -> None:
    """Let TRIT_<FLAG> set an option, by each of the flag's long names: the first that is set."""
    if parameter.param_type_name != "option" or parameter.envvar:
        return
    long = [flag[2:] for flag in parameter.opts if flag.startswith("--")]
    parameter.envvar = [f"TRIT_{flag.replace('-', '_').upper()}" for flag in long]
    parameter.show_envvar = False  # the overview says it once for all


def _prefer_arguments(context: Any) -> None:
    """A variable gives way to what was typed: TRIT_MODEL to MODEL, as it would to --model."""
    for name in [name for name in context.params if name.endswith("_option")]:
        source = context.get_parameter_source(name)
        typed = bool(context.params.get(name.removesuffix("_option")))  # a list may be empty
        if typed and source is not None and source.name == "ENVIRONMENT":
            context.params[name] = None


def _refuse_clusters(
    name: str, arguments: list[str], known: frozenset[str], parameters: Iterable[Any]
) -> None:
    """UsageError for a word such as llama.cpp's -ngl, which click would read as `-n gl`."""
    valued = _flags(each for each in parameters if not getattr(each, "is_flag", False))
    before = ""
    for argument in arguments:
        if argument == "--":
            return
        flag = argument.partition("=")[0]
        if before not in valued and flag not in known and re.match("-[A-Za-z]{2}", argument):
            raise UsageError(f"no such option: {flag}. See 'trit {name} --help'.")
        before = "" if before in valued else argument


def normalise(arguments: list[str], known: frozenset[str]) -> Iterable[str]:
    """Old habits in the flags: `--repeat_penalty`, a bare `--color`.

    Only a spelling that is a known flag of the command is changed, so a value stays as it is.
    """
    for index, argument in enumerate(arguments):
        if argument == "--":
            yield from arguments[index:]
            return
        if argument in COLOR_WHEN and index and arguments[index - 1] == "--color":
            continue  # taken by the flag before it
        flag, equals, value = argument.partition("=")
        dashed = flag.replace("_", "-")
        if flag.startswith("--") and flag not in known and dashed in known:
            flag = dashed
        if flag == "--color" and flag in known and not equals:
            following = arguments[index + 1] if index + 1 < len(arguments) else ""
            equals, value = "=", following if following in COLOR_WHEN else "on"
        yield f"{flag}{equals}{value}"
