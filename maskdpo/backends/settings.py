"""The settings of who runs a model, and how: the same for every command that generates text."""

from typing import Annotated

from pydantic import Field

from maskdpo.models import Dtype
from maskdpo.registry import named_in
from maskdpo.settings import DEVICE_HELP, TEMPLATE_OPTION_HELP, KeyValues, Option, Settings

PANEL = "Backend"


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
        str | None,
        Option("`openai`: URL of the server, mostly ending in /v1; the key is read from $OPENAI_API_KEY.", PANEL),
    ] = None
    concurrency: Annotated[int, Field(ge=1, le=1000), Option("`openai`: requests under way at once.", PANEL)] = 32
    requests_per_minute: Annotated[
        float | None, Field(gt=0), Option("`openai`: pace of the requests. [default: no limit]", PANEL)
    ] = None
    tokens_per_minute: Annotated[
        float | None, Field(gt=0), Option("`openai`: pace in prompt and completion tokens. [default: no limit]", PANEL)
    ] = None
    timeout: Annotated[float, Field(gt=0), Option("`openai`: seconds to wait for one reply.", PANEL)] = 300.0
    max_retries: Annotated[
        int,
        Field(ge=0),
        Option("`openai`: further attempts after a rate limit, a server error or a broken connection.", PANEL),
    ] = 5
    tokenizer: Annotated[
        str | None,
        Option(
            "`openai`: model folder or Hub id whose tokenizer counts tokens. [default: the server's own]",
            PANEL,
        ),
    ] = None
    max_model_len: Annotated[
        int | None,
        Field(ge=16),
        Option("`vllm`, `openai`: longest prompt and reply in tokens. [default: what the model can do]", PANEL),
    ] = None
    tensor_parallel_size: Annotated[int, Field(ge=1), Option("`vllm`: GPUs that share the model.", PANEL)] = 1
    gpu_memory_utilization: Annotated[
        float,
        Field(ge=0.01, le=1),
        Option("`vllm`: share of the memory of every GPU to take; on a CPU, of the main memory.", PANEL),
    ] = 0.9
    batch_size: Annotated[int, Field(ge=1), Option("`transformers`: rows per forward pass.", PANEL)] = 64
    dtype: Annotated[
        Dtype, Option("`transformers`: compute type; `auto` is bfloat16 where the hardware computes in it.", PANEL)
    ] = "auto"
    device: Annotated[str | None, Option(f"`transformers`: {DEVICE_HELP}", PANEL)] = None
    template_options: Annotated[
        KeyValues,
        Field(alias="template_option"),
        Option(
            f"{TEMPLATE_OPTION_HELP} A server gets them as chat_template_kwargs, which vLLM and SGLang know.",
            PANEL,
            metavar="KEY=VALUE",
        ),
    ] = {}
    backend_options: Annotated[
        KeyValues,
        Field(alias="backend_option"),
        Option("KEY=VALUE for a backend of your own; repeat the option for more.", PANEL, metavar="KEY=VALUE"),
    ] = {}


DEFAULTS = BackendSettings()
