"""Text generation behind one protocol (``base.Backend``), for ``sample`` and for LLM judges.

To add one: a class in its own module and a line in ``make_backend``.
"""

from collections.abc import Mapping
from typing import Any, Literal

from maskdpo.backends.base import Backend
from maskdpo.chat import check_options
from maskdpo.errors import UserError

BackendName = Literal["transformers", "vllm", "openai"]


def make_backend(
    name: BackendName,
    model: str,
    *,
    api_base: str | None = None,
    concurrency: int = 32,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    timeout: float = 300.0,
    max_retries: int = 5,
    tokenizer: str | None = None,
    max_model_len: int | None = None,
    tensor_parallel_size: int = 1,
    gpu_memory_utilization: float = 0.9,
    batch_size: int = 64,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str | None = None,
    template_options: Mapping[str, Any] | None = None,
) -> Backend:
    """A backend by name; models are loaded at the first request.

    What a backend has no use for is ignored, except ``api_base`` and ``device``, which are refused.
    """
    if template_options:
        check_options(template_options)
    if api_base is not None and name != "openai":
        raise UserError(f"--api-base goes with --backend openai, not with {name}")
    if device is not None and name != "transformers":
        raise UserError(f"--device goes with --backend transformers, not with {name}")
    if name == "openai":
        from maskdpo.backends.openai_backend import OpenAIBackend

        return OpenAIBackend(
            model,
            api_base=api_base,
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            timeout_s=timeout,
            max_retries=max_retries,
            tokenizer=tokenizer,
            max_model_len=max_model_len,
            template_options=template_options,
        )
    if name == "vllm":
        from maskdpo.backends.vllm_backend import VLLMBackend

        return VLLMBackend(
            model,
            tensor_parallel_size=tensor_parallel_size,
            max_model_len=max_model_len,
            gpu_memory_utilization=gpu_memory_utilization,
            template_options=template_options,
        )
    from maskdpo.backends.transformers_backend import TransformersBackend

    return TransformersBackend(
        model, batch_size=batch_size, dtype=dtype, device=device, template_options=template_options
    )
