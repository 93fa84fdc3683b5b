"""Options of the commands.

They come from settings and from a file; some are shared by several commands.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer
from typer.models import OptionInfo

from bertft.cli.columns import fitted
from bertft.cli.interrupts import Attentive
from bertft.errors import BertftError
from bertft.runs.progress import SILENT, Progress
from bertft.runs.settings import Settings, suggestion, validated

if typing.TYPE_CHECKING:
    from bertft.study.estimate import Estimate

MODEL_HELP = "Hugging Face id (or id@revision), folder, or builtin:minilm."
SOURCE_HELP = "File (may end in .gz), folder of a saved dataset, hub dataset id (or id@revision), or builtin:synthetic."
SEED_HELP = "Random seed; the same seed gives the same numbers."


# A command's settings as its options ---------------------------------------------------------------------------------


def options(settings: type[Settings], help: Mapping[str, str | OptionInfo | None]) -> Callable[..., Any]:
    """Decorate a command so that ``settings`` become its options.

    Types, defaults and bounds are those of ``settings``. The command receives a dict as its first argument: the values
    of the options, and the settings of a ``--config`` file that are no options (`read_config`).

    Args:
        settings: the settings model.
        help: the options in order. A text describes an option, a ``typer.Option`` replaces the generated one, and None
            marks a parameter of the command itself. Further parameters of the command come last.
    """
    fields: dict[str, Any] = {field.name: field for field in dataclasses.fields(typing.cast(Any, settings))}
    hints = typing.get_type_hints(settings, include_extras=True)
    made = {name: _option(fields[name], hints[name], text) for name, text in help.items() if text is not None}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = {parameter.name: parameter for parameter in own} | made
        order = [*help, *(name for name in parameters if name not in help)]

        @functools.wraps(command)
        def run(context: typer.Context, **given: Any) -> None:
            chosen = {name: given.pop(name) for name in made}
            for name, value in chosen.items():
                if value is not None:
                    validated(hints[name], value, f"--{name.replace('_', '-')}")
            command({**(context.obj or {}), **chosen}, **given)

        first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        signature = [first, *(parameters[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in order)]
        run.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in signature}
        run.hints = {name: hints[name] for name in made}  # type: ignore[attr-defined]
        return run

    return decorate


def _option(field: Any, hint: Any, text: str | OptionInfo) -> inspect.Parameter:
    """Return the parameter from which typer makes the option of a setting."""
    kind = _plain(hint)
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    flag = [f"--{field.name.replace('_', '-')}"] if kind is bool and not default else []
    option = text if isinstance(text, OptionInfo) else typer.Option(*flag, help=text)
    optional = default is None or typing.get_origin(kind) is list
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is dataclasses.MISSING else default,
        annotation=Annotated[Optional[kind] if optional else kind, option],  # noqa: UP045
    )


def _plain(hint: Any) -> Any:
    """Return the type that typer reads for an annotation; bounds are checked by `validated`, which names the value."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _plain(arguments[0])
    if origin is list:
        return list[_plain(arguments[0])]  # type: ignore[misc]
    if origin is Literal:
        return str
    return arguments[0] if origin is Annotated else hint


# Options from a file -------------------------------------------------------------------------------------------------

PLURALS = {"models": "model"}  # how a config.yaml names an option that may be repeated
TRAINING = ("finetune", "ablate")  # commands whose file may hold any setting of `FinetuneConfig`


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the settings in ``path`` the command's defaults; put those that are no options into ``context.obj``."""
    if path is None or context.resilient_parsing:
        return path
    tree = _as_arguments(_read(path))
    words = str(tree.pop("command", "")).split()
    names = _names(context)
    if words and words[: len(names)] != names:
        raise BertftError(f"{path}: expected options of bertft {' '.join(names)}, found those of {' '.join(words)}")
    params = {param.name: param for param in context.command.params if param.name not in ("config", "json", "quiet")}
    if words[len(names) :]:  # the argument of `ablate freeze`
        tree.setdefault("kind", words[len(names)])
    hints = getattr(context.command.callback, "hints", {})
    further = _training_settings() if names[-1] in TRAINING else {}
    found, rest = {}, {}
    for given, value in tree.items():
        name = str(given).replace("-", "_")
        name = name if name in params else PLURALS.get(name, name)
        if value is None:
            continue
        if name in params and params[name].nargs == -1:  # typer takes no default for such an argument from a file
            rest[name] = [str(entry) for entry in value]
        elif name in params:
            if params[name].multiple and not isinstance(value, (list, tuple, Mapping)):
                value = [value]  # once, of what may be repeated
            if _plain(hints.get(name, str)) is not str:
                value = validated(hints[name], value, str(path), str(given))
            found[name] = _as_typed(context, params[name], value, f"{path}: {given}")
        elif name in further:
            rest[name] = validated(further[name], value, str(path), str(given))
        else:
            known = suggestion(name, sorted({*map(str, params), *further}))
            raise BertftError(f"{path}: {given}: no setting of bertft {' '.join(names)}, {known}")
    context.default_map, context.obj = found, rest
    return path


def _as_arguments(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a file with the models of a diff as they are typed: the base first."""
    if tree.get("command") != "diff" or "base" not in tree or not isinstance(tree.get("tuned"), Mapping):
        return tree
    tuned = [f"{name}={model}" for name, model in tree["tuned"].items()]
    others = {name: value for name, value in tree.items() if name not in ("base", "tuned")}
    return {**others, "models": [f"base={tree['base']}", *tuned]}


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
    """Return the words that name the command, without the program: ``["probe", "edge"]``."""
    names: list[str] = []
    here: Any = context
    while here is not None and here.parent is not None:
        names.insert(0, str(here.info_name))
        here = here.parent
    return names or [str(context.info_name).split()[-1]]


def _training_settings() -> dict[str, Any]:
    """Return the annotations of `FinetuneConfig` by setting."""
    from bertft.models.finetuning.config import FinetuneConfig

    return typing.get_type_hints(FinetuneConfig, include_extras=True)


def _as_typed(context: typer.Context, param: Any, value: Any, where: str) -> Any:
    """Return ``value`` as it would be typed, once typer has read it without an error."""
    if isinstance(value, Mapping):
        value = [f"{name}={entry}" for name, entry in value.items()]
    if isinstance(value, (list, tuple)):
        entries = [str(entry) for entry in value]
        value = entries if param.multiple else ",".join(entries)
    elif not isinstance(value, bool):
        value = str(value)
    try:
        param.process_value(context, value)
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's usage errors have it, in every version
            raise
        raise BertftError(f"{where}: {error.format_message()}, found {value!r}") from None
    return value


# Options that commands share -----------------------------------------------------------------------------------------

Out = Annotated[Path, typer.Option("--out", "-o", help="Run folder; an interrupted run resumes in it.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress on stderr.")]
Json = Annotated[bool, typer.Option("--json", help="Print results.csv, or the costs of a dry run, as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Estimate time, disk and memory; do nothing else.")]
Config = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--config", is_eager=True, callback=read_config, metavar="FILE",
        help="YAML file of options, such as another run's config.yaml; the command line takes precedence.",
    ),
]  # fmt: skip


# Use by the commands -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def showing_progress(quiet: bool) -> Iterator[Progress]:
    """Yield a progress bar on stderr, or a silent one."""
    if quiet:
        yield Attentive(SILENT)
        return
    from bertft.cli.console import ConsoleProgress

    with ConsoleProgress() as progress:
        yield Attentive(progress)


def check_paths(models: Iterable[str], texts: Iterable[str | None], out: Path | None) -> None:
    """Refuse paths that cannot be right, before a command imports torch, which takes seconds."""
    from bertft.study import paths

    paths.check_paths(models, filter(None, texts), out)


def tell(line: str, out: Path, as_json: bool) -> None:
    """Print ``line``, or the rows of ``out`` as JSON."""
    if as_json:
        tell_rows([out])
    else:
        print(fitted(line))


def tell_rows(folders: Sequence[Path]) -> None:
    """Print the rows of a run folder as JSON, or of several by folder."""
    from bertft.runs.rows import read_results, results_as_json

    found = {str(folder): results_as_json(read_results(folder / "results.csv")) for folder in folders}
    if len(found) == 1:
        print(*found.values())
    else:
        print(json.dumps({name: json.loads(rows) for name, rows in found.items()}, indent=1, ensure_ascii=False))


def tell_cost(estimate: Estimate, as_json: bool) -> None:
    """Print a forecast as text or as JSON."""
    from bertft.cli.console import shown

    print(shown(estimate, as_json))


def named_encoders(encoders: list[str]) -> dict[str, str]:
    """Return encoders by name: each is ``NAME=encoder``, or an encoder that is named after its last part."""
    from bertft.data.location import encoder_name

    named: dict[str, str] = {}
    for entry in encoders:
        name, equals, source = entry.partition("=")
        if not equals:
            name, source = encoder_name(entry), entry
        if not name or not source:
            raise BertftError(f"{entry!r}: expected an encoder or NAME=encoder")
        if name in named:
            raise BertftError(f"{entry!r}: two encoders are named {name!r}; rename one with NAME=encoder")
        named[name] = source
    return named
