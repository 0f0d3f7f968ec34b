"""Typer reads the options of a command from its signature: here a settings model becomes that signature."""

import inspect
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import typer
from typer.core import TyperCommand, TyperOption

from maskdpo import console
from maskdpo.errors import UserError
from maskdpo.settings import SettingInfo, interrupted, settings_model, settings_of
from maskdpo.settings_reading import MissingSetting, load_settings

ConfigFile = Annotated[
    Path | None,
    typer.Option(help="YAML file with settings, by the names of the options; options override it.", show_default=False),
]


def register(app: typer.Typer, name: str, command: Callable[[Any], None]) -> None:
    """Add a function of one settings model to the application, as the command ``name``."""
    model = settings_model(command)
    settings = settings_of(model)

    def run(context: typer.Context, config: Path | None, **values: Any) -> None:
        console.call_settings({setting.name: setting.flags[0] for setting in settings if not setting.option.argument})
        told = {key: value for key, value in values.items() if _is_given(context, key)}
        try:
            loaded = load_settings(model, told, config)
        except MissingSetting as error:
            flag = error.setting.flags[0]
            if config is None:
                context.fail(f"Missing option '{flag}'.")
            raise UserError(f"{flag} is missing: give it as an option or in {config}") from None
        try:
            command(loaded)
        except KeyboardInterrupt:  # Typer would end without a word
            raise interrupted(loaded) from None

    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, annotation=ConfigFile, default=None)
    run.__signature__ = inspect.Signature([context, *map(_parameter, settings), config])  # type: ignore[attr-defined]
    run.__annotations__ = {}
    app.command(name, cls=_OptionsOnce, help=inspect.getdoc(command))(run)


class _OptionsOnce(TyperCommand):
    """Refuses an option that is given twice where one counts, of which the last would count without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        *_, given = self.make_parser(ctx).parse_args(args=list(args))
        for option, times in Counter(given).items():
            if times > 1 and isinstance(option, TyperOption) and not option.multiple:
                raise UserError(f"{option.opts[0]} is given {times} times, and one value counts")
        return super().parse_args(ctx, args)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _parameter(setting: SettingInfo) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    if setting.option.argument:
        argument = typer.Argument(
            help=setting.help, show_default=False, metavar=setting.option.metavar or setting.name.upper()
        )
        given: Any = list[Path] if get_origin(setting.type) is tuple else setting.type
        return inspect.Parameter(setting.name, kind, annotation=Annotated[given, argument])
    shown = not (setting.default is None or setting.default is False or setting.default in ({}, ()))
    number = setting.type in (int, float)
    option = typer.Option(
        "/".join(setting.flags) if setting.type is bool else setting.flags[0],
        help=setting.help + (" [required]" if setting.required else ""),
        rich_help_panel=setting.option.panel,
        show_default=shown,
        metavar=setting.option.metavar,
        min=setting.low if number else None,
        max=setting.high if number else None,
    )
    several = get_origin(setting.type) in (dict, tuple, list)
    default = None if several else setting.default
    read_as: Any = list[str] if several else _single(setting.type)
    return inspect.Parameter(setting.name, kind, annotation=Annotated[read_as | None, option], default=default)


def _single(annotated: Any) -> Any:
    """The type that Typer reads; other types than these are read as texts, and made by pydantic."""
    return annotated if annotated in (int, float, bool, Path) or get_origin(annotated) is Literal else str
