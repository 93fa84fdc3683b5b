"""``--config FILE``: a command's options from YAML, such as the ``config.yaml`` of another run; what is typed wins."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from bertft.errors import BertftError

PLURALS = {"models": "model"}  # what a config.yaml calls an option that may be repeated
TRAINING = ("finetune", "ablate")  # commands whose file may hold every setting of a FinetuneConfig


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make what ``path`` holds the command's defaults; settings that are no options (`TRAINING`) go to ``obj``."""
    if path is None or context.resilient_parsing:
        return path
    from bertft.study.reader import build

    tree = _read(path)
    words = str(tree.pop("command", "")).split()
    names = _names(context)
    if words and words[: len(names)] != names:
        raise BertftError(f"{path}: is of the command {' '.join(words)}, expected one of {' '.join(names)}")
    options = {param.name: param for param in context.command.params if param.name not in ("config", "json", "quiet")}
    if words[len(names) :]:  # the argument of `ablate freeze`
        tree.setdefault("kind", words[len(names)])
    further = _training_settings() if names[-1] in TRAINING else {}
    found, rest = {}, {}
    for given, value in tree.items():
        name = str(given).replace("-", "_")
        name = PLURALS.get(name, name)
        if value is None:
            continue
        if name in options:
            found[name] = _converted(context, options[name], value, f"{path}: {given}")
        elif name in further:
            rest[name] = build(further[name], value, str(path), str(given))
        else:
            known = sorted(str(key) for key in {*options, *further})
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected some of {', '.join(known)}"
            raise BertftError(f"{path}: {given}: no setting of bertft {' '.join(names)}, {hint}")
    context.default_map, context.obj = found, rest
    return path


Config = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--config", is_eager=True, callback=read_config, metavar="FILE",
        help="Options from YAML, such as another run's config.yaml; what is typed beside it counts.",
    ),
]  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf8"))
    except OSError as error:
        raise BertftError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BertftError(f"{path}: not valid YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(tree, dict):
        raise BertftError(f"{path}: expected a mapping of options, found {type(tree).__name__}")
    return tree


def _names(context: typer.Context) -> list[str]:
    """The words that name the command, without the program's: ``["probe", "edge"]``."""
    names: list[str] = []
    here: Any = context
    while here is not None and here.parent is not None:
        names.insert(0, str(here.info_name))
        here = here.parent
    return names or [str(context.info_name).split()[-1]]


def _training_settings() -> dict[str, Any]:
    """The types of a `FinetuneConfig`'s settings by name."""
    from bertft.models.finetuning.run import FinetuneConfig

    return typing.get_type_hints(FinetuneConfig)


def _converted(context: typer.Context, param: Any, value: Any, where: str) -> Any:
    """``value`` as the command line writes it, which must be able to read it."""
    if isinstance(value, Mapping):
        value = [f"{name}={entry}" for name, entry in value.items()]
    if isinstance(value, (list, tuple)):
        entries = [str(entry) for entry in value]
        value = entries if param.multiple else ",".join(entries)
    elif param.multiple:
        value = [str(value)]
    elif not isinstance(value, bool):
        value = str(value)
    try:
        param.process_value(context, value)
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's usage errors have it, in every version
            raise
        raise BertftError(f"{where}: {error.format_message()}, found {value!r}") from None
    return value
