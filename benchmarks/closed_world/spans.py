"""Finer weights than whole sentences, as other spans and labels in ordinary pairs: the trainer needs no change.

Each function turns a pair into a pair. A span without a label trains on neither side; with ``--method soft`` a label's
confidence is the weight of its tokens, so any weight from 0 to 1 can be written.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from benchmarks.closed_world.grammar import Claim, parse
from maskdpo.schemas import RIGHT, SIDES, WRONG, Label, Pair, PairSentence, Side

Words = tuple[int, ...]
SOURCE, ATTRIBUTE, LINK, VALUE = 0, 3, 4, 5
"""Places of the words that tell one statement from another; the others are template (the verb, drawn by lot, too)."""

Refine = Callable[[Pair], Pair]


def wrong_values(pair: Pair) -> Pair:
    """Of a wrong sentence only its value trains: what the judge's evidence contradicts. Right ones train whole."""
    return _each(
        pair, lambda sentence, text: _only(sentence, text, (VALUE,)) if sentence.label in WRONG else [sentence]
    )


def values(pair: Pair) -> Pair:
    """Only values train, on both sides."""
    return _each(pair, lambda sentence, text: _only(sentence, text, (VALUE,)))


def content(pair: Pair) -> Pair:
    """Source, attribute, link and value train, on both sides; the words that every statement shares do not."""
    return _each(pair, lambda sentence, text: _only(sentence, text, (SOURCE, ATTRIBUTE, LINK, VALUE)))


def matched(pair: Pair) -> Pair:
    """Only statements train that have a counterpart: right in the chosen answer, wrong in the rejected one, about the
    same attribute. Template words then cancel between the two sides, as they do in DPO."""
    stated = {side: _attributes(pair, side, RIGHT if side == "chosen" else WRONG) for side in SIDES}
    both = stated["chosen"] & stated["rejected"]

    def keep(sentence: PairSentence, text: str) -> list[PairSentence]:
        claim = _claim(sentence, text)
        return [sentence if claim and claim.attribute in both else sentence.model_copy(update={"label": None})]

    return _each(pair, keep)


def half(pair: Pair) -> Pair:
    """For ``soft``: what Mask-DPO leaves out counts one half. Between DPO and Mask-DPO."""
    chosen = [_weighted(s, Label.NO_HALLUCINATION, 0.5 if s.label in WRONG else 1.0) for s in pair.chosen_sentences]
    rejected = [_weighted(s, Label.HALLUCINATION, 1.0 if s.label in WRONG else 0.5) for s in pair.rejected_sentences]
    return pair.model_copy(update={"chosen_sentences": chosen, "rejected_sentences": rejected})


def gentle(pair: Pair) -> Pair:
    """For ``soft``: Mask-DPO, but what is pushed down counts one half of what is pulled up."""
    rejected = [s.model_copy(update={"confidence": 0.5}) for s in pair.rejected_sentences]
    return pair.model_copy(update={"rejected_sentences": rejected})


def no_fact_down(pair: Pair) -> Pair:
    """Sentences of the rejected answer that state nothing are pushed down like wrong ones."""
    wrong = {"label": Label.HALLUCINATION}
    rejected = [s.model_copy(update=wrong) if s.label == Label.NO_FACT else s for s in pair.rejected_sentences]
    return pair.model_copy(update={"rejected_sentences": rejected})


def no_fact_wrong(pair: Pair) -> Pair:
    """Sentences that state nothing are treated as wrong on both sides: never pulled up, pushed down where rejected."""
    return no_fact_not_up(no_fact_down(pair))


def no_fact_not_up(pair: Pair) -> Pair:
    """Sentences of the chosen answer that state nothing are not pulled up."""
    chosen = [s.model_copy(update={"label": None}) if s.label == Label.NO_FACT else s for s in pair.chosen_sentences]
    return pair.model_copy(update={"chosen_sentences": chosen})


def balanced(pair: Pair) -> Pair:
    """For ``soft``: every sentence that Mask-DPO trains has the same weight, and so has either side as a whole.

    Pushing down more than is pulled up, or the reverse, favours one length (arXiv 2606.15893).
    """
    trained = {side: _trained(pair, side) for side in SIDES}
    fewest = min(len(sentences) for sentences in trained.values())
    shortest = min((_words(s, pair, side) for side, found in trained.items() for s in found), default=1)
    new = {
        f"{side}_sentences": [
            s.model_copy(update={"confidence": fewest / len(found) * shortest / _words(s, pair, side)})
            if s in found
            else s
            for s in pair.sentences(side)
        ]
        for side, found in trained.items()
    }
    return pair.model_copy(update=new)


def strictly_balanced(pair: Pair) -> Pair:
    """``balanced``, where sentences that state nothing count as wrong."""
    return balanced(no_fact_wrong(pair))


def sentence_margins(pair: Pair) -> Pair:
    """For ``fdpo-margin``: the scores differ by the number of sentences that Mask-DPO trains, so each must win."""
    trained = sum(len(_trained(pair, side)) for side in SIDES)
    return pair.model_copy(update={"chosen_score": float(trained), "rejected_score": 0.0})


def _trained(pair: Pair, side: Side) -> list[PairSentence]:
    labels = RIGHT | {Label.NO_FACT} if side == "chosen" else WRONG
    return [s for s in pair.sentences(side) if s.label in labels]


def _words(sentence: PairSentence, pair: Pair, side: Side) -> int:
    return len(pair.response(side)[sentence.start : sentence.end].split())


def _weighted(sentence: PairSentence, label: Label, weight: float) -> PairSentence:
    return sentence.model_copy(update={"label": label, "confidence": weight})


def _each(pair: Pair, change: Callable[[PairSentence, str], Iterable[PairSentence]]) -> Pair:
    new = {
        f"{side}_sentences": list(chain.from_iterable(change(s, pair.response(side)) for s in pair.sentences(side)))
        for side in SIDES
    }
    return Pair.model_validate({**dict(pair), **new})


def _only(sentence: PairSentence, text: str, places: Words) -> Sequence[PairSentence]:
    """The words of a statement, of which only those at ``places`` keep the label. What states nothing stays whole."""
    if _claim(sentence, text) is None:
        return [sentence]
    words, start = [], sentence.start
    for place, word in enumerate(text[sentence.start : sentence.end].split(" ")):
        label = sentence.label if place in places else None
        words.append(sentence.model_copy(update={"start": start, "end": start + len(word), "label": label}))
        start += len(word) + 1
    return words


def _claim(sentence: PairSentence, text: str) -> Claim | None:
    return parse(text[sentence.start : sentence.end])


def _attributes(pair: Pair, side: Side, labels: frozenset[Label]) -> set[str]:
    claims = [_claim(s, pair.response(side)) for s in pair.sentences(side) if s.label in labels]
    return {claim.attribute for claim in claims if claim}
