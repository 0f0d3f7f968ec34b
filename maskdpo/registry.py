"""Plug-ins: everything that can be chosen by name, ours and other people's, found in one way.

    NAME                     one of ours, or what an installed package offers under this name
    package.module:object    anything that Python can import
    ./file.py:object         anything in a file

An installed package offers judges, backends, splitters and retrievers as entry points of the groups
``maskdpo.judges``, ``maskdpo.backends``, ``maskdpo.splitters`` and ``maskdpo.retrievers``.

A factory (of a judge, a backend, a splitter, a loss) asks for what it needs by the names of its parameters. ``options``
is annotated with a pydantic model of its own, which checks what ``--judge-option KEY=VALUE`` and its like give.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from maskdpo.errors import UserError, first_problem

T = TypeVar("T")


class Plugin(NamedTuple):
    """What ``maskdpo plugins`` shows of one entry."""

    kind: str
    name: str
    origin: str
    """``maskdpo``, or the package that brings it."""


@dataclass(frozen=True)
class Registry(Generic[T]):
    """All things of one kind, by name."""

    kind: str
    """``judge``, ``loss`` ...: what errors call the things, and the setting by which one is chosen."""
    ours: Mapping[str, T | str]
    """Objects, or ``package.module:object`` for those that are imported when they are asked for."""
    group: str | None = None
    """The group of entry points, where packages may offer more."""
    check: Callable[[Any], str | None] = field(default=lambda found: None)
    """What is wrong with an object that was found, or None."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.ours)

    def __len__(self) -> int:
        return len(self.ours)

    def __contains__(self, name: object) -> bool:
        return name in self.ours

    def __getitem__(self, name: str) -> T:
        """The thing of this name.

        Raises:
            UserError: there is none, it cannot be imported, or it is of another kind.
        """
        try:
            self.check_name(name)
        except ValueError as error:
            raise UserError(str(error)) from None
        if name in self.ours:
            found = self.ours[name]
            return typing.cast(T, _load(found, name, self.kind) if isinstance(found, str) else found)
        offered = self.offered()
        found = _load(offered[name].value if name in offered else name, name, self.kind, in_folder=True)
        if problem := self.check(found):
            raise UserError(f"`{self.kind}` {name}: {problem}")
        return typing.cast(T, found)

    def check_name(self, name: str) -> None:
        """Without importing anything.

        Raises:
            ValueError: nothing is called so.
        """
        if name not in self.ours and ":" not in name and name not in self.offered():
            known = ", ".join([*self.ours, *self.offered()])
            raise ValueError(
                f"unknown {self.kind} {name!r}; known: {known}, and package.module:object or ./file.py:object for one "
                "of your own"
            )

    def offered(self) -> dict[str, Any]:
        """Entry points of installed packages, by name."""
        return {point.name: point for point in entry_points(group=self.group)} if self.group else {}

    def list(self) -> list[Plugin]:
        ours = [Plugin(self.kind, name, "maskdpo") for name in self.ours]
        return ours + [
            Plugin(self.kind, name, point.dist.name if point.dist else point.value)
            for name, point in self.offered().items()
        ]


def problem_of_a_function(found: Any) -> str | None:
    """The check of a registry of functions."""
    return None if inspect.isroutine(found) else f"is no function, but {type(found).__name__}"


def named_in(registry: str) -> AfterValidator:
    """Marks a setting as a name in a registry, ``package.module:OBJECT``, which is imported when a name is checked."""

    def check(name: str | None) -> str | None:
        if name is not None:
            _load(registry, registry, "registry").check_name(name)
        return name

    return AfterValidator(check)


def asks_for(factory: Any, parameter: str) -> bool:
    """Whether a factory has a parameter of this name."""
    return callable(factory) and parameter in _parameters(factory)


def make(
    kind: str,
    name: str,
    factory: Any,
    options: Mapping[str, Any],
    *,
    on_demand: Mapping[str, Callable[[], Any]] = MappingProxyType({}),
    **offered: Any,
) -> Any:
    """Call a factory with what its parameters ask for.

    Args:
        options: for the factory's own options, unchecked.
        on_demand: what is made only for a factory that asks for it by this name.
        offered: what else a factory may ask for.

    Raises:
        UserError: the options do not fit, or a parameter asks for something that is not offered.
    """
    if not callable(factory):  # a ready object in place of a factory
        if options:
            raise UserError(f"`{kind}` {name} is an object, no factory, so it takes no options: {', '.join(options)}")
        return factory
    wanted = _parameters(factory)
    if options and "options" not in wanted:
        raise UserError(f"`{kind}` {name} takes no options of its own: {', '.join(options)}")
    arguments: dict[str, Any] = {}
    for parameter in wanted.values():
        if parameter.name == "options":
            model = _options_model(kind, name, factory)
            arguments["options"] = checked_options(kind, name, model, options)
        elif parameter.name in on_demand:
            arguments[parameter.name] = on_demand[parameter.name]()
        elif parameter.name in offered:
            arguments[parameter.name] = offered[parameter.name]
        elif parameter.default is parameter.empty:
            known = ", ".join(["options", *on_demand, *offered])
            raise UserError(f"`{kind}` {name}: its factory has a parameter {parameter.name!r}; known are: {known}")
    return factory(**arguments)


def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a builtin: it is called without arguments
        return {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: parameter for name, parameter in parameters.items() if parameter.kind in named}


def _options_model(kind: str, name: str, factory: Callable[..., Any]) -> type[BaseModel]:
    target = factory.__init__ if inspect.isclass(factory) else factory
    model = typing.get_type_hints(target).get("options")
    if not (inspect.isclass(model) and issubclass(model, BaseModel)):
        raise UserError(f"`{kind}` {name}: annotate the parameter 'options' of its factory with a pydantic model")
    return model


def checked_options(kind: str, name: str, model: type[BaseModel], options: Mapping[str, Any]) -> BaseModel:
    """The options of a plug-in as its own model.

    Raises:
        UserError: an option is unknown, of the wrong type or out of its bounds.
    """
    known = [field.alias or name for name, field in model.model_fields.items()]
    if unknown := [key for key in options if key not in known]:
        raise UserError(f"`{kind}` {name}: unknown option {unknown[0]!r}; known: {', '.join(known) or 'none'}")
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        field, message = first_problem(error)
        raise UserError(f"`{kind}` {name}: {field or ''}: {message}") from None


def _load(target: str, name: str, kind: str, *, in_folder: bool = False) -> Any:
    """Import ``package.module:object`` or ``./file.py:object``. What goes wrong inside keeps its traceback.

    Args:
        in_folder: whether the module may lie in the current folder.
    """
    module_name, _, attribute = target.rpartition(":")
    try:
        if module_name.endswith(".py"):
            module = _module_of(Path(module_name))
        else:
            if in_folder and "" not in sys.path:
                sys.path.append("")
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not module_name.startswith(error.name or "?"):
            raise  # the module is there; something that it imports is not
        raise UserError(f"`{kind}` {name}: cannot be imported: {error}. Is its folder on PYTHONPATH?") from None
    except (FileNotFoundError, SyntaxError, ValueError, TypeError) as error:
        raise UserError(f"`{kind}` {name}: cannot be imported: {error}") from None
    if not hasattr(module, attribute):
        raise UserError(f"`{kind}` {name}: {module_name} has no {attribute!r}")
    return getattr(module, attribute)


def _module_of(file: Path) -> Any:
    """The module in a file, which is run once per process."""
    path = file.expanduser().resolve()
    module_name = f"maskdpo_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    return sys.modules[module_name]
