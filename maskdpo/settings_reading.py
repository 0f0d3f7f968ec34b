"""Settings out of a YAML file and of what was given beside it, or one line that says what is wrong with them."""

import difflib
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from maskdpo.errors import InputError, UserError
from maskdpo.io.yaml_file import read_yaml
from maskdpo.settings import SettingInfo, Settings, settings_of

S = TypeVar("S", bound=Settings)

NO_TEXTS = (bool, int, float, date)
"""What YAML makes of texts such as no, 1.10, 12:30 and 2026-11-28."""


class MissingSetting(UserError):
    """``setting``, which has no default, is not given."""

    def __init__(self, setting: SettingInfo) -> None:
        super().__init__(f"`{setting.name}` is missing")
        self.setting = setting


def load_settings(model: type[S], given: Mapping[str, Any], file: Path | None = None) -> S:
    """Settings from a YAML file, overridden by those that were given.

    Raises:
        MissingSetting: a setting without a default is neither given nor in the file.
        UserError: an unknown key (with the nearest known one), a value of the wrong type or out of its bounds.
    """
    values = of_model(named(read_yaml(file), file), model, file) if file else {}
    try:
        return model.model_validate(values | dict(given))
    except ValidationError as error:
        first = _first_of(error)
        key = str(first["loc"][0]) if first["loc"] else ""
        setting = next((one for one in settings_of(model) if key in (one.name, one.key)), None)
        if first["type"] == "missing" and setting is not None and len(first["loc"]) == 1:
            raise MissingSetting(setting) from None
        if file is not None and key in values and key not in given:
            raise input_error(error, model, file) from None
        if setting is None and key:
            raise UserError(f"{key}: {_unknown(key, model.model_fields)}") from None
        raise UserError(f"`{setting.name}`: {_message(first)}" if setting else _message(first)) from None


def input_error(error: ValidationError, model: type[BaseModel], file: Path, section: str | None = None) -> InputError:
    """The first problem that pydantic has found in a file, with the nearest known name for an unknown key.

    Args:
        section: of a pipeline's file, whose keys are spelled with ``-``; empty for the file as a whole.
    """
    first = _first_of(error)
    keys = {name: field.alias or name for name, field in model.model_fields.items()}
    key = ".".join(keys.get(str(part), str(part)) for part in first["loc"])
    in_pipeline = section is not None
    key = key.replace("_", "-") if in_pipeline else key
    message = _unquoted(first) or _message(first)
    if first["type"] == "extra_forbidden":
        message = _unknown(str(first["loc"][0]), keys.values())
        message = message.replace("setting", "key").replace("_", "-") if in_pipeline else message
    where = ".".join(part for part in (section, key) if part)
    return InputError(message, path=file, field=where or None)


def of_model(values: Mapping[str, Any], model: type[Settings], file: Path, section: str = "") -> dict[str, Any]:
    """What a file of settings says, by field names.

    Raises:
        InputError: a setting is there under both of its names, or is a file that the command takes by its place.
    """
    found: dict[str, Any] = {}
    by_key = {setting.key: setting for setting in settings_of(model)}
    for key, value in values.items():
        name = by_key[key].name if key in by_key else key
        where = ".".join(part for part in (section, key) if part)
        if name in found:
            raise InputError(f"is there twice, the other time as {name}", path=file, field=where)
        if not section and key in by_key and by_key[key].option.argument:
            raise InputError("is given on the command line, not in a file of settings", path=file, field=where)
        found[name] = value
    return found


def _first_of(error: ValidationError) -> Any:
    """The problem to speak of: an unknown key first, for it may be a setting that seems to be missing."""
    problems = error.errors(include_url=False)
    return next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])


def _unknown(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    return "unknown setting" + (f"; did you mean {near[0]!r}?" if near else "")


def _message(problem: Any) -> str:
    if problem["type"] == "missing":
        return "is missing"
    return str(problem["msg"]).removeprefix("Value error, ")


def _unquoted(problem: Any) -> str | None:
    """What to do where a text is needed, and YAML has taken what people wrote for something else."""
    value = problem["input"]
    if problem["type"] not in ("path_type", "string_type", "literal_error") or not isinstance(value, NO_TEXTS):
        return None
    kind = "yes or no" if isinstance(value, bool) else "a number" if isinstance(value, int | float) else "a date"
    return f"a text is needed, and YAML reads this value as {kind}; put quotes around it"


def named(values: Mapping[Any, Any], file: Path | None, section: str = "") -> dict[str, Any]:
    """Keys with ``_``: a file may spell a key with ``-`` or with ``_``, but not one key in both ways."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name in found:
            where = f"{section}.{name}" if section else name
            raise InputError("is there twice, with - and with _", path=file, field=where.replace("_", "-"))
        found[name] = value
    return found
