"""Settings: one pydantic model per command. Everything that speaks of settings is derived from these models.

From the model of a command follow its options on the command line, the keys of ``--config FILE`` and of a section of
``pipeline.yaml``, the recorded command line, and the table of options in docs/.

    class CutSettings(Settings):
        out: Annotated[Path, Option("File to write.")]
        width: Annotated[int, Field(ge=1), Option("Characters per line.", panel="Layout")] = 80
"""

import json
import shlex
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticUndefined

from maskdpo.console import counted
from maskdpo.errors import Interrupted
from maskdpo.io import with_config

S = TypeVar("S", bound="Settings")

INPUT = "JSONL, Parquet, Arrow, a dataset folder, or `hub:user/name`"


class Settings(BaseModel):
    """The settings of one command. A field that is spelled otherwise outside of Python has an alias."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True, hide_input_in_errors=True
    )

    def given(self) -> dict[str, Any]:
        """The settings that differ from their defaults, by field name."""
        return {name: value for name, value in self if value != type(self).model_fields[name].default}

    @property
    def continues(self) -> bool:
        """Whether the command keeps what its output holds already. Others make all of it again whenever they run."""
        return "restart" in type(self).model_fields

    def but(self, **changes: Any) -> Self:
        """The same settings with a few changes, which are not validated."""
        return self.model_copy(update=changes)


@dataclass(frozen=True)
class Option:
    """What a field is on the command line and in docs/, beside its type, its default and its bounds."""

    help: str
    panel: str | None = None
    """The heading under which ``--help`` lists the option."""
    argument: bool = False
    """A file that the command reads, given by its place and not by a name."""
    metavar: str | None = None
    flags: str | None = None
    """``--private/--public``, where the two sides of a boolean are not ``--name/--no-name``."""
    used_by: tuple[str, ...] = ()
    """Which of the backends, judges or losses use the setting, where not all do: help and tables begin with them."""


class SettingInfo(NamedTuple):
    """One field of a settings model, taken apart."""

    name: str
    key: str
    """The field's alias, or else its name: how files and the command line spell the setting, less ``-`` for ``_``."""
    type: Any
    """The annotated type without ``None``."""
    option: Option
    default: Any
    required: bool
    low: float | None
    high: float | None

    @property
    def spelled(self) -> str:
        return self.key.replace("_", "-")

    @property
    def help(self) -> str:
        """The meaning, behind the names of those that use the setting where not all do."""
        users = ", ".join(f"`{name}`" for name in self.option.used_by)
        return f"{users}: {self.option.help}" if users else self.option.help

    @property
    def flags(self) -> list[str]:
        """What to write on the command line: a boolean that is on by default has a second flag, which turns it off."""
        if self.option.flags:
            return self.option.flags.split("/")
        return [f"--{self.spelled}", *([f"--no-{self.spelled}"] if self.default is True else [])]


def settings_of(model: type[Settings]) -> list[SettingInfo]:
    """All fields in the order in which help and tables show them: arguments first, then panel by panel."""
    found = []
    for name, field in model.model_fields.items():
        option = next((item for item in field.metadata if isinstance(item, Option)), Option(""))
        low, high = (
            next((getattr(item, bound) for item in field.metadata if isinstance(item, kind)), None)
            for kind, bound in ((Ge, "ge"), (Le, "le"))
        )
        default = None if field.default is PydanticUndefined else field.default
        key = field.alias or name
        found.append(
            SettingInfo(name, key, _without_none(field.annotation), option, default, field.is_required(), low, high)
        )
    panels = list(dict.fromkeys(setting.option.panel for setting in found))
    order = [None, *(panel for panel in panels if panel is not None)]
    return sorted(found, key=lambda setting: (not setting.option.argument, order.index(setting.option.panel)))


def settings_model(command: Callable[[Any], None]) -> type[Settings]:
    """The settings model that a command takes, by the annotation of its only parameter."""
    model: type[Settings] = get_type_hints(command)["settings"]
    return model


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        rest = [part for part in get_args(annotation) if part is not NoneType]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


# --- types of fields ---------------------------------------------------------------------------------


def records(config: Literal["prompts", "annotations", "pairs"]) -> BeforeValidator:
    """Marks a path as one to records: where a dataset's name leaves open what of it is meant, it is this config."""
    return BeforeValidator(lambda value: with_config(Path(value), config) if isinstance(value, str | Path) else value)


def several(config: Literal["prompts", "annotations"] | None) -> BeforeValidator:
    """One path or several, each to records of this kind; None: a dataset's name says what is meant."""

    def read(given: Any) -> Any:
        many = [given] if isinstance(given, str | Path) else [] if given is None else given
        if not isinstance(many, list | tuple):
            return many
        paths = (Path(one) if isinstance(one, str) else one for one in many)
        return tuple(with_config(one, config) if config and isinstance(one, Path) else one for one in paths)

    return BeforeValidator(read)


MODEL_HELP = "`smollm2` (the small model out of a PyPI wheel), a model folder, or a Hub id."
DEVICE_HELP = "`cpu`, `cuda`, `cuda:1` (the second GPU) or `mps`. [default: the first of cuda, mps, cpu that is there]"
TEMPLATE_OPTION_HELP = (
    "KEY=VALUE for the chat template, such as enable_thinking=false; repeat the option for more. VALUE is JSON, or "
    "else a text."
)


PromptsFile = Annotated[Path, records("prompts"), Option(f"Prompt records: {INPUT}.", argument=True)]
AnnotationsFile = Annotated[Path, records("annotations"), Option(f"Annotation records: {INPUT}.", argument=True)]
AnnotationsFiles = Annotated[
    tuple[Path, ...],
    Field(min_length=1),
    several("annotations"),
    Option(f"Annotation records, of one file or several: {INPUT}.", argument=True, metavar="ANNOTATIONS..."),
]
PairsFile = Annotated[Path, records("pairs"), Option(f"Pair records: {INPUT}.", argument=True)]
OptionalPrompts = Annotated[
    Path | None,
    records("prompts"),
    Option(f"Prompt records, for topics, questions and references: {INPUT}.", metavar="PROMPTS"),
]
Model = Annotated[str, Option(MODEL_HELP)]
Restart = Annotated[bool, Option("Set an earlier output aside (.bak) and begin anew, instead of continuing.")]
Seed = Annotated[
    int, Field(ge=0), Option("The same seed gives the same draws (rounding may differ with the size of the batch).")
]
DryRun = Annotated[
    bool,
    Option("Only forecast calls, tokens and cost from a part of the input: no model is asked, nothing is written."),
]
Limit = Annotated[
    int | None,
    Field(ge=1),
    Option(
        "Only the first N records of the input, for a first try; the command without this option goes on.", metavar="N"
    ),
]
SummaryFile = Annotated[Path | None, Option("Also write the figures of the run to this file, as JSON.")]


def _key_values(given: Any) -> Any:
    """A mapping of JSON values, out of texts of the form KEY=VALUE. VALUE is JSON, or else a text."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        if wrong := [key for key in given if not str(key).isidentifier()]:
            raise ValueError(f"{wrong[0]!r} is no name of an option")
        return json.loads(json.dumps({str(key): value for key, value in given.items()}, default=str))
    if not isinstance(given, list | tuple):
        return given
    values: dict[str, Any] = {}
    for one in given:
        key, equals, value = str(one).partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"{one!r} is not of the form KEY=VALUE")
        if key in values:
            raise ValueError(f"{key} is given twice")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values


KeyValues = Annotated[dict[str, Any], BeforeValidator(_key_values)]
"""On the command line KEY=VALUE, as often as there are keys; in a file a mapping, or a list of KEY=VALUE."""

# --- from settings to command lines --------------------------------------------------------------------


def command_words(command: str, settings: Settings) -> list[str]:
    """What to write behind ``maskdpo`` to run a command with these settings."""
    files: list[str] = []
    options: list[str] = []
    for setting in settings_of(type(settings)):
        value = getattr(settings, setting.name)
        if setting.option.argument:
            files += map(str, value) if isinstance(value, list | tuple) else [str(value)]
        elif value != setting.default:
            options += _words(setting, value)
    if any(file.startswith("-") for file in files):
        return [command, *options, "--", *files]
    return [command, *files, *options]


def command_line(command: str, settings: Settings) -> str:
    return shlex.join(["maskdpo", *command_words(command, settings)])


def _words(setting: SettingInfo, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [setting.flags[0] if value else setting.flags[-1]]
    if isinstance(value, dict):
        value = [f"{key}={json.dumps(one, ensure_ascii=False, default=str)}" for key, one in value.items()]
    every = value if isinstance(value, list | tuple) else [value]
    return [word for one in every for word in (setting.flags[0], str(one))]


# --- a command that was stopped ------------------------------------------------------------------------


def interrupted(settings: Settings) -> Interrupted:
    """What Ctrl-C leaves behind, and how to go on."""
    out = getattr(settings, "out", None)
    if not settings.continues or not isinstance(out, Path) or not out.exists():
        kept = "nothing was written"
    elif out.is_dir():
        kept = f"the steps up to the last checkpoint are kept in {out}"
    else:
        with out.open("rb") as file:
            kept = f"{counted(sum(1 for _ in file), 'record is', 'records are')} kept in {out}"
    return Interrupted(f"interrupted; {kept}. Repeat the same command to go on", signal.SIGINT)
