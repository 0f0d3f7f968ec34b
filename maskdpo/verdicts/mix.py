"""The mix of pairs: what masks find to leave out in them, and how far their two answers are apart."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import add

from maskdpo.schemas import SIDES, TRAINED, Counts, Label, Pair, Record, Side
from maskdpo.schemas.records import Fraction

Size = Callable[[str], int]
"""The length of a text, in characters, words or tokens."""


def characters(text: str) -> int:
    """Without blanks and line breaks, which stand between sentences."""
    return len(text) - text.count(" ") - text.count("\n")


class Mix(Record):
    """Figures of pairs. Sentences without a verdict are in none but ``left_out``; None: undefined for these pairs."""

    wrong_of_chosen: Fraction | None
    """Share of wrong ones among the sentences of chosen answers."""
    right_of_rejected: Fraction | None
    """Share of right ones among the sentences of rejected answers."""
    left_out: Fraction | None
    """Share of the text of both answers that the masks leave out."""
    margin: float | None
    """Right / all sentences of the chosen answer less that of the rejected one: mean over pairs."""
    sentences_per_answer: float | None


@dataclass
class MixCounts:
    """Adds pairs up one by one."""

    size: Size = characters
    pairs: int = 0
    sentences: dict[Side, Counts] = field(default_factory=lambda: {side: Counts() for side in SIDES})
    compared: int = 0
    """Pairs with a verdict in both answers."""
    margins: float = 0.0
    text: int = 0
    left_out: int = 0

    def add(self, pair: Pair) -> None:
        shares = []
        for side in SIDES:
            counts = Counts.of(sentence.label for sentence in pair.sentences(side))
            self.sentences[side] = Counts(*map(add, self.sentences[side], counts))
            if counts.judged:
                shares.append(counts.right / counts.judged)
            self._add_text(pair, side)
        if len(shares) == len(SIDES):
            self.compared += 1
            self.margins += shares[0] - shares[1]
        self.pairs += 1

    def _add_text(self, pair: Pair, side: Side) -> None:
        text = pair.response(side)
        rest, trained = self.size(text), 0
        self.text += rest
        self.left_out += rest
        for sentence in pair.sentences(side):
            length = self.size(text[sentence.start : sentence.end])
            rest -= length
            trained += length if sentence.label in TRAINED[side] else 0
        self.left_out -= trained + (rest if Label.NO_FACT in TRAINED[side] else 0)

    def mix(self) -> Mix:
        chosen, rejected = (self.sentences[side] for side in SIDES)
        return Mix(
            wrong_of_chosen=_ratio(chosen.wrong, chosen.judged),
            right_of_rejected=_ratio(rejected.right, rejected.judged),
            left_out=_ratio(self.left_out, self.text),
            margin=_ratio(self.margins, self.compared),
            sentences_per_answer=_ratio(chosen.judged + rejected.judged, 2 * self.pairs),
        )


def mix_of(pairs: Iterable[Pair], size: Size = characters) -> Mix:
    """The mix of pairs, of which one at a time is held; what is left out is what Mask-DPO leaves out.

    Args:
        size: the length of a text, for the share that is left out.
    """
    counts = MixCounts(size)
    for pair in pairs:
        counts.add(pair)
    return counts.mix()


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None
