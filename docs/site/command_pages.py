"""The page of the command line, from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer


def leaves(command: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with its names."""
    if hasattr(command, "commands"):  # a group; its class depends on typer's version
        for name, inner in command.commands.items():
            yield from leaves(inner, *names, name)
    else:
        yield names, command


def plain(text: str) -> str:
    """Return help text on one line, safe in a table of Markdown."""
    text = re.sub(r"\[/?(?:bold|dim|cyan)\]", "", " ".join(text.split()))
    return re.sub(r"([|<>*_\[\]{}$`\\])", r"\\\1", text)


def default(option: Any) -> str:
    """Return an option's default as a cell."""
    value = option.default
    if option.required:
        return "required"
    if callable(value) or value is None or value == "" or value is False or value in ([], ()):
        return ""
    return f"`{value}`"


def section(names: tuple[str, ...], command: Any) -> str:
    """Return the section of one command: usage, options, examples."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    given = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    name = " ".join(("bertft", *names))
    words = [str(a.metavar or a.name.upper()) for a in arguments]
    lines = [f"## `{name}`", "", plain(command.help or ""), "", "```", " ".join([name, *words, "[OPTIONS]"]), "```", ""]
    for word, argument in zip(words, arguments, strict=True):
        lines += [f"`{word}`: {plain(argument.help or '')}", ""]
    defaults = [default(option) for option in given]
    columns = ["option", *(["default"] if any(defaults) else []), "meaning"]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for option, value in zip(given, defaults, strict=True):
        flags = ", ".join(f"`{flag}`" for flag in [*option.opts, *option.secondary_opts])
        cells = {"option": flags, "default": value, "meaning": plain(option.help or "")}
        lines.append(f"| {' | '.join(cells[column] for column in columns)} |")
    if command.epilog:
        shown = [line.strip() for line in command.epilog.replace("\\n", "").splitlines() if "[bold]" not in line]
        lines += ["", "```", *(line for line in shown if line), "```"]
    return "\n".join(lines)


def commands() -> str:
    """Return a table of all commands and their sections, in the order of ``bertft --help``."""
    from bertft.cli.app import app

    found = list(leaves(typer.main.get_command(app)))
    table = ["| command | what it does |", "|---|---|"]
    for names, command in found:
        first = plain((command.help or "").split("\n\n")[0])
        table.append(f"| [`bertft {' '.join(names)}`](#bertft-{'-'.join(names)}) | {first} |")
    return "\n\n".join(["\n".join(table), *(section(*leaf) for leaf in found)])
