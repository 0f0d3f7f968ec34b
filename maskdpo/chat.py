"""Conversations as the text and the token ids that a model reads: one place for every backend and for the trainer.

The trainer never renders an answer through the chat template, because templates rewrite earlier turns, drop reasoning,
trim answers, and add empty think blocks. The prompt is rendered as for sampling, with the generation prompt. The answer
follows as the model wrote it. What the template writes around an answer is read from a probe conversation (``Turn``).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from maskdpo.errors import UserError
from maskdpo.prompt_date import with_date, writes_date
from maskdpo.schemas import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER, REASONING = "The answer of the probe.", "The reasoning of the probe."
QUESTION = [Message(role="user", content="The question of the probe?")]
THINK, END_THINK = "<think>", "</think>"
ANCHORS = ("\n", ".", "a", " ")
"""Texts to encode a continuation after, where it would share a token with its prompt: the first that shares none."""
NO_OPTIONS = frozenset({
    "self", "conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt",
    "continue_final_message", "tokenize", "sanitize_control_tokens", "padding", "truncation", "max_length",
    "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "kwargs",
})  # fmt: skip
"""Parameters of ``PreTrainedTokenizerBase.apply_chat_template``, and the conversation, as templates name it."""
EMPTY_THINKING = re.compile(r"\s*<think>\s*</think>\s*")


class TemplateRefusal(ValueError):
    """The chat template rejects a conversation, or leaves out the answer."""


@dataclass(frozen=True)
class Turn:
    """What the chat template writes around an answer that follows the generation prompt.

    Without reasoning the model writes ``lead`` + answer + ``tail``; with reasoning it writes ``before_reasoning`` +
    reasoning + ``after_reasoning`` + answer + ``tail``.
    """

    lead: str
    """Empty for most models; ``<|channel|>final<|message|>`` for gpt-oss, which writes the header itself."""
    tail: str
    """The end of the turn, such as ``<|im_end|>`` and a line break."""
    before_reasoning: str | None
    """Empty where the generation prompt itself begins the reasoning; None where the template has no place for it."""
    after_reasoning: str | None

    def split(self, text: str, *, lenient: bool = False) -> tuple[str | None, str | None]:
        """The reasoning and the answer in a text that the model wrote after the generation prompt.

        Args:
            text: as it was generated, markers included, without the end of the turn.
            lenient: reasoning may lack its opening marker, which servers strip, under every template. Else it may lack
                it only under templates with reasoning: for other models a closing marker is ordinary text.

        Returns:
            Both as they were written, with white space. The reasoning is None where there is none; the answer is None
            where the text ends within the reasoning.
        """
        before, after = (self.before_reasoning or "").strip(), (self.after_reasoning or "").strip()
        if not after:  # no place for reasoning in the template; the model may still write the usual markers
            before, after = THINK, END_THINK
        head, closed, answer = text.partition(after)
        marked = bool(before) and head.lstrip().startswith(before)
        if marked or self.before_reasoning == "" or (closed and (lenient or self.before_reasoning is not None)):
            return head.lstrip().removeprefix(before) if marked else head, answer if closed else None
        lead = self.lead.strip()
        return None, text.lstrip().removeprefix(lead) if lead and text.lstrip().startswith(lead) else text

    def write(self, answer: str, reasoning: str | None) -> tuple[str, int]:
        """The text after the generation prompt, and the position in it at which the answer begins.

        White space of the model replaces that of the template, because some servers strip it from answers.

        Raises:
            TemplateRefusal: there is reasoning, but the template has no place for it.
        """
        lead = self.lead
        if reasoning is not None:
            if self.before_reasoning is None or self.after_reasoning is None:
                raise TemplateRefusal("it has no place for reasoning")
            before, after = _without_double_space(self.before_reasoning, reasoning, self.after_reasoning)
            lead = before + reasoning + after
        lead, tail = _without_double_space(lead, answer, self.tail)
        return lead + answer + tail, len(lead)


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the model reads it."""

    text: str
    ids: list[int]
    prefix: int = 0
    """Number of ids before the text: 1 for a beginning-of-text token, or 0."""


@dataclass
class ChatFormat:
    """How one tokenizer renders conversations, with one set of options.

    Args:
        options: options of the template beside the messages, such as ``{"enable_thinking": False}``.
        today: the date for templates that write one (``strftime_now``).
    """

    tokenizer: "PreTrainedTokenizerBase"
    options: Mapping[str, Any] = field(default_factory=dict)
    today: date | None = None

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The conversation, followed by the generation prompt.

        Some templates (such as Gemma's) have no system role. There the system message is put before the first user
        message.

        Raises:
            TemplateRefusal: the template rejects this conversation.
            UserError: the tokenizer has no chat template.
        """
        try:
            return self._render(messages, generate=True)
        except TemplateRefusal:
            folded = without_system(messages)
            if folded is None:
                raise
            return self._render(folded, generate=True)

    def encode_prompt(self, prompt: str | Sequence[Message]) -> EncodedPrompt:
        """The tokens of a prompt: a conversation, or a plain string without a template.

        A chat template writes its own special tokens. A plain string gets those that the tokenizer adds before a text.
        Raises the errors of ``prompt_text``.
        """
        text = prompt if isinstance(prompt, str) else self.prompt_text(prompt)
        return self.as_encoded(prompt, text, self._ids(text))

    def as_encoded(self, prompt: str | Sequence[Message], text: str, ids: list[int]) -> EncodedPrompt:
        """What ``encode_prompt`` returns, from the prompt's text and the tokens of this text alone."""
        if not isinstance(prompt, str) or ids[: len(self._prefix)] == self._prefix:
            return EncodedPrompt(text, ids)  # a text may begin with the beginning-of-text token itself
        return EncodedPrompt(text, [*self._prefix, *ids], len(self._prefix))

    def continuation(self, prompt: EncodedPrompt, rest: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The token ids of ``rest`` after a prompt, and their character ranges in ``rest``.

        The ids are those of the whole text, unless a token would contain the end of the prompt and the beginning of the
        rest. Then the two are encoded separately, without the space that some tokenizers add before a text.

        Raises:
            ValueError: neither is possible.
        """
        own = prompt.ids[prompt.prefix :]
        for before in (prompt.text, *ANCHORS):
            encoding = self.tokenizer(
                before + rest, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )
            ids, offsets = list(encoding["input_ids"]), encoding["offset_mapping"]
            n = sum(end <= len(before) for _, end in offsets)
            apart = all(begin >= len(before) for begin, _ in offsets[n:])
            if apart and (ids[:n] == own if before == prompt.text else n):
                return ids[n:], [(begin - len(before), end - len(before)) for begin, end in offsets[n:]]
        raise ValueError("the prompt and what follows cannot be encoded side by side")

    @cached_property
    def turn(self) -> Turn:
        """Read from the template's rendering of a probe answer, with reasoning and without.

        Raises:
            TemplateRefusal: the template refuses an answer, or does not keep its text.
        """
        prompt = _after_question(self.prompt_text(QUESTION))
        lead, tail, _ = self._around(prompt, {})
        before, after = self._around_reasoning(prompt)
        if before == "" and after:  # the prompt has begun the reasoning, so an answer without reasoning closes it
            return Turn(after, tail, before, after)
        # the model wrote no empty block: its reasoning would be recorded
        return Turn(EMPTY_THINKING.sub("", lead), tail, before, after)

    @property
    def writes_date(self) -> bool:
        """Whether the chat template asks for the date of today."""
        return writes_date(self.tokenizer.chat_template)

    def _around(self, prompt: str, more: Mapping[str, str]) -> tuple[str, str, bool]:
        """What the template writes between the generation prompt and the probe answer, and after it; and whether the
        template keeps the whole generation prompt (``prompt``: the text after the question)."""
        answer = {"role": "assistant", "content": ANSWER, **more}
        whole = _after_question(self._render([*QUESTION, answer], generate=False))
        if whole.count(ANSWER) != 1:
            raise TemplateRefusal("it does not keep the text of an answer")
        before, _, tail = whole.partition(ANSWER)
        common = _common_length(prompt, before)
        return before[common:], tail, common == len(prompt)

    def _around_reasoning(self, prompt: str) -> tuple[str, str] | tuple[None, None]:
        try:
            between, _, whole = self._around(prompt, {"reasoning_content": REASONING})
        except TemplateRefusal:
            between, whole = "", False
        if whole and between.count(REASONING) == 1:
            before, _, after = between.partition(REASONING)
            return before, after
        begun, closed = prompt.rstrip().endswith(THINK), prompt.rstrip().endswith(END_THINK)
        known = END_THINK in self.tokenizer.get_added_vocab() or END_THINK in str(self.tokenizer.chat_template)
        if closed or not (begun or known):
            return None, None
        return "" if begun else f"{THINK}\n", f"\n{END_THINK}\n\n"

    def _render(self, messages: Sequence[Message | Mapping[str, str]], *, generate: bool) -> str:
        if not self.tokenizer.chat_template:
            raise UserError(
                f"{self.tokenizer.name_or_path}: the tokenizer has no chat template, which chat messages need. "
                "Take an instruction-tuned model, or sample with `raw` to get pairs of plain strings"
            )
        plain = [_plain(message, parts=self._wants_parts) for message in messages]
        return self._apply(plain, add_generation_prompt=generate)

    @cached_property
    def _wants_parts(self) -> bool:
        """Whether the template expects the content of a message as a list of parts, as templates of image models do."""
        try:
            return QUESTION[0].content not in self._apply([_plain(QUESTION[0], parts=False)])
        except TemplateRefusal:
            return True

    def _apply(self, messages: list[dict[str, Any]], **settings: Any) -> str:
        check_options(self.options)
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, chat_template=self._template, **self.options, **settings
            )
        except (TemplateError, TypeError, ValueError) as error:
            # a template may do anything, such as add a number to a text
            raise TemplateRefusal(" ".join(str(error).split())[:200]) from None
        assert isinstance(text, str)
        return text

    @cached_property
    def _template(self) -> str:
        """The chat template, with the date in place of the calls that ask for it."""
        try:
            return with_date(str(self.tokenizer.get_chat_template()), self.today)
        except UserError as error:
            raise UserError(f"{self.tokenizer.name_or_path}: {error}") from None

    @cached_property
    def _prefix(self) -> list[int]:
        """The special tokens that the tokenizer adds before a plain text."""
        text = "a"
        ids, own = list(self.tokenizer(text, verbose=False)["input_ids"]), self._ids(text)
        return next((ids[:i] for i in range(len(ids)) if ids[i : i + len(own)] == own), [])

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse (``UserError``) parameters of ``apply_chat_template``, which would not reach the template as options."""
    if name := next((name for name in options if name in NO_OPTIONS), None):
        raise UserError(f"{name!r} cannot be an option of the chat template: maskdpo or transformers sets it")


def _without_double_space(before: str, text: str, after: str) -> tuple[str, str]:
    """What the template writes around a text, without white space where the text itself begins or ends with some."""
    return before.rstrip() if text[:1].isspace() else before, after.lstrip() if text[-1:].isspace() else after


def _after_question(text: str) -> str:
    return text.rpartition(QUESTION[0].content)[2]


def _common_length(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _plain(message: Message | Mapping[str, str], *, parts: bool) -> dict[str, Any]:
    plain: dict[str, Any] = message.model_dump() if isinstance(message, Message) else dict(message)
    return plain | {"content": [{"type": "text", "text": plain["content"]}]} if parts else plain


def without_system(messages: Sequence[Message]) -> list[Message] | None:
    """The messages with the system message put before the first user message; None where one of the two is missing."""
    system = [message.content for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    first = next((i for i, message in enumerate(others) if message.role == "user"), None)
    if not system or first is None:
        return None
    others[first] = Message(role="user", content="\n\n".join([*system, others[first].content]))
    return others
