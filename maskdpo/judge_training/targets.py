"""Which labels a judge tells apart, and what each labelled sentence says about them.

A target is a distribution over sets of classes: a row of a large judge spreads its probability over several sets, and a
row that only says "wrong" names the set of all wrong classes. With p the judge's probabilities, the loss of a target is

    L = - sum_S q(S) log sum_(c in S) p(c)

which is the cross-entropy for single classes, and the marginal likelihood of the partial label for larger sets
(Jin and Ghahramani, 2002: Learning with multiple labels).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from maskdpo.errors import UserError
from maskdpo.judge_training.examples import LabelledSentence
from maskdpo.judge_training.settings import ClassSet
from maskdpo.schemas import RIGHT, WRONG, Label, Scores

Classes = tuple[Label, ...]
Target = tuple[tuple[float, frozenset[Label]], ...]
"""(q, S): shares that sum to 1, and the classes that each is about."""

RIGHT_LABEL, WRONG_LABEL = Label.NO_HALLUCINATION, Label.HALLUCINATION
CLASS_SETS: Mapping[str, Classes] = {
    "four": (RIGHT_LABEL, Label.CONTRADICTORY, Label.UNVERIFIABLE, Label.NO_FACT),
    "three": (RIGHT_LABEL, WRONG_LABEL, Label.NO_FACT),
    "two": (RIGHT_LABEL, WRONG_LABEL),
}
LEAST_SHARE = 0.005
"""With ``auto`` a label is a class of its own from this share of the sentences on: fewer teach nothing."""


def choose_classes(wanted: ClassSet, examples: Sequence[LabelledSentence], *, soft: bool) -> Classes:
    """The classes of the judge, right first.

    Raises:
        UserError: the sentences do not have a class that is asked for, or only one class at all.
    """
    mass: Counter[Label] = Counter()
    for example in examples:
        mass.update(example.scores if soft and example.scores else {example.label: 1.0})
    classes = _present(mass) if wanted == "auto" else CLASS_SETS[wanted]
    missing = [label for label in classes if not sum(mass[one] for one in mass if _meant(one, classes) == {label})]
    if missing and wanted != "auto":
        raise UserError(
            f"`classes` {wanted}: no sentence has the label {missing[0].value}; take `classes` auto, or fewer classes"
        )
    said = {one for one in mass if mass[one] > 0 and _meant(one, classes)}
    if not said & RIGHT or not said & WRONG:
        have = ", ".join(f"{mass[label]:.0f} {label.value}" for label in Label if mass[label])
        raise UserError(
            f"a judge learns from right and from wrong sentences, and these are of one kind only ({have}); add a file "
            "with the others" + ("" if said & WRONG else ", or `augment` to make wrong ones out of right ones")
        )
    return classes


def _present(mass: Mapping[Label, float]) -> Classes:
    total = sum(mass.values())
    often = {label for label, one in mass.items() if one >= LEAST_SHARE * total}
    fine = {Label.CONTRADICTORY, Label.UNVERIFIABLE} <= often
    wrong = (Label.CONTRADICTORY, Label.UNVERIFIABLE) if fine else (WRONG_LABEL,)
    return (RIGHT_LABEL, *wrong, *((Label.NO_FACT,) if Label.NO_FACT in often else ()))


def _meant(label: Label, classes: Iterable[Label]) -> frozenset[Label]:
    """The classes that a label may stand for; none where the judge has no such class."""
    if label in classes:
        return frozenset({label})
    return frozenset(classes) & WRONG if label in WRONG else frozenset()


def target_of(label: Label, scores: Scores | None, classes: Classes) -> Target | None:
    """What a sentence says about the classes; None where it says nothing about them.

    Probability that the scores leave unassigned goes to the set of the classes that have no score of their own.
    """
    shares: dict[frozenset[Label], float] = {}
    for one, share in (scores or {label: 1.0}).items():
        meant = _meant(one, classes)
        if meant and share > 0:
            shares[meant] = shares.get(meant, 0.0) + share
    if scores is not None:
        scored = frozenset[Label]().union(*(_meant(one, classes) for one in scores))
        others, rest = frozenset(classes) - scored, 1.0 - sum(scores.values())
        if others and rest > 1e-6:
            shares[others] = shares.get(others, 0.0) + rest
    total = sum(shares.values())
    return tuple((share / total, meant) for meant, share in shares.items()) if total > 1e-6 else None


def speaks_of(label: Label, classes: Iterable[Label]) -> bool:
    """Whether a judge of these classes can agree with a label."""
    return bool(_meant(label, classes))
