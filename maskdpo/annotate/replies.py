"""What a judge's reply means. A reply that does not clearly say one of the offered words is a parse error."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from maskdpo.annotate.protocol import Meaning, Turn
from maskdpo.backends.base import Completion, Pick, Reply
from maskdpo.schemas import Label, Status
from maskdpo.verdicts.decision import likeliest

_IGNORED = re.compile(r"[\s_<>＜＞【】\[\]“”\"'`*.。!！]+")
_INTRODUCTION = re.compile(
    r"^\W*(hallucination type|type|label|verdict|judge?ment|answer|幻觉类型|类型|判断|结论|答案)\s*[:：]", re.I
)
"""What judges often write in front of the word."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a turn for one sentence: a meaning with its share, or the status of a failure."""

    meaning: Meaning | None
    share: float | None = None
    """The share of the votes, or the probability of the words that mean this; None where the backend reports none."""
    scores: Mapping[Meaning, float] = field(default_factory=dict)
    """The same for every meaning, as far as it is known."""
    status: Status = Status.OK
    reason: str | None = None
    text: str = ""
    """The reply, for the next turn of the conversation."""
    evidence: str | None = None
    """The part of the reference that the meaning is based on."""

    @property
    def points(self) -> Mapping[Meaning, float]:
        """The scores, or all probability on the meaning where the backend reports none."""
        return self.scores or ({self.meaning: 1.0} if self.meaning else {})


def outcomes(turn: Turn, reply: Reply, votes: int, sentences: int) -> list[Outcome]:
    """One outcome per sentence that the reply is about."""
    if reply.failure is not None:
        return [Outcome(None, status=reply.failure.status, reason=reply.failure.message)] * sentences
    if turn.reply == "text":
        return [_majority([_text_vote(turn, completion) for completion in reply.completions], votes, reply.completions)]
    return [
        _majority([_word_vote(turn, c.picks[i]) for c in reply.completions], votes, reply.completions)
        for i in range(sentences)
    ]


def _word_vote(turn: Turn, pick: Pick) -> "_Vote":
    scores: dict[Meaning, float] = defaultdict(float)
    for word, probability in pick.probabilities.items() if pick.probability is not None else ():
        scores[turn.words[word]] += probability
    return turn.words[pick.choice], scores, pick.choice


def _text_vote(turn: Turn, completion: Completion) -> "_Vote":
    """A reply that was cut off has no meaning, except as evidence: it might have gone on to say something else."""
    whole = completion.finish_reason == "stop" or turn.otherwise
    return (read_text(turn, completion.text) if whole else None), {}, completion.text


_Vote = tuple[Meaning | None, Mapping[Meaning, float], str]
"""The meaning, the probability of every meaning that is known, and the words of the reply."""


def combined(first: Sequence[Outcome], last: Sequence[Outcome]) -> Outcome:
    """One outcome for a sentence out of those of its questions (``asks: passage``).

    Args:
        first: of the turns that the sentence is asked about alone. What they leave to ``next`` is for the last turn.
        last: of the last turn, one for each passage. The passage that supports the sentence most counts.
    """
    asked = [*first, *last]
    if failure := next((outcome for outcome in asked if outcome.meaning is None), None):
        return failure
    best = max(last, key=lambda outcome: outcome.points.get(Label.NO_HALLUCINATION, 0.0))
    scores: dict[Label, float] = defaultdict(float)
    left = 1.0
    for outcome in [*first, best]:
        for meaning, share in outcome.points.items():
            if meaning != "next":
                scores[meaning] += left * share
        left *= outcome.points.get("next", 0.0)
    label = likeliest(scores)
    if not all(outcome.scores for outcome in asked):
        return Outcome(label, evidence=best.evidence)
    return Outcome(label, scores[label], dict(scores.items()), evidence=best.evidence)


def _majority(given: Sequence[_Vote], votes: int, completions: Sequence[Completion]) -> Outcome:
    """The most frequent meaning; a tie, or no vote that can be read, is no verdict."""
    counts = Counter(meaning for meaning, _, _ in given if meaning is not None)
    if not counts:
        cut = all(completion.finish_reason == "length" for completion in completions)
        status = Status.TRUNCATED if cut else Status.PARSE_ERROR
        return Outcome(None, status=status, reason=f"the judge replied {' '.join(given[0][2].split())[:200]!r}")
    (winner, most), *others = counts.most_common()
    if others and others[0][1] == most:
        shares = ", ".join(f"{meaning} {count}" for meaning, count in counts.most_common())
        return Outcome(None, status=Status.PARSE_ERROR, reason=f"no majority among {votes} votes: {shares}")
    scores, text = next((scores, text) for meaning, scores, text in given if meaning == winner)
    if votes > 1:
        scores = {meaning: count / votes for meaning, count in counts.items()}
    return Outcome(winner, scores.get(winner), scores, text=text)


def read_text(turn: Turn, text: str) -> Meaning | None:
    """The meaning of a free reply: the word that is the whole of it or, where it must be one, its first or last line.

    Within a sentence a word may be denied ("not contradictory") or quoted out of the judged text, and two words of
    different meaning are no verdict.
    """
    words = {_plain(word): meaning for word, meaning in turn.words.items()}
    lines = [line for line in text.splitlines() if line.strip()]
    said = _meanings(words, [text] if turn.otherwise else [text, *lines[:1], *lines[-1:]])
    return said.pop() if len(said) == 1 else None if said else turn.otherwise


def _meanings(words: Mapping[str, Meaning], texts: Sequence[str]) -> set[Meaning]:
    return {words[plain] for text in texts if (plain := _plain(_INTRODUCTION.sub("", text))) in words}


def _plain(text: str) -> str:
    """Without what differs between "<No Hallucination>" and "no hallucination."."""
    return _IGNORED.sub("", text).casefold()
