"""A judge without a model: it compares the names, numbers and dates of a sentence with those of the reference.

The lexical judge is deterministic and fast. It is right where answers are short statements of facts and the
reference states the same facts in plain sentences. It compares words, not meanings: it knows no synonyms, does
not reason ("born in 1950, so 70 in 2020"), knows English words only, and labels what is not in the reference
``unverifiable``. For free prose about an article of an encyclopaedia a model is the better judge. In Chinese and
other scripts without capitals the lexical judge reads numbers, dates and Latin names only; a sentence without any of
them gets the status ``refused`` instead of a label.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from maskdpo.annotate.judge import Task, Verdict
from maskdpo.console import counted
from maskdpo.errors import UserError
from maskdpo.schemas import JudgeInfo, Label, Prompt, Status
from maskdpo.schemas.language import primary
from maskdpo.text.claims.claims import Claim, Clause, clauses, find_claims
from maskdpo.text.claims.reference import Mention, Reference
from maskdpo.text.claims.tokens import Token, tokenize
from maskdpo.text.language import UNKNOWN, detect_language

VERSION = "0.1.0"
"""The version of maskdpo that last changed the verdicts of this judge. Labels of different versions are not mixed, so
this changes only where verdicts change."""
SUPPORT_SHARE = 0.55
"""Least share of the words of a clause (weighted by rarity) that the supporting sentences must have too."""
CONTRADICTION_SHARE = 0.6
"""Least share of these words that a sentence with another value must have to contradict the clause."""
UNKNOWN_WORD_WEIGHT = 0.25
"""Weight of a word that the reference does not have, relative to the rarest word of the clause that it has."""
PASSAGE_SHARE = 0.5
"""Least share of the words of a sentence without claims that one passage must have to support it."""
PASSAGE_MIN_WORDS = 5
"""A sentence with fewer words is not supported by its words alone."""
PROSE_WORDS = 15
"""Words per sentence from which on references are free prose: those of the demo have 10, web pages 20."""
VERDICTS_KEPT = 4096
"""Per prompt, so that the memory of a long run stays bounded."""


@dataclass(slots=True)
class _CachedReference:
    """A reference that was read, and the verdicts that were given with it."""

    key: tuple[object, str]
    reference: Reference
    verdicts: dict[str, Verdict] = field(default_factory=dict)


class LexicalJudge:
    """Labels sentences by comparing their names, numbers and dates with the prompt's reference."""

    needs_reference = True

    def __init__(self, *, cache_size: int = 256) -> None:
        """``cache_size``: number of references to keep, the ones used last."""
        self.info = JudgeInfo(name="lexical", version=VERSION)
        self._cache: OrderedDict[str, _CachedReference] = OrderedDict()
        self._cache_size = cache_size
        self._reference_words = self._reference_sentences = 0
        self._foreign: Counter[str] = Counter()

    def notes(self) -> list[str]:
        """What the labels are worth where answers are not in English, or where the references are free prose."""
        return [*self._notes_on_languages(), *self._notes_on_prose()]

    def _notes_on_languages(self) -> list[str]:
        if not self._foreign:
            return []
        languages = ", ".join(sorted(self._foreign))
        answers = counted(self._foreign.total(), "answer is", "answers are")
        return [
            f"{answers} in other languages than English ({languages}): the lexical judge knows English words only, and "
            "reads nothing but numbers, dates and capitals there; take another judge for such answers"
        ]

    def _notes_on_prose(self) -> list[str]:
        if self._reference_words < PROSE_WORDS * self._reference_sentences or not self._reference_sentences:
            return []
        mean = self._reference_words / self._reference_sentences
        return [
            f"the references are free prose ({mean:.0f} words per sentence), where the lexical judge is little better "
            "than chance (balanced accuracy 0.44 on Factcheck-Bench): do not train on these labels. docs/judges.md "
            "says which judge to take"
        ]

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        """See ``Judge``. A prompt without a reference raises ``UserError``."""
        for task in tasks:
            known = self._cached(task.prompt)
            language = primary(task.prompt.language or detect_language(task.response.response))
            if language not in ("en", UNKNOWN):
                self._foreign[language] += 1
            yield task, [self._verdict(known, task.sentence(i)) for i in range(len(task.spans))]

    def _cached(self, prompt: Prompt) -> _CachedReference:
        key = (prompt.reference, prompt.topic or "")
        known = self._cache.get(prompt.id)
        if known is None or known.key != key:
            if not prompt.has_reference:
                raise UserError(
                    f"prompt {prompt.id!r} has no reference, and the lexical judge compares with one: "
                    "add a 'reference' to the prompt or take another judge"
                )
            known = _CachedReference(key, Reference(prompt.passages, prompt.topic or ""))
            self._cache[prompt.id] = known
            self._reference_sentences += len(known.reference.sentences)
            self._reference_words += sum(len(sentence.text.split()) for sentence in known.reference.sentences)
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        self._cache.move_to_end(prompt.id)
        return known

    def _verdict(self, known: _CachedReference, sentence: str) -> Verdict:
        verdict = known.verdicts.get(sentence)
        if verdict is None:
            verdict = verdict_on(sentence, known.reference)
            if len(known.verdicts) < VERDICTS_KEPT:
                known.verdicts[sentence] = verdict
        return verdict


@dataclass(frozen=True, slots=True)
class _Finding:
    """What the reference says about one claim."""

    label: Label
    sentences: tuple[int, ...]
    subject: str
    reason: str


def verdict_on(sentence: str, reference: Reference) -> Verdict:
    """The verdict on one sentence."""
    tokens = tokenize(sentence)
    claims = find_claims(tokens, reference.names, reference.topic)
    if len(claims) > 1:
        claims = [claim for claim in claims if not claim.weak or reference.mentions(claim)]
    grouped = clauses(tokens, claims, reference.weights)
    if claims and claims[0].weak and not reference.weight(grouped[0].words):
        claims = []  # "Tourism is important" names nothing
    if not claims:
        return _without_claims(tokens, grouped, reference)
    findings = [_finding(claim, clause, reference) for clause in grouped for claim in clause.claims]
    for label in (Label.CONTRADICTORY, Label.UNVERIFIABLE, Label.NO_HALLUCINATION):
        decisive = [finding for finding in findings if finding.label is label]
        if decisive:
            break
    lines = dict.fromkeys(reference.sentences[i].text for finding in decisive for i in finding.sentences)
    return Verdict(label, evidence="\n".join(lines) or None, reason=_joined(decisive))


def _joined(findings: list[_Finding]) -> str:
    """ "border: the reference has Spain, Italy": one reason for claims of one kind."""
    by_subject: dict[str, list[str]] = {}
    for finding in findings:
        by_subject.setdefault(finding.subject, []).append(finding.reason)
    return "; ".join(subject + ", ".join(dict.fromkeys(reasons)) for subject, reasons in by_subject.items())


def _without_claims(tokens: tuple[Token, ...], grouped: list[Clause], reference: Reference) -> Verdict:
    """A sentence without claims is supported by a clause with all its words, or by a passage with most of them."""
    if sum(token.caseless for token in tokens) * 2 > len(tokens):
        return Verdict(None, Status.REFUSED, reason="this judge cannot read names in a script without capitals")
    words = {word for clause in grouped for word in clause.words} - set(reference.topic)
    negated = any(clause.negated for clause in grouped)
    if words and words <= reference.weights.keys():
        denies = any(token.fold in ("no", "without") for token in tokens)  # "no official language"
        for sentence in reference.sentences:
            for clause in sentence.clauses:
                # a clause with claims states values: only a denial can be compared with it
                if words <= clause.words.keys() and (not clause.claims or (denies and not clause.negated)):
                    same = clause.negated == negated
                    label = Label.NO_HALLUCINATION if same else Label.CONTRADICTORY
                    says = "the same" if same else "the opposite"
                    return Verdict(label, evidence=sentence.text, reason=f"the reference says {says}")
    supported = _supported_by_passage(words, negated, reference)
    return supported or Verdict(Label.NO_FACT, reason="no name, number or date to check")


def _supported_by_passage(words: set[str], negated: bool, reference: Reference) -> Verdict | None:
    """Support for a long sentence by a passage that has nearly all of its words."""
    if len(words) < PASSAGE_MIN_WORDS or negated:
        return None
    top = max(reference.weights.values(), default=1.0)
    whole = sum(reference.weights.get(word, top) for word in words)
    shares = [reference.weight(words & passage) / whole for passage in reference.passages]
    best = max(range(len(shares)), key=shares.__getitem__, default=None)
    if best is None or shares[best] < PASSAGE_SHARE:
        return None
    inside = [s for s in reference.sentences if s.passage == best]
    evidence = max(inside, key=lambda s: reference.weight(words & s.words))
    return Verdict(Label.NO_HALLUCINATION, evidence=evidence.text, reason="the reference says nearly the same")


def _finding(claim: Claim, clause: Clause, reference: Reference) -> _Finding:
    words = clause.words.keys() - set(reference.topic)
    known = words & reference.weights.keys()
    said = " ".join(clause.words[word] for word in clause.words if word in known) or claim.relation
    subject = f"{said}: the reference " if said else "the reference "
    if clause.before_claims - set(reference.topic) and not known:  # "The economy is European", without an economy
        return _Finding(Label.UNVERIFIABLE, (), f"{subject}does not speak of ", " ".join(clause.words.values()))
    mentions = _on_same_subject(claim, clause, reference.mentions(claim), reference)
    agreeing = [p for p in mentions if p.clause.negated == clause.negated]
    good = _supporting(claim, words, known, agreeing, reference)
    if good:
        shown = tuple(dict.fromkeys(p.sentence for p in good))[:2]
        return _Finding(Label.NO_HALLUCINATION, shown, f"{subject}has ", claim.text)
    opposite = _supporting(claim, words, known, [p for p in mentions if p not in agreeing], reference)
    if opposite:
        return _Finding(Label.CONTRADICTORY, (opposite[0].sentence,), subject, f"says the opposite of {claim.text}")
    return _without_support(claim, clause, known, reference, subject)


def _on_same_subject(claim: Claim, clause: Clause, mentions: list[Mention], reference: Reference) -> list[Mention]:
    """The mentions in passages that name the same subject: the lead of the clause, or the name beside a direction."""
    partner = clause.lead if claim is not clause.lead else None
    if claim.kind == "direction":
        partner = _nearest_name(claim, clause) or partner
    if partner is None or not mentions:
        return mentions
    passages = reference.passages_with(partner)
    return [p for p in mentions if reference.sentences[p.sentence].passage in passages]


def _nearest_name(direction: Claim, clause: Clause) -> Claim | None:
    """ "Spain" in "Spain to the south" and in "to the south, Spain"."""
    names = [claim for claim in clause.claims if claim.kind == "name"]
    before = [claim for claim in names if claim.at < direction.at]
    return before[-1] if before else next(iter(names), None)


def _supporting(
    claim: Claim, words: set[str], known: set[str], mentions: list[Mention], reference: Reference
) -> list[Mention]:
    """The mentions whose clauses share words with this one; none where they share too few."""
    if not known:
        return [p for p in mentions if p.claim.relation == claim.relation]
    near = [p for p in mentions if p.clause.words.keys() & known]
    if not near:
        return []
    said = frozenset[str]().union(*(reference.sentences[p.sentence].words for p in near))
    top = max(reference.weights[word] for word in known)
    whole = reference.weight(known) + UNKNOWN_WORD_WEIGHT * top * len(words - known)
    return near if reference.weight(known & said) >= SUPPORT_SHARE * whole else []


def _without_support(claim: Claim, clause: Clause, known: set[str], reference: Reference, subject: str) -> _Finding:
    """Contradictory where the reference gives other values for the same words, else unverifiable."""
    best, found = 0.0, None
    for other in reference.statements(known):
        denied = not other.values and other.clause.negated and not clause.negated  # "does not border any country"
        values = other.values.get(claim.kind, [])
        if denied or (values and other.clause.negated == clause.negated):
            shared = _shared(claim, known, other.clause, reference)
            if shared >= CONTRADICTION_SHARE and shared > best:
                best, found = shared, other
    if found is None:
        return _Finding(Label.UNVERIFIABLE, (), f"{subject}does not have ", claim.text)
    values = [value for value in found.values.get(claim.kind, []) if not value.weak]
    says = f"has {', '.join(v.text for v in values[:4])}" if values else "denies it"
    more = "..." if len(values) > 4 else ""
    return _Finding(Label.CONTRADICTORY, (found.sentence,), f"{subject}{says}{more}, not ", claim.text)


def _shared(claim: Claim, known: set[str], other: Clause, reference: Reference) -> float:
    """The share of the words of a clause that another one has; without words, 1 if the preposition is the same."""
    if known:
        return reference.weight(known & other.words.keys()) / reference.weight(known)
    return float(any(v.relation == claim.relation for v in other.claims))
