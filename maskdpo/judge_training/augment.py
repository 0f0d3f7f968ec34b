"""Wrong sentences made out of right ones, by another number, date or name: negatives that look like positives.

A changed sentence is only kept where the reference does not say it as well: no sentence of the reference that has the
new value may share another claim with the changed sentence, nor many of its words (``_SHARED``). What has been changed
must itself be in the reference. A supported sentence can still come out where the reference says it in other words, or
in two sentences, so that a small share of these labels is wrong.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from maskdpo.judge_training.examples import LabelledSentence
from maskdpo.schemas import Label
from maskdpo.text.claims.claims import Claim, find_claims
from maskdpo.text.claims.quantities import Quantity, agree
from maskdpo.text.claims.reference import Reference, within
from maskdpo.text.claims.tokens import tokenize
from maskdpo.text.claims.words import STOP

_SHARED = 0.3
"""The most content words of a changed sentence, as a share, that a sentence of the reference with the new value has."""
_DIGITS = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_FACTORS = (0.4, 0.5, 0.7, 1.3, 1.5, 2.0, 3.0)
LEAST_RIGHT = 0.9
"""The least probability of a right sentence that is changed, where it has scores."""


def augmented(examples: Sequence[LabelledSentence], share: float, seed: int) -> list[LabelledSentence]:
    """Changed copies of a share of the right sentences. Sentences without a number, date or name that can be changed
    have none, so that there may be fewer. The same seed gives the same copies."""
    right = [example for example in examples if _is_right(example)]
    chosen = [e for e in right if random.Random(f"choose:{seed}:{e.id}").random() < share]
    names = _names_of(chosen)
    return [copy for e in chosen if (copy := change(e, random.Random(f"change:{seed}:{e.id}"), names)) is not None]


def _is_right(example: LabelledSentence) -> bool:
    if example.label is not Label.NO_HALLUCINATION:
        return False
    return example.scores is None or example.scores.get(Label.NO_HALLUCINATION, 0.0) >= LEAST_RIGHT


def change(example: LabelledSentence, draw: random.Random, names: Sequence[Claim] = ()) -> LabelledSentence | None:
    """A copy with one value changed, labelled as wrong; None where no change is safe.

    Args:
        names: names out of other sentences, for sentences whose own reference has no fitting one.
    """
    reference = _reference(tuple(example.prompt.passages))
    claims = [claim for claim in _claims(example.sentence, reference) if _changeable(claim, reference)]
    draw.shuffle(claims)
    for claim in claims:
        place = _place(example.sentence, claim.text)
        if place is None:
            continue
        old = example.sentence[place[0] : place[1]]
        for value in _values(old, claim, reference, draw, names):
            sentence = example.sentence[: place[0]] + value + example.sentence[place[1] :]
            if sentence != example.sentence and _is_wrong(sentence, claim, place[0], value, reference):
                return replace(
                    example,
                    id=f"{example.id}~",
                    sentence=sentence,
                    label=Label.HALLUCINATION,
                    scores=None,
                    changed=f"{old} -> {value}",
                )
    return None


@lru_cache(maxsize=64)
def _reference(passages: tuple[str, ...]) -> Reference:
    return Reference(passages, "")


def _claims(text: str, reference: Reference) -> list[Claim]:
    return find_claims(tokenize(text), reference.names, ())


def _changeable(claim: Claim, reference: Reference) -> bool:
    if claim.kind not in ("name", "date", "number") or claim.weak or len(claim.text) < 2 - bool(claim.quantity):
        return False
    if claim.quantity and not _DIGITS.search(claim.text):
        return False
    return bool(reference.mentions(claim))


def _place(sentence: str, text: str) -> tuple[int, int] | None:
    """Where the text stands as a whole word; None where it stands there not once, or several times."""
    found = list(re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", sentence, re.IGNORECASE))
    return found[0].span() if len(found) == 1 else None


def _values(
    text: str, claim: Claim, reference: Reference, draw: random.Random, names: Sequence[Claim]
) -> Iterator[str]:
    """Texts to put in place of a claim: those of the reference first, then others of the same kind."""
    if claim.quantity:
        yield from _quantities(text, claim.quantity, reference, draw)
        return
    near = _near(claim, reference)
    own = [
        mention
        for i, sentence in enumerate(reference.sentences)
        if i not in near
        for clause in sentence.clauses
        for mention in clause.claims
        if _is_name(mention, reference)
    ]
    for pool in (own, names):
        fitting = list(dict.fromkeys(name.text for name in pool if _alike(name, claim)))
        yield from draw.sample(fitting, min(len(fitting), 8))


def _is_name(claim: Claim, reference: Reference) -> bool:
    """Whether it is surely a name: single words must have their capital letter inside sentences too."""
    known = len(claim.words) > 1 or (bool(claim.words) and claim.words[0] in reference.names)
    return claim.kind == "name" and not claim.weak and len(claim.text) > 2 and "'" not in claim.text and known


def _alike(name: Claim, old: Claim) -> bool:
    """Whether a name can stand where another one stood: behind the same preposition or as first, and as long."""
    return (
        (name.relation, name.at == 0) == (old.relation, old.at == 0)
        and (len(name.words) > 1, name.text.isupper()) == (len(old.words) > 1, old.text.isupper())
        and not within(name.words, old.words)
        and not within(old.words, name.words)
    )


def _near(claim: Claim, reference: Reference) -> set[int]:
    """The sentences of the reference with the claim and those beside them, whose names may be true here too."""
    return {mention.sentence + step for mention in reference.mentions(claim) for step in (-1, 0, 1)}


def _quantities(text: str, quantity: Quantity, reference: Reference, draw: random.Random) -> Iterator[str]:
    """The text with another number in place of its year or, where it has none, of its first number."""
    runs = list(_DIGITS.finditer(text))
    run = next((one for one in runs if quantity.kind == "date" and len(one[0]) == 4), runs[0])
    others = [
        digits[0]
        for sentence in reference.sentences
        for clause in sentence.clauses
        for claim in clause.claims
        if claim.quantity and claim.quantity.unit == quantity.unit and not claim.quantity.date
        if (digits := _DIGITS.search(claim.text))
    ]
    known = list(dict.fromkeys(one for one in others if (len(one) == 4) == (len(run[0]) == 4)))
    draw.shuffle(known)
    for new in [*known[:6], *(_other_number(run[0], quantity, draw) for _ in range(4))]:
        yield text[: run.start()] + new + text[run.end() :]


def _other_number(digits: str, quantity: Quantity, draw: random.Random) -> str:
    plain = digits.replace(",", "")
    if quantity.kind == "date":
        if len(plain) == 4:
            return str(min(2099, int(plain) + draw.choice([-1, 1]) * draw.randint(1, 20)))
        return str(draw.randint(1, 28))
    value, decimals = float(plain), len(plain.partition(".")[2])
    if value < 20 and not decimals:
        return str(draw.choice([n for n in range(2, 20) if n != value]))
    new = round(value * draw.choice(_FACTORS), decimals)
    return f"{new:,.{decimals}f}" if "," in digits else f"{new:.{decimals}f}"


def _is_wrong(sentence: str, old: Claim, start: int, value: str, reference: Reference) -> bool:
    """Whether the reference does not say the changed sentence, as far as its words tell."""
    claims = _claims(sentence, reference)
    shown = value.casefold()
    new = next((c for c in claims if c.text.casefold() in shown or shown in c.text.casefold()), None)
    if new is None or new.kind != old.kind:
        return False
    if new.quantity and old.quantity and (agree(new.quantity, old.quantity) or agree(old.quantity, new.quantity)):
        return False
    rest = sentence[:start] + sentence[start + len(value) :]
    words = {token.stem for token in tokenize(rest) if token.word and token.fold not in STOP}
    others = [claim for claim in claims if claim is not new and claim.kind != "direction"]
    for mention in reference.mentions(new):
        said = reference.sentences[mention.sentence]
        if not words or len(words & said.words) > _SHARED * len(words):
            return False
        if any(mention.sentence in {found.sentence for found in reference.mentions(other)} for other in others):
            return False
    return True


def _names_of(examples: Sequence[LabelledSentence]) -> list[Claim]:
    """Names in the sentences, in their order."""
    found: dict[tuple[str, str], Claim] = {}
    for example in examples[:2000]:
        reference = _reference(tuple(example.prompt.passages))
        for claim in _claims(example.sentence, reference):
            if _is_name(claim, reference):
                found[claim.text, claim.relation] = claim
    return list(found.values())
