"""Any causal language model in this process, through transformers: batched by length, CPU or GPU."""

import itertools
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskdpo.backends.base import Completion, Failure, Reply, Request, Sampling
from maskdpo.errors import UserError
from maskdpo.models import Dtype, compute_type, default_device, load_model, load_tokenizer
from maskdpo.schemas import Status

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WINDOW = 4
"""Batches that are read ahead and sorted by length, so that rows of a batch need little padding."""


@dataclass(frozen=True)
class _Encoded:
    request: Request
    ids: list[int]


class TransformersBackend:
    """Samples with a KV cache (``decode``); ``choices`` are scored as constrained decoding would (``choices``).

    The model is loaded at the first request.

    Args:
        model: ``smollm2``, a folder or a Hub id.
        batch_size: rows a forward pass.
        dtype: ``auto`` is bfloat16 on hardware that computes in it, else float32.
    """

    def __init__(self, model: str, *, batch_size: int = 64, dtype: Dtype = "auto", device: str | None = None) -> None:
        self.model = model
        self._batch_size = batch_size
        self._dtype = dtype
        self._device = device
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """See ``Backend``. A prompt that leaves no room for ``max_tokens`` fails as ``truncated``."""
        rows = max(1, self._batch_size // sampling.n)
        stream = iter(requests)
        while window := list(itertools.islice(stream, rows * WINDOW)):
            encoded = []
            for request in window:
                ids = self._encode(request)
                if not ids:
                    yield Reply(
                        request.key, failure=Failure(Status.API_ERROR, "the prompt is empty: there is no token")
                    )
                elif failure := self._too_long(ids, 1 if request.choices else sampling.max_tokens):
                    yield Reply(request.key, failure=failure, prompt_tokens=len(ids))
                else:
                    encoded.append(_Encoded(request, ids))
            encoded.sort(key=lambda item: len(item.ids))
            chosen = [item for item in encoded if item.request.choices]
            free = [item for item in encoded if not item.request.choices]
            for batch in _split(chosen, self._batch_size):
                yield from self._choose(batch)
            for batch in _split(free, rows):
                yield from self._sample(batch, sampling)

    def _parts(self) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        if self._loaded is None:
            import torch

            device = self._device or default_device()
            tokenizer = load_tokenizer(self.model)
            model = load_model(self.model, dtype=getattr(torch, compute_type(self._dtype, device)), device=device)
            self._loaded = model.eval(), tokenizer
        return self._loaded

    def _encode(self, request: Request) -> list[int]:
        _, tokenizer = self._parts()
        if isinstance(request.prompt, str):
            return list(tokenizer(request.prompt)["input_ids"])
        if not tokenizer.chat_template:
            raise UserError(f"{self.model}: the tokenizer has no chat template; sample a base model with --raw")
        messages = [message.model_dump() for message in request.prompt]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def _too_long(self, ids: Sequence[int], room: int) -> Failure | None:
        limit = getattr(self._parts()[0].config, "max_position_embeddings", None)
        if limit is None or len(ids) + room <= limit:
            return None
        return Failure(
            Status.TRUNCATED,
            f"the prompt has {len(ids)} tokens, with {room} to come the model's limit is {limit}",
        )

    def _sample(self, batch: Sequence[_Encoded], sampling: Sampling) -> Iterator[Reply]:
        from maskdpo.backends.decode import Row, decode

        model, tokenizer = self._parts()
        n = sampling.n if sampling.temperature > 0 else 1
        rows = [
            Row(prompt, _random(sampling.seed, item.request.key, i), [])
            for prompt, item in enumerate(batch)
            for i in range(n)
        ]
        ends = _end_ids(model, tokenizer)
        decode(
            model,
            [item.ids for item in batch],
            rows,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            is_finished=lambda row: row.ids[-1] in ends or _has_stop(tokenizer, row.ids, sampling.stop),
            pad_id=_pad_id(tokenizer),
        )
        for i, item in enumerate(batch):
            mine = rows[i * n : (i + 1) * n]
            completions = tuple(self._completion(item, row.ids, sampling.stop, ends) for row in mine)
            completions *= sampling.n // n  # greedy decoding gives the same text every time
            tokens = sum(len(row.ids) for row in mine)
            yield Reply(item.request.key, completions, prompt_tokens=len(item.ids), completion_tokens=tokens)

    def _completion(self, item: _Encoded, new_ids: list[int], stop: Sequence[str], ends: set[int]) -> Completion:
        """Text of the new tokens up to the end of turn or the first stop text."""
        _, tokenizer = self._parts()
        ended = bool(new_ids) and new_ids[-1] in ends
        # Some tokenizers drop the space at the beginning of what they decode, so the text is decoded behind its prompt.
        before = tokenizer.decode(item.ids, skip_special_tokens=True)
        text = tokenizer.decode(item.ids + new_ids, skip_special_tokens=True).removeprefix(before)
        cut = min((at for s in stop if (at := text.find(s)) >= 0), default=None)
        return Completion(text[:cut], "stop" if ended or cut is not None else "length")

    def _choose(self, batch: Sequence[_Encoded]) -> Iterator[Reply]:
        from maskdpo.backends.choices import choice_probabilities

        model, tokenizer = self._parts()
        choices = [item.request.choices or () for item in batch]
        ids = [[_choice_ids(tokenizer, choice) for choice in texts] for texts in choices]
        shares = choice_probabilities(model, [item.ids for item in batch], ids, self._batch_size, _pad_id(tokenizer))
        for item, texts, probabilities in zip(batch, choices, shares, strict=True):
            best = max(range(len(texts)), key=probabilities.__getitem__)
            completion = Completion(texts[best], "stop", probabilities[best])
            yield Reply(item.request.key, (completion,), prompt_tokens=len(item.ids), completion_tokens=1)


def _choice_ids(tokenizer: "PreTrainedTokenizerBase", choice: str) -> list[int]:
    """Token ids of a choice with the end of turn behind it, so that no choice is the beginning of another."""
    return [*tokenizer(choice, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id or 0]


def _pad_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Padding is masked out, so any id serves where the tokenizer has none for it."""
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(token_id, int):
            return token_id
    return 0


def _random(seed: int, key: Hashable, i: int) -> np.random.Generator:
    """The random stream of sample ``i`` of a request: it follows from the seed and the request's key alone."""
    return np.random.default_rng([seed, zlib.crc32(str(key).encode()), i])


def _has_stop(tokenizer: "PreTrainedTokenizerBase", ids: list[int], stop: Sequence[str]) -> bool:
    """Whether a stop text has just appeared. A text of k characters has at most 4 k tokens; a few more cost little."""
    if not stop:
        return False
    tail = tokenizer.decode(ids[-4 * max(len(s) for s in stop) - 4 :])
    return any(s in tail for s in stop)


def _end_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return {token for token in [*ends, tokenizer.eos_token_id] if token is not None}


def _split(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for i in range(0, len(items), size):
        yield items[i : i + size]
