"""The keys of a section are the options of its command: names, types, limits and defaults come from its signature."""

import difflib
import inspect
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from typer.models import ArgumentInfo, OptionInfo

from maskdpo.errors import InputError

Command = Callable[..., None]


def check_section(section: str, values: Mapping[str, Any], command: Command, file: Path) -> dict[str, Any]:
    """The values by the names of the command's parameters, as the types that it takes.

    Raises:
        InputError: an unknown key (with the nearest known one), a missing one, or a bad value.
    """
    parameters = inspect.signature(command).parameters
    fields = {name: _limited(parameter.annotation) for name, parameter in parameters.items()}
    shape = _model_of(section, fields)
    try:
        found = shape.model_validate(dict(values))
    except ValidationError as error:
        raise first_error(error, file, fields, section) from None
    checked = {name: getattr(found, f"option_{name}") for name in values}
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and checked.get(name) is None:
            raise InputError("is missing", path=file, field=f"{section}.{option_name(name)}")
    return {name: value for name, value in checked.items() if value != parameters[name].default}


def _model_of(section: str, fields: Mapping[str, Any]) -> type[BaseModel]:
    """A model with these options; its own names are longer, for some options are called like methods of pydantic's."""
    options: dict[str, Any] = {f"option_{name}": (kind, Field(None, alias=name)) for name, kind in fields.items()}
    return create_model(section, __config__=ConfigDict(extra="forbid"), **options)


def first_error(error: ValidationError, file: Path, known: Iterable[str], section: str = "") -> InputError:
    """The first problem that pydantic has found, with the nearest known name for an unknown key."""
    problem = error.errors(include_url=False)[0]
    key = option_name(str(problem["loc"][0]))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, [option_name(name) for name in known], 1)
        message = "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    elif problem["type"] == "missing":
        message = "is missing"
    return InputError(message, path=file, field=f"{section}.{key}" if section else key)


def option_name(name: str) -> str:
    """``max_tokens``, which a file may use too, as the command line spells it."""
    return name.strip("_").replace("_", "-")


def full_arguments(command: Command, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, and the command's own defaults for the rest."""
    parameters = inspect.signature(command).parameters
    return {name: given.get(name, parameter.default) for name, parameter in parameters.items()}


def command_line(name: str, command: Command, given: Mapping[str, Any]) -> str:
    """What a user would type to run this command alone."""
    words = ["maskdpo", name]
    for key, parameter in inspect.signature(command).parameters.items():
        value = given.get(key)
        if value is None:
            continue
        if any(isinstance(info, ArgumentInfo) for info in get_args(parameter.annotation)):
            words.insert(2 + sum(not word.startswith("--") for word in words[2:]), str(value))
        elif isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{option_name(key)}")
        else:
            for one in value if isinstance(value, list) else [value]:
                words += [f"--{option_name(key)}", str(one)]
    return shlex.join(words)


def _limited(annotation: Any) -> Any:
    """Typer's least and greatest value, as pydantic knows them."""
    if get_origin(annotation) is not Annotated:
        return annotation
    kind, *infos = get_args(annotation)
    for info in infos:
        if isinstance(info, OptionInfo) and (info.min is not None or info.max is not None):
            return Annotated[kind, Field(ge=info.min, le=info.max)]
    return kind
