"""The stages of a pipeline, with all options checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from maskdpo.errors import InputError, UserError
from maskdpo.io.yaml_file import read_yaml
from maskdpo.pipeline.file import PipelineFile, misfits
from maskdpo.pipeline.wiring import OF_ONE_ROUND, Wired, wire
from maskdpo.redact import line_without_secrets, without_secrets
from maskdpo.settings import Settings, command_line, settings_model, settings_of
from maskdpo.settings_reading import input_error, named, of_model
from maskdpo.stage_run import by_role

Command = Callable[[Any], None]
"""A function of one settings model."""


@dataclass(frozen=True)
class Stage:
    """One call of one command."""

    name: str
    command: str
    call: Command
    settings: Settings

    @property
    def out(self) -> Path | None:
        """What the stage makes; None where it only prints."""
        return getattr(self.settings, "out", None)

    @property
    def outputs(self) -> list[Path]:
        """``out``, and of ``build-pairs`` also the pairs of held-out topics."""
        if self.out is None:
            return []
        second = [self.out.with_name(f"{self.out.stem}.test{self.out.suffix}")]
        return [self.out, *(second if self.command == "build-pairs" else [])]

    @property
    def given(self) -> dict[str, Any]:
        """The settings that differ from their defaults, by the names that files give them."""
        given = self.settings.given()
        return {one.key: given[one.name] for one in settings_of(type(self.settings)) if one.name in given}

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that the stage is given, by the roles that records give them."""
        found: dict[str, Path] = {}
        for key, value in self.given.items():
            files = [value] if isinstance(value, Path) else value if isinstance(value, tuple) else []
            found |= by_role(key, [file for file in files if isinstance(file, Path)])
        return found

    @property
    def line(self) -> str:
        """The command, as it is shown and recorded: without passwords."""
        return line_without_secrets(command_line(self.command, self.settings))

    @property
    def plain(self) -> dict[str, Any]:
        """The given settings as JSON values, without passwords, as they are recorded and compared."""
        return dict(
            without_secrets(self.settings.model_dump(mode="json", by_alias=True, include=set(self.settings.given())))
        )


HINTS = {
    "restart": "use `start`",
    "dry_run": "use `maskdpo run --dry-run`",
    "shard": "a stage makes its whole output; `maskdpo merge` puts the outputs of shards where a pipeline finds them",
}
"""Settings that no section may have, and what to do instead."""


def load_pipeline(file: Path, commands: Mapping[str, Command]) -> list[Stage]:
    """The stages of a file, in their order, with all options checked.

    Raises:
        InputError: no valid YAML, an unknown key (with the nearest known one), a bad or missing value.
    """
    values = named(read_yaml(file), file)
    for key, value in values.items():
        if key == "also_train" and isinstance(value, dict):  # by names, which stay as they are
            sections = value.items()
            values[key] = {own: named(of, file, f"{key}.{own}") if isinstance(of, dict) else of for own, of in sections}
        elif isinstance(value, dict):
            values[key] = named(value, file, key)
    if not values:
        raise InputError("must be a mapping with 'prompts', 'out' and a section for every stage", path=file)
    try:
        spec = PipelineFile(**values)
    except ValidationError as error:
        raise input_error(error, PipelineFile, file, "") from None
    for key, problem in misfits(spec):
        raise InputError(problem, path=file, field=key)
    stages = [_stage(wired, commands[wired.command], file) for wired in wire(spec)]
    if not stages:
        raise InputError("names no stage, such as 'sample:'", path=file)
    return stages


def _stage(wired: Wired, call: Command, file: Path) -> Stage:
    model = settings_model(call)
    section = of_model(wired.section, model, file, wired.name)
    more = Path(str(section.pop("config"))) if section.get("config") is not None else None
    apart = of_model(named(read_yaml(more), more), model, more) if more is not None else {}
    apart = {key: value for key, value in apart.items() if key not in wired.fixed.keys() & OF_ONE_ROUND}
    barred = {*wired.fixed, *HINTS} - ({"dry_run"} if wired.command == "push" else set())  # it takes a folder there
    for key in sorted(barred & (section.keys() | apart.keys())):
        hint = "the pipeline sets it" if key in wired.fixed else HINTS[key]
        where, field = (file, f"{wired.name}.{key.replace('_', '-')}") if key in section else (more, key)
        raise InputError(f"cannot be set here: {hint}", path=where, field=field)
    try:
        return Stage(wired.name, wired.command, call, model.model_validate(apart | section | wired.fixed))
    except ValidationError as error:
        key = str((error.errors(include_url=False)[0]["loc"] or ("",))[0])
        if more is not None and key in apart and key not in section:
            raise input_error(error, model, more) from None
        raise input_error(error, model, file, wired.name) from None
    except UserError as error:  # of a plug-in that cannot be imported
        raise InputError(str(error), path=file, field=wired.name) from None
