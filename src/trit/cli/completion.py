"""`trit completion SHELL`: a script that completes commands, flags, models and files.

Commands are imported when they are run and no earlier, so that a shell which asked trit at every
key would wait: the script holds all it needs. Print it anew after an update.
"""

import shlex
from typing import Annotated, Any

import typer

from trit.errors import UsageError

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
_trit() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} flags=
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W {commands} -- "$word"))
    return
  fi
  case ${{COMP_WORDS[1]}} in
{cases}
  esac
  case $word in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;
    *) COMPREPLY=($(compgen -W {models} -- "$word")) ;;
  esac
}}
complete -o default -F _trit trit
"""


def command(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="For which shell.")],
) -> None:
    """Print a script by which a shell completes commands and flags.

    bash: source <(trit completion bash), in ~/.bashrc. zsh: the same, in ~/.zshrc. fish: trit
    completion fish > ~/.config/fish/completions/trit.fish
    """
    print(script(shell), end="")


def script(shell: str) -> str:
    """The script; UsageError for a shell that is not known."""
    from trit import zoo
    from trit.cli._commands import parser, scan

    if shell not in SHELLS:
        raise UsageError(f"{shell}: expected {', '.join(SHELLS)}.")
    commands = scan()
    options = {entry.name: _options(parser(entry)) for entry in commands}
    if shell == "fish":
        helps = {entry.name: entry.help for entry in commands}
        return _fish(helps, options, list(zoo.models()))
    cases = [
        f"    {'|'.join((entry.name, *entry.aliases))}) "
        f"flags={shlex.quote(' '.join(_flags(options[entry.name])))} ;;"
        for entry in commands
    ]
    made = _BASH.format(
        commands=shlex.quote(" ".join(entry.name for entry in commands)),
        cases="\n".join(cases),
        models=shlex.quote(" ".join(zoo.models())),
    )
    return made if shell == "bash" else "autoload -U +X bashcompinit && bashcompinit\n" + made


def _options(parsed: Any) -> list[tuple[list[str], str]]:
    """Flags of each option, and its help."""
    return [
        ([*each.opts, *each.secondary_opts], each.help or "")
        for each in parsed.params
        if each.param_type_name == "option" and not each.hidden
    ]


def _flags(options: list[tuple[list[str], str]]) -> list[str]:
    return [flag for flags, _ in options for flag in flags if flag.startswith("--")] + ["--help"]


def _fish(
    helps: dict[str, str], options: dict[str, list[tuple[list[str], str]]], models: list[str]
) -> str:
    lines = []
    for name, text in helps.items():
        about = shlex.quote(text)
        lines.append(f"complete -c trit -n __fish_use_subcommand -f -a {name} -d {about}")
    for name, rows in options.items():
        seen = f"complete -c trit -n '__fish_seen_subcommand_from {name}'"
        lines.append(f"{seen} -a {shlex.quote(' '.join(models))}")
        for flags, text in rows:
            longs = " ".join(f"-l {flag[2:]}" for flag in flags if flag.startswith("--"))
            if longs:
                lines.append(f"{seen} {longs} -d {shlex.quote(text)}")
    return "\n".join(lines) + "\n"
