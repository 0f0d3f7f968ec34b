"""Prompts that a server cuts without a word (Ollama, LM Studio): it counts fewer tokens than the prompt must have."""

import re
from dataclasses import dataclass, field

from maskdpo.backends.base import Reply, Request

MOST_CHARACTERS = 7.0
"""Per token. Long texts of people have four to five in English, and fewer in other languages."""
FEWEST_TOKENS = 500
"""Smaller counts say nothing: no server cuts so short, and some count only what they have not read before."""
SAME_SIZE = 1.25
"""Prompts whose lengths differ by more have the same count of tokens only by being cut."""
RUN = re.compile(r"([\W_])\1+")


@dataclass
class _Counted:
    """The prompts with one count of tokens."""

    prompts: int = 0
    dense: int = 0
    """Those with more than ``MOST_CHARACTERS`` per token."""
    shortest: int = 0
    longest: int = 0
    """Their lengths, in characters."""


@dataclass
class CutPrompts:
    """What a server counted, to tell at the end whether it cut prompts."""

    prompts: int = 0
    _by_count: dict[int, _Counted] = field(default_factory=dict)

    def note(self, request: Request, reply: Reply) -> None:
        self.prompts += 1
        tokens = reply.prompt_tokens
        if tokens < FEWEST_TOKENS:
            return
        length = _length(request, tokens)
        known = self._by_count.setdefault(tokens, _Counted(shortest=length))
        known.prompts += 1
        known.dense += length > MOST_CHARACTERS * tokens
        known.shortest, known.longest = min(known.shortest, length), max(known.longest, length)

    def warning(self) -> str | None:
        """How many prompts were cut, and to what; None where none shows."""
        cut = {tokens: known.dense for tokens, known in self._by_count.items() if known.dense}
        if self._by_count:
            most = max(self._by_count)
            if self._by_count[most].longest > SAME_SIZE * self._by_count[most].shortest:
                cut[most] = self._by_count[most].prompts
        if not cut:
            return None
        share = f"{sum(cut.values()):,} of {self.prompts:,}"
        longest = max(self._by_count[tokens].longest for tokens in cut)
        return (
            f"cuts long prompts without a word: {share}, to {max(cut):,} tokens of up to {longest:,} characters. Give "
            "the server a longer context (Ollama: OLLAMA_CONTEXT_LENGTH, or num_ctx of the model); for a judge, "
            "`max_model_len` makes references fit"
        )


def _length(request: Request, tokens: int) -> int:
    """The characters of a prompt. Runs of one space or sign, which tokenizers join, count once in a dense prompt."""
    prompt = request.prompt
    texts = [prompt] if isinstance(prompt, str) else [message.content for message in prompt]
    length = sum(map(len, texts))
    return length if length <= MOST_CHARACTERS * tokens else sum(len(RUN.sub(r"\1", text)) for text in texts)
