"""The settings of who runs a model, and how: the same for every command that generates text."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from maskdpo.backends.price import figures
from maskdpo.devices import Dtype
from maskdpo.registry import named_in
from maskdpo.settings import DEVICE_HELP, TEMPLATE_OPTION_HELP, KeyValues, Option, Settings, settings_of

PANEL = "Backend"
TRANSFORMERS, VLLM, OPENAI = ("transformers",), ("vllm",), ("openai",)
OWN_FIELDS = frozenset({"model", "messages", "prompt", "n", "stream", "chat_template_kwargs"})
"""Fields of requests that other settings decide, or that replies are read by."""


def _headers(given: Any) -> Any:
    """A mapping, out of texts of the form NAME=VALUE. No error repeats a value."""
    if not isinstance(given, list | tuple):
        return given or {}
    headers: dict[str, str] = {}
    for one in given:
        name, equals, value = str(one).partition("=")
        if not equals or not re.fullmatch(r"[\w-]+", name, re.ASCII):
            raise ValueError("must be of the form NAME=VALUE")
        if name in headers:
            raise ValueError(f"{name} is given twice")
        headers[name] = value
    return headers


def _no_fields_of_their_own(extra: dict[str, Any]) -> dict[str, Any]:
    if own := OWN_FIELDS & extra.keys():
        raise ValueError(f"{min(own)!r} cannot be set here: other settings decide it")
    return extra


def _is_price(given: str | None) -> str | None:
    if given is not None:
        figures(given)
    return given


class BackendSettings(Settings):
    """Who runs a model, and how."""

    backend: Annotated[
        str,
        named_in("maskdpo.backends:BACKENDS"),
        Option(
            "Who runs the model: this process (`transformers`, `vllm`), a server that speaks the OpenAI API "
            "(`openai`), or a backend of your own.",
            PANEL,
        ),
    ] = "transformers"
    api_base: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda given: (given,) if isinstance(given, str) else given or ()),
        Option(
            "URL of the server, mostly ending in /v1; the key is read from $OPENAI_API_KEY. Repeat the option for "
            "several servers of the same model. [default: $OPENAI_BASE_URL, or OpenAI]",
            PANEL,
            metavar="URL",
            used_by=OPENAI,
        ),
    ] = ()
    concurrency: Annotated[
        int, Field(ge=1, le=1000), Option("requests under way at once, for each server.", PANEL, used_by=OPENAI)
    ] = 32
    requests_per_minute: Annotated[
        float | None,
        Field(gt=0),
        Option("pace of the requests to each server. [default: no limit]", PANEL, used_by=OPENAI),
    ] = None
    tokens_per_minute: Annotated[
        float | None,
        Field(gt=0),
        Option("pace in prompt and completion tokens, for each server. [default: no limit]", PANEL, used_by=OPENAI),
    ] = None
    timeout: Annotated[float, Field(gt=0), Option("seconds to wait for one reply.", PANEL, used_by=OPENAI)] = 300.0
    max_retries: Annotated[
        int,
        Field(ge=0),
        Option("further attempts after a rate limit, a server error or a broken connection.", PANEL, used_by=OPENAI),
    ] = 5
    tokenizer: Annotated[
        str | None,
        Option(
            "model folder or Hub id whose tokenizer counts tokens. [default: the server's own]",
            PANEL,
            used_by=OPENAI,
        ),
    ] = None
    price: Annotated[
        str | None,
        BeforeValidator(lambda given: ",".join(map(str, given)) if isinstance(given, list | tuple) else given),
        AfterValidator(_is_price),
        Option(
            "dollars per million tokens of prompts and of replies, such as 0.15,0.6, or of prompts, prompts out of the "
            "server's cache, and replies. [default: what genai-prices lists for the server's URL, if anything]",
            PANEL,
            metavar="IN[,CACHED],OUT",
            used_by=OPENAI,
        ),
    ] = None
    max_cost: Annotated[
        float | None,
        Field(gt=0),
        Option(
            "stop before the output, with all runs that it took, has cost more than so many dollars. [default: no "
            "limit]",
            PANEL,
            metavar="USD",
            used_by=OPENAI,
        ),
    ] = None
    workers: Annotated[
        int | None,
        Field(ge=1, le=1000),
        Option(
            "processes that hold the model, each by itself, on the cluster of $RAY_ADDRESS or on this machine (Ray). "
            "[default: this process holds it]",
            PANEL,
            metavar="N",
            used_by=TRANSFORMERS + VLLM,
        ),
    ] = None
    gpus_per_worker: Annotated[
        float | None,
        Field(ge=0),
        Option(
            "GPUs for each of the `workers`; 0.5 lets two of them share one. [default: 1 where the cluster has GPUs, "
            "with `vllm` `tensor_parallel_size`]",
            PANEL,
            metavar="GPUS",
            used_by=TRANSFORMERS + VLLM,
        ),
    ] = None
    max_model_len: Annotated[
        int | None,
        Field(ge=16),
        Option("longest prompt and reply in tokens. [default: what the model can do]", PANEL, used_by=VLLM + OPENAI),
    ] = None
    tensor_parallel_size: Annotated[int, Field(ge=1), Option("GPUs that share the model.", PANEL, used_by=VLLM)] = 1
    gpu_memory_utilization: Annotated[
        float,
        Field(ge=0.01, le=1),
        Option("share of the memory of every GPU to take; on a CPU, of the main memory.", PANEL, used_by=VLLM),
    ] = 0.9
    batch_size: Annotated[int, Field(ge=1), Option("rows per forward pass.", PANEL, used_by=TRANSFORMERS)] = 64
    dtype: Annotated[
        Dtype,
        Option("compute type; `auto` is bfloat16 where the hardware computes in it.", PANEL, used_by=TRANSFORMERS),
    ] = "auto"
    device: Annotated[str | None, Option(DEVICE_HELP, PANEL, used_by=TRANSFORMERS)] = None
    template_options: Annotated[
        KeyValues,
        Field(alias="template_option"),
        Option(
            f"{TEMPLATE_OPTION_HELP} A server gets them as chat_template_kwargs, which vLLM and SGLang know.",
            PANEL,
            metavar="KEY=VALUE",
        ),
    ] = {}
    headers: Annotated[
        dict[str, SecretStr],
        BeforeValidator(_headers),
        Field(alias="header"),
        Option(
            "a header of every request, such as 'api-key=$AZURE_API_KEY', where $NAME is a variable of the "
            "environment; repeat the option for more. Values are not recorded.",
            PANEL,
            metavar="NAME=VALUE",
            used_by=OPENAI,
        ),
    ] = {}
    extra: Annotated[
        KeyValues,
        AfterValidator(_no_fields_of_their_own),
        Option(
            'a further field of every request, such as enable_thinking=false or provider=\'{"sort": '
            '"price"}\'; repeat the option for more. VALUE is JSON, or else a text.',
            PANEL,
            metavar="KEY=VALUE",
            used_by=OPENAI,
        ),
    ] = {}
    backend_options: Annotated[
        KeyValues,
        Field(alias="backend_option"),
        Option("KEY=VALUE for a backend of your own; repeat the option for more.", PANEL, metavar="KEY=VALUE"),
    ] = {}

    @model_validator(mode="after")
    def _workers_hold_a_model(self) -> Self:
        if self.backend == "openai" and self.workers is not None:
            raise ValueError(
                "`workers` hold a model, and with `backend` openai servers do: give several servers of the model as "
                "`api_base`, and what each of them takes at once as `concurrency`"
            )
        gpus = self.gpus_per_worker
        if gpus is not None and self.workers is None:
            raise ValueError("`gpus_per_worker` goes with `workers`")
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"`gpus_per_worker` is a part of one GPU or a whole number, not {gpus:g}")
        return self

    @model_validator(mode="after")
    def _no_unused_settings(self) -> Self:
        refuse_unused(self, "backend", unused_by(self.backend))
        return self


def unused_by(backend: str) -> dict[str, tuple[str, ...]]:
    """The settings that are for other backends, with who uses them.

    A backend that no setting names is somebody's own, and may use all of them.
    """
    uses = {setting.name: users for setting in settings_of(BackendSettings) if (users := setting.option.used_by)}
    if all(backend not in users for users in uses.values()):
        return {}
    return {name: users for name, users in uses.items() if backend not in users}


def refuse_unused(settings: Settings, choice: str, unused: Mapping[str, tuple[str, ...]]) -> None:
    """A setting that would be ignored is an error.

    Args:
        choice: the setting that decides: ``backend`` or ``judge``.
        unused: settings that the chosen one ignores, with who uses them.

    Raises:
        ValueError: one of these settings differs from its default.
    """
    given = settings.given()
    for name, users in unused.items():
        if name in given:
            raise ValueError(
                f"`{name}` goes with `{choice}` {' or '.join(users)}, not with {getattr(settings, choice)}"
            )


DEFAULTS = BackendSettings()
