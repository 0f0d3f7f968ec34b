"""vLLM in this process: windows of requests, a shared prefix cache, constrained decoding for choices."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Any

from maskdpo.backends.base import Completion, Context, Failure, Reply, Request, gather, request_seed
from maskdpo.backends.probability import ScoredToken
from maskdpo.backends.reasoning import ChatReader, readers, text_completion
from maskdpo.backends.settings import DEFAULTS, BackendSettings
from maskdpo.backends.structured import read_object, read_word, verdict_schema
from maskdpo.devices import compute_type
from maskdpo.errors import UserError
from maskdpo.extras import require
from maskdpo.models import resolve_model
from maskdpo.schemas import Status

if TYPE_CHECKING:
    from vllm import LLM, CompletionOutput, SamplingParams

WINDOW = 4096
"""Requests that are passed to vLLM at once: enough for a full batch, few enough to save progress often."""
TOP_LOGPROBS = 20
"""The most log-probabilities per token that vLLM reports by default."""


class VLLMBackend:
    """A model that vLLM runs in this process. It is loaded at the first request and stays in memory.

    Args:
        model: a model folder, a Hub id, or ``smollm2``.
        settings: those of ``vllm``.
    """

    def __init__(self, model: str, settings: BackendSettings = DEFAULTS) -> None:
        self.model = model
        self.settings = settings
        self.template_options = settings.template_options
        self.today: date | None = None
        self._reader_on = readers(model, self.template_options)
        self._loaded: LLM | None = None

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one reply per request, a window at a time; see ``Backend``."""
        waiting = iter(requests)
        while window := list(islice(waiting, WINDOW)):
            yield from self._run(window)

    def context(self) -> Context:
        """See ``Backend``."""
        return Context(self._llm().model_config.max_model_len, self.count)

    def count(self, text: str) -> int:
        """The tokens of a text, without the model."""
        return self._reader.count(text)

    def writes_date(self) -> bool:
        """See ``Backend``."""
        return self._reader.chat.writes_date

    @property
    def _reader(self) -> ChatReader:
        return self._reader_on(self.today)

    def _run(self, window: list[Request]) -> Iterator[Reply]:
        llm = self._llm()
        encoded: list[tuple[Request, list[int]]] = []
        for request in window:
            ids = self._encode(llm, request)
            if isinstance(ids, Failure):
                yield Reply(request.key, failure=ids)
            else:
                encoded.append((request, ids))
        if not encoded:
            return
        outputs = llm.generate(
            [{"prompt_token_ids": ids} for _, ids in encoded],
            [_sampling_params(request, self._reader) for request, _ in encoded],
            use_tqdm=False,
        )
        for (request, ids), output in zip(encoded, outputs, strict=True):
            yield replace(
                gather(request, [self._completion(request, ids, each) for each in output.outputs]),
                prompt_tokens=len(ids),
                cached_tokens=output.num_cached_tokens or 0,
                completion_tokens=sum(len(each.token_ids) for each in output.outputs),
            )

    def _encode(self, llm: "LLM", request: Request) -> list[int] | Failure:
        """The token ids of a prompt. One that does not fit would make vLLM stop the whole window."""
        limit = llm.model_config.max_model_len
        ids = self._reader.encode(request)
        if isinstance(ids, Failure):
            return ids
        if len(ids) >= limit:
            return Failure(Status.TRUNCATED, f"the prompt has {len(ids)} tokens, the model takes {limit - 1}")
        return ids

    def _completion(self, request: Request, ids: list[int], output: "CompletionOutput") -> Completion | Failure:
        if output.finish_reason != "stop" and output.finish_reason != "length":
            return Failure(Status.API_ERROR, f"vLLM ended the answer with {output.finish_reason!r}")
        if request.choices is not None:
            return _picked(request, request.choices, output)
        reasoning, answer = None, output.text
        if not isinstance(request.prompt, str):
            reasoning, answer = self._reader.split(output.text, str(self._reader.chat.tokenizer.decode(ids)))
        return text_completion(request, reasoning, answer, output.finish_reason)

    def _llm(self) -> "LLM":
        if self._loaded is None:
            # else its log goes to stdout at level INFO, between the tables
            os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
            os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
            vllm = require("vllm", install="'maskdpo[vllm]'", purpose="`backend` vllm")
            try:
                self._loaded = vllm.LLM(
                    resolve_model(self.model),
                    tensor_parallel_size=self.settings.tensor_parallel_size,
                    max_model_len=self.settings.max_model_len,
                    gpu_memory_utilization=self.settings.gpu_memory_utilization,
                    enable_prefix_caching=True,
                    trust_remote_code=False,
                    **_cpu_settings(),
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise UserError(f"vLLM cannot load {self.model}: {_one_line(error)}") from error
        return self._loaded


def _cpu_settings() -> dict[str, Any]:
    """Settings with which vLLM 0.32 works correctly on a CPU.

    With chunked prefill, requests with a seed kill the engine. The compiled model gives other greedy answers than
    transformers, and the eager model the same. vLLM computes in 16 bits by default, and on a processor without bfloat16
    a matrix product in bfloat16 took fifty times as long as one in float32.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {}
    return {"enable_chunked_prefill": False, "enforce_eager": True, "dtype": compute_type("auto", "cpu")}


def _sampling_params(request: Request, reader: ChatReader) -> "SamplingParams":
    from vllm.sampling_params import SamplingParams, StructuredOutputsParams

    sampling = request.sampling
    if sampling.temperature == 0 and sampling.n > 1:
        raise UserError("at temperature 0 all answers are the same: ask for n = 1, or raise the temperature")
    settings: dict[str, Any] = {"stop": list(sampling.stop) or None}
    if request.choices is None and not isinstance(request.prompt, str):
        settings["skip_special_tokens"] = not reader.keeps_special_tokens
        if reader.turn.after_reasoning:  # vLLM would end the reasoning there; the answer is cut when it is complete
            settings["stop"] = None
    if request.choices is not None:
        settings["logprobs"] = TOP_LOGPROBS
        if request.reply == "word":
            settings["structured_outputs"] = StructuredOutputsParams(choice=list(request.choices))
        else:
            schema = verdict_schema(request.choices, request.slots)
            settings["structured_outputs"] = StructuredOutputsParams(json=schema, disable_any_whitespace=True)
    return SamplingParams(
        n=sampling.n,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        # greedy decoding draws nothing, and requests with a seed are slower
        seed=request_seed(sampling.seed, request.key) if sampling.temperature > 0 else None,
        **settings,
    )


def _picked(request: Request, choices: tuple[str, ...], output: "CompletionOutput") -> Completion | Failure:
    text, tokens = output.text, _scored_tokens(output)
    cut = Failure(Status.TRUNCATED, f"the judge's reply was cut off at {len(output.token_ids)} tokens")
    if request.reply == "object":
        if output.finish_reason == "length":
            return cut
        picks = read_object(text, tokens, choices, request.slots)
    # a complete choice counts, even where the limit was reached at its last token
    elif output.finish_reason == "length" and (
        text not in choices or any(choice != text and choice.startswith(text) for choice in choices)
    ):
        return cut
    else:
        picks = read_word(text, tokens, choices)
    return picks if isinstance(picks, Failure) else Completion(text, "stop", picks)


def _scored_tokens(output: "CompletionOutput") -> list[ScoredToken]:
    """The log-probabilities of the model before the constraint, which vLLM reports."""
    scored = []
    for token_id, place in zip(output.token_ids, output.logprobs or (), strict=False):
        # vLLM lists the most probable tokens, and the drawn token whatever its rank
        top = {
            (each.decoded_token or "").encode(): each.logprob
            for each in place.values()
            if each.rank is not None and each.rank <= TOP_LOGPROBS
        }
        own = place[token_id]
        scored.append(ScoredToken((own.decoded_token or "").encode(), own.logprob, top))
    return scored


def _one_line(error: Exception) -> str:
    """The reason in an error of vLLM, which has many lines; errors of pydantic begin with a count, not the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next((line for line in lines if "error for" not in line and "errors for" not in line and " " in line), "")
    return (reason or type(error).__name__)[:300]
