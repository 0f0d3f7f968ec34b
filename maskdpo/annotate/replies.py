"""What a judge's reply means. A reply that does not clearly say one of the offered words is a parse error."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from maskdpo.annotate.protocol import Meaning, Turn
from maskdpo.backends.base import Completion, Reply
from maskdpo.schemas import Status

_BRACKETED = re.compile(r"[<＜‹【《\[]([^<>＜＞‹›【】《》\[\]]{1,60})[>＞›】》\]]|\*\*([^*]{1,60})\*\*")
_NOISE = re.compile(r"[\s_<>＜＞‹›【】《》\[\]“”\"'`*.。!！]+")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a turn has brought for one sentence: a meaning with its share, or the status that takes its place."""

    meaning: Meaning | None
    share: float | None = None
    """Of the votes, or the probability of the word; None where the backend does not tell."""
    status: Status = Status.OK
    reason: str | None = None
    text: str = ""
    """The reply as it goes on in the conversation."""


def outcomes(turn: Turn, reply: Reply, votes: int, sentences: int) -> list[Outcome]:
    """One outcome a sentence that the reply is about."""
    if reply.failure is not None:
        return [Outcome(None, status=reply.failure.status, reason=reply.failure.message)] * sentences
    if turn.reply == "text":
        return [_elect([(read_text(turn, c.text), None, c.text) for c in reply.completions], votes, reply.completions)]
    return [
        _elect(
            [(turn.words[c.picks[i].choice], c.picks[i].probability, c.picks[i].choice) for c in reply.completions],
            votes,
            reply.completions,
        )
        for i in range(sentences)
    ]


_Vote = tuple[Meaning | None, float | None, str]
"""The meaning, its probability, the words."""


def _elect(given: Sequence[_Vote], votes: int, completions: Sequence[Completion]) -> Outcome:
    """The meaning with most votes; a tie, or no vote that can be read, is no verdict."""
    counts = Counter(meaning for meaning, _, _ in given if meaning is not None)
    if not counts:
        cut = all(completion.finish_reason == "length" for completion in completions)
        status = Status.TRUNCATED if cut else Status.PARSE_ERROR
        return Outcome(None, status=status, reason=f"the judge replied {' '.join(given[0][2].split())[:200]!r}")
    (winner, most), *others = counts.most_common()
    if others and others[0][1] == most:
        tally = ", ".join(f"{meaning} {count}" for meaning, count in counts.most_common())
        return Outcome(None, status=Status.PARSE_ERROR, reason=f"no majority among {votes} votes: {tally}")
    probability, text = next((p, text) for meaning, p, text in given if meaning == winner)
    return Outcome(winner, most / votes if votes > 1 else probability, text=text)


def read_text(turn: Turn, text: str) -> Meaning | None:
    """The meaning of a free reply.

    A word counts where it stands in brackets, or where it is the whole reply, its first or its last line, or what
    follows the colon there. Elsewhere it may be denied ("not contradictory"), and two words of different meaning are
    no verdict.
    """
    words = {_plain(word): meaning for word, meaning in turn.words.items()}
    bracketed = _meanings(words, [a or b for a, b in _BRACKETED.findall(text)])
    if len(bracketed) == 1:
        return bracketed.pop()
    lines = [line for line in text.splitlines() if line.strip()]
    ends = [text, *(lines[:1] + lines[-1:])]
    spoken = _meanings(words, [*ends, *(re.split("[:：]", line)[-1] for line in ends[1:])])
    if not bracketed and len(spoken) == 1:
        return spoken.pop()
    return turn.otherwise if not bracketed and not spoken else None


def _meanings(words: Mapping[str, Meaning], texts: Sequence[str]) -> set[Meaning]:
    return {words[plain] for text in texts if (plain := _plain(text)) in words}


def _plain(text: str) -> str:
    """Without what differs between "<No Hallucination>" and "no hallucination."."""
    return _NOISE.sub("", text).casefold()
