"""A judge without a model: it compares the names, numbers and dates of a sentence with those of the reference.

It is deterministic and fast, and right where answers are short statements of facts and the reference states the
same facts in plain sentences. It knows words, not meanings: it does not see synonyms, does not reason ("born in
1950, so 70 in 2020"), and calls what it cannot find in the reference ``unverifiable``. In Chinese and other scripts
without capitals it reads numbers, dates and Latin names only; a sentence with none of them is refused, not guessed.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import maskdpo
from maskdpo.annotate.judge import Task, Verdict
from maskdpo.annotate.judges import claims as c
from maskdpo.annotate.judges.evidence import Place, Reference
from maskdpo.errors import UserError
from maskdpo.schemas import JudgeInfo, Label, Prompt, Status

SHARED = 0.5
"""How much of what a clause says (its words, weighted by rarity) the supporting sentences must say too."""
ABOUT = 0.6
"""How much of it a sentence with another value must say to contradict the clause."""
UNKNOWN = 0.25
"""What a word that the reference never uses counts, beside the rarest word that it does use."""


@dataclass(slots=True)
class _Known:
    """An analysed reference and the verdicts given with it."""

    key: tuple[object, str]
    reference: Reference
    verdicts: dict[str, Verdict] = field(default_factory=dict)


class LexicalJudge:
    """Labels sentences by comparing their names, numbers and dates with the prompt's reference."""

    def __init__(self, *, cache_size: int = 256) -> None:
        self.info = JudgeInfo(name="lexical", version=maskdpo.__version__)
        self._cache: OrderedDict[str, _Known] = OrderedDict()
        self._cache_size = cache_size

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        """One verdict a span; a prompt without a reference raises ``UserError``."""
        for task in tasks:
            known = self._known(task.prompt)
            yield task, [self._verdict(known, task.sentence(i)) for i in range(len(task.spans))]

    def _known(self, prompt: Prompt) -> _Known:
        key = (prompt.reference, prompt.topic or "")
        known = self._cache.get(prompt.id)
        if known is None or known.key != key:
            if not any(passage.strip() for passage in prompt.passages):
                raise UserError(
                    f"prompt {prompt.id!r} has no reference, and the lexical judge compares with one: "
                    "add a 'reference' to the prompt or take another judge"
                )
            known = _Known(key, Reference(prompt.passages, prompt.topic or ""))
            self._cache[prompt.id] = known
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        self._cache.move_to_end(prompt.id)
        return known

    def _verdict(self, known: _Known, sentence: str) -> Verdict:
        verdict = known.verdicts.get(sentence)
        if verdict is None:
            verdict = verdict_on(sentence, known.reference)
            if len(known.verdicts) < 4096:  # a long run must not grow without bound
                known.verdicts[sentence] = verdict
        return verdict


def lexical_judge(*, cache_size: int = 256) -> LexicalJudge:
    """The factory that the registry calls."""
    return LexicalJudge(cache_size=cache_size)


@dataclass(frozen=True, slots=True)
class _Finding:
    """What the reference says of one claim."""

    label: Label
    places: tuple[int, ...]
    reason: str


def verdict_on(sentence: str, reference: Reference) -> Verdict:
    """The verdict on one sentence."""
    found = c.tokens(sentence)
    claims = c.without_topic([*c.names(found, reference.names), *c.quantities(found)], found, reference.topic)
    claims.sort(key=lambda claim: claim.at)
    if len(claims) > 1:
        claims = [claim for claim in claims if not claim.weak]
    grouped = c.clauses(found, claims, reference.weights)
    if claims and claims[0].weak and not reference.weight(grouped[0].words):
        claims = []
    if not claims:
        return _without_claims(found, grouped, reference)
    findings = [_finding(claim, clause, reference) for clause in grouped for claim in clause.claims]
    return _worst(findings, reference)


def _worst(findings: list[_Finding], reference: Reference) -> Verdict:
    for label in (Label.CONTRADICTORY, Label.UNVERIFIABLE, Label.NO_HALLUCINATION):
        those = [finding for finding in findings if finding.label is label]
        if those:
            lines = dict.fromkeys(reference.sentences[i].text for finding in those for i in finding.places)
            reason = "; ".join(dict.fromkeys(finding.reason for finding in those))
            return Verdict(label, evidence="\n".join(lines) or None, reason=reason)
    raise AssertionError("no findings")


def _without_claims(found: tuple[c.Token, ...], grouped: list[c.Clause], reference: Reference) -> Verdict:
    """No name, number or date: right or wrong only if one clause of the reference has all the words."""
    if sum(_is_caseless(token.raw) for token in found) * 2 > len(found):
        return Verdict(
            None, Status.REFUSED, reason="this judge cannot read names in a script without capitals"
        )
    words = frozenset().union(*(clause.words for clause in grouped)) - set(reference.topic)
    negated = any(clause.negated for clause in grouped)
    if words and all(word in reference.weights for word in words):
        for sentence in reference.sentences:
            for clause in sentence.clauses:
                if words <= clause.words and not clause.claims:  # with claims, what it says is their values
                    same = clause.negated == negated
                    label = Label.NO_HALLUCINATION if same else Label.CONTRADICTORY
                    says = "the same" if same else "the opposite"
                    return Verdict(label, evidence=sentence.text, reason=f"the reference says {says}")
    return Verdict(Label.NO_FACT, reason="no name, number or date to check")


def _is_caseless(raw: str) -> bool:
    return raw[0].isalpha() and raw.lower() == raw.upper()


def _finding(claim: c.Claim, clause: c.Clause, reference: Reference) -> _Finding:
    words = clause.words - set(reference.topic)
    known = {word for word in words if word in reference.weights}
    places = reference.places(claim)
    agreeing = [p for p in places if p.clause.negated == clause.negated]
    good = _supporting(claim, words, known, agreeing, reference)
    about = _about(claim, known)
    if good:
        return _Finding(
            Label.NO_HALLUCINATION,
            tuple(sorted({p.sentence for p in good})[:3]),
            f"{about}the reference has {claim.text}",
        )
    opposite = _supporting(claim, words, known, [p for p in places if p not in agreeing], reference)
    if opposite:
        return _Finding(
            Label.CONTRADICTORY, (opposite[0].sentence,), f"{about}the reference says the opposite"
        )
    return _otherwise(claim, clause, words, known, reference, about)


def _about(claim: c.Claim, known: set[str]) -> str:
    return f"{' '.join(sorted(known))}: " if known else f"{claim.relation}: " if claim.relation else ""


def _supporting(
    claim: c.Claim, words: frozenset[str], known: set[str], places: list[Place], reference: Reference
) -> list[Place]:
    """Those of the places that speak of the same; empty where they say too little of what the clause says."""
    if not known:
        return [p for p in places if p.claim.relation == claim.relation]
    near = [p for p in places if p.clause.words & known]
    if not near:
        return []
    said = frozenset().union(*(reference.sentences[p.sentence].words for p in near))
    top = max(reference.weight([word]) for word in known)
    whole = reference.weight(known) + UNKNOWN * top * len(words - known)
    return near if reference.weight(known & said) >= SHARED * whole else []


def _otherwise(
    claim: c.Claim, clause: c.Clause, words: frozenset[str], known: set[str], reference: Reference, about: str
) -> _Finding:
    """Contradictory where the reference gives other values for the same words, else unverifiable."""
    others: list[tuple[float, int, str]] = []
    for number, sentence in enumerate(reference.sentences):
        for other in sentence.clauses:
            values = [v for v in other.claims if v.kind == claim.kind]
            denied = (
                not other.claims and other.negated and not clause.negated
            )  # "does not border any country"
            if not denied and (not values or other.negated != clause.negated):
                continue
            if known:
                shared = reference.weight(known & other.words) / reference.weight(known)
            else:
                plain = not other.words - set(reference.topic)
                shared = float(plain and any(v.relation == claim.relation for v in values))
            if shared >= ABOUT:
                others.append((-shared, number, ", ".join(v.text for v in values[:4])))
    if others:
        _, number, text = min(others)
        says = f"has {text}" if text else "denies it"
        return _Finding(Label.CONTRADICTORY, (number,), f"{about}the reference {says}, not {claim.text}")
    return _Finding(Label.UNVERIFIABLE, (), f"{about}the reference does not have {claim.text}")
