"""Any causal language model in this process, through transformers: batched by length, CPU or GPU."""

import itertools
import json
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from maskdpo.backends.base import Completion, Context, Failure, Pick, Reply, Request, Sampling, gather
from maskdpo.backends.reasoning import ChatReader, readers, stop_at, text_completion
from maskdpo.backends.settings import DEFAULTS, BackendSettings
from maskdpo.devices import compute_type, pick_device
from maskdpo.models import load_model
from maskdpo.schemas import Status

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from maskdpo.backends.choices import Slot

WINDOW = 4
"""Batches that are read ahead and sorted by length, so that their rows need little padding."""


@dataclass(frozen=True)
class _Encoded:
    request: Request
    ids: list[int]
    slots: "list[Slot]"
    """The slots of its choices; empty for an answer without choices."""

    def longest_reply(self) -> int:
        """The most tokens that the reply can have."""
        if not self.slots:
            return self.request.sampling.max_tokens
        return sum(len(slot.lead) + max(map(len, slot.choices)) for slot in self.slots)


class TransformersBackend:
    """Samples with a KV cache (``decode``); ``choices`` are scored as constrained decoding would (``choices``).

    The model is loaded at the first request.

    Args:
        model: ``smollm2``, a folder or a Hub id.
        settings: those of ``transformers``.

    Raises:
        UserError: there is no such device.
    """

    def __init__(self, model: str, settings: BackendSettings = DEFAULTS) -> None:
        self.model = model
        self.template_options = settings.template_options
        self.today: date | None = None
        self._reader_on = readers(model, self.template_options)
        self._batch_size = settings.batch_size
        self._dtype = settings.dtype
        self._device = None if settings.device is None else pick_device(settings.device)
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """See ``Backend``. A prompt that leaves no space for its reply fails as ``truncated``."""
        stream = iter(requests)
        first = next(stream, None)
        if first is None:
            return
        stream = itertools.chain([first], stream)
        while window := list(itertools.islice(stream, self._prompts_per_batch(first.sampling) * WINDOW)):
            encoded = []
            for request in window:
                item = self._encode(request)
                if isinstance(item, Reply):
                    yield item
                else:
                    encoded.append(item)
            yield from self._choose([item for item in encoded if item.request.choices])
            free = sorted((item for item in encoded if not item.request.choices), key=lambda item: len(item.ids))
            for sampling in dict.fromkeys(item.request.sampling for item in free):
                same = [item for item in free if item.request.sampling == sampling]
                size = self._prompts_per_batch(sampling)
                for start in range(0, len(same), size):
                    yield from self._sample(same[start : start + size], sampling)

    def _prompts_per_batch(self, sampling: Sampling) -> int:
        """The number of prompts in a batch, in which every sample is a row."""
        return max(1, self._batch_size // sampling.n)

    def context(self) -> Context:
        """See ``Backend``."""
        model, _ = self._parts()
        return Context(getattr(model.config.get_text_config(), "max_position_embeddings", None), self.count)

    def count(self, text: str) -> int:
        """The tokens of a text, without the model."""
        return self._reader.count(text)

    def writes_date(self) -> bool:
        """See ``Backend``."""
        return self._reader.chat.writes_date

    @property
    def _reader(self) -> ChatReader:
        return self._reader_on(self.today)

    def _parts(self) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        if self._loaded is None:
            import torch

            device = pick_device(self._device)
            tokenizer = self._reader.chat.tokenizer
            model = load_model(self.model, dtype=getattr(torch, compute_type(self._dtype, device)), device=device)
            self._loaded = model.eval(), tokenizer
        return self._loaded

    def _encode(self, request: Request) -> _Encoded | Reply:
        """The request in tokens, or a reply that says why it cannot be answered."""
        _, tokenizer = self._parts()
        ids = self._reader.encode(request)
        if isinstance(ids, Failure):
            return Reply(request.key, failure=ids)
        item = _Encoded(request, ids, _slots(tokenizer, request) if request.choices else [])
        failure = self._too_long(ids, item.longest_reply())
        return item if failure is None else Reply(request.key, failure=failure, prompt_tokens=len(ids))

    def _too_long(self, ids: Sequence[int], longest_reply: int) -> Failure | None:
        limit = self.context().limit
        if limit is None or len(ids) + longest_reply <= limit:
            return None
        return Failure(
            Status.TRUNCATED,
            f"the prompt has {len(ids)} tokens, with {longest_reply} to come the model's limit is {limit}",
        )

    def _sample(self, batch: Sequence[_Encoded], sampling: Sampling) -> Iterator[Reply]:
        from maskdpo.backends.decode import Row, decode, end_ids

        model, tokenizer = self._parts()
        n = sampling.n if sampling.temperature > 0 else 1
        rows = [
            Row(prompt, _random(sampling.seed, item.request.key, i), [])
            for prompt, item in enumerate(batch)
            for i in range(n)
        ]
        ends = end_ids(model, tokenizer)
        decode(
            model,
            [item.ids for item in batch],
            rows,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            is_finished=lambda row: row.ids[-1] in ends or self._has_stop(batch[row.prompt], row.ids),
        )
        for i, item in enumerate(batch):
            mine = rows[i * n : (i + 1) * n]
            completions = [self._completion(item, row.ids, ends) for row in mine]
            completions *= sampling.n // n  # greedy decoding gives the same text every time
            tokens = sum(len(row.ids) for row in mine)
            yield replace(gather(item.request, completions), prompt_tokens=len(item.ids), completion_tokens=tokens)

    def _completion(self, item: _Encoded, new_ids: list[int], ends: set[int]) -> Completion | Failure:
        """Reasoning and answer in the new tokens, up to the end of turn or the first stop text."""
        ended = bool(new_ids) and new_ids[-1] in ends
        reasoning, answer = self._split(item, new_ids[:-1] if ended else new_ids)
        return text_completion(item.request, reasoning, answer, "stop" if ended else "length")

    def _split(self, item: _Encoded, new_ids: list[int]) -> tuple[str | None, str | None]:
        """Reasoning and answer; the continuation of a plain string has no reasoning."""
        raw, reader = isinstance(item.request.prompt, str), self._reader
        tokenizer, clean = reader.chat.tokenizer, raw or not reader.keeps_special_tokens
        # Some tokenizers drop a space at the beginning of a text, so the text is decoded together with its prompt.
        before = str(tokenizer.decode(item.ids, skip_special_tokens=clean))
        whole = str(tokenizer.decode(item.ids + new_ids, skip_special_tokens=clean))
        text = whole.removeprefix(before)
        return (None, text) if raw else reader.split(text, before)

    def _has_stop(self, item: _Encoded, ids: list[int]) -> bool:
        """Whether a stop text has just appeared in the answer; in reasoning it does not count."""
        stop = item.request.sampling.stop
        if not _has_stop(self._reader.chat.tokenizer, ids, stop):
            return False
        reasoning, answer = self._split(item, ids)
        return answer is not None and stop_at(answer, reasoning, stop) is not None

    def _choose(self, items: Sequence[_Encoded]) -> Iterator[Reply]:
        from maskdpo.backends.choices import PartialReply, fill_slots

        model, _ = self._parts()
        replies: list[list[PartialReply]] = []
        for i, item in enumerate(items):
            sampling = item.request.sampling
            draws = [_random(sampling.seed, item.request.key, k) for k in range(sampling.n)]
            randoms = draws if sampling.temperature > 0 else [None] * sampling.n
            replies.append([PartialReply(i, item.slots, random, sampling.temperature) for random in randoms])
        prompts = [item.ids for item in items]
        for start in range(0, len(items), self._batch_size):
            some = slice(start, start + self._batch_size)
            flat = [reply for mine in replies[some] for reply in mine]
            fill_slots(model, prompts, flat, self._batch_size)
            for item, mine in zip(items[some], replies[some], strict=True):
                yield Reply(
                    item.request.key,
                    tuple(_filled(item.request, reply.picks) for reply in mine),
                    prompt_tokens=len(item.ids),
                    completion_tokens=sum(len(reply.ids) for reply in mine),
                )


def _slots(tokenizer: "PreTrainedTokenizerBase", request: Request) -> "list[Slot]":
    """The slots of a request: a plain choice followed by the end of the turn, or the choices of a JSON object.

    The token after each choice ensures that no choice is the beginning of another one.
    """
    from maskdpo.backends.choices import Slot

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    word = request.reply == "word"
    end = (tokenizer.eos_token_id or 0,) if word else ids('"')
    choices = tuple((*ids(choice), *end) for choice in request.choices or ())
    if word:
        return [Slot((), choices)]
    return [Slot(ids(f'{", " if i else "{"}"{slot}": "'), choices) for i, slot in enumerate(request.slots)]


def _filled(request: Request, chosen: Sequence[tuple[int, Sequence[float]]]) -> Completion:
    choices = request.choices or ()
    picks = tuple(Pick(choices[i], dict(zip(choices, shares, strict=True))) for i, shares in chosen)
    if request.reply == "word":
        return Completion(picks[0].choice, "stop", picks)
    said = {slot: pick.choice for slot, pick in zip(request.slots, picks, strict=True)}
    return Completion(json.dumps(said), "stop", picks)


def _random(seed: int, key: Hashable, i: int) -> np.random.Generator:
    """The random stream of sample ``i`` of a request, which depends only on the seed and on the key of the request."""
    return np.random.default_rng([seed, zlib.crc32(str(key).encode()), i])


def _has_stop(tokenizer: "PreTrainedTokenizerBase", ids: list[int], stop: Sequence[str]) -> bool:
    """Whether a stop text has just appeared. A text of k characters has at most 4 k tokens; a few more are decoded."""
    if not stop:
        return False
    tail = tokenizer.decode(ids[-4 * max(len(s) for s in stop) - 4 :])
    return any(s in tail for s in stop)
