"""Calibrated probabilities and the label that follows from them."""

import math
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from maskdpo.errors import InputError, UserError
from maskdpo.schemas import WRONG, JudgeInfo, Label, Sentence, Status, group_of
from maskdpo.verdicts.decision import (
    Calibration,
    Parameters,
    Rule,
    classes,
    compatible,
    decide,
    likeliest,
    own_verdict,
    read_calibration,
    refuse_other_judge,
)

RIGHT, CONTRA, UNVER, WRONG_, NO_FACT = Label
JUDGE = JudgeInfo(name="llm", model="m", revision="abc", protocol="single", protocol_hash="h")

shares = st.floats(1e-4, 1, allow_nan=False)


@st.composite
def scores(draw: st.DrawFn, least: int = 1) -> dict[Label, float]:
    """Scores of some labels; the rest of a sum below 1 is unassigned."""
    labels = draw(st.lists(st.sampled_from(list(Label)), min_size=least, unique=True))
    raw = [draw(shares) for _ in labels]
    total = draw(st.sampled_from((1.0, 0.999999, 0.9, 0.5, 0.1)))
    return {label: total * value / sum(raw) for label, value in zip(labels, raw, strict=True)}


offsets = st.dictionaries(st.sampled_from(list(Label)), st.floats(-3, 3))
parameters = st.builds(Parameters, temperature=st.floats(0.2, 5), offsets=offsets)


@given(scores())
def test_temperature_1_and_no_offsets_change_nothing(given_scores: dict[Label, float]) -> None:
    assert Parameters().apply(given_scores) == pytest.approx(given_scores, abs=2e-5)


@given(scores(), parameters)
def test_probabilities_of_labels_and_the_unassigned_one_sum_to_1(s: dict[Label, float], p: Parameters) -> None:
    found = p.apply(s)
    assert all(0 <= value <= 1 for value in found.values())
    assert sum(found.values()) <= 1 + 1e-9
    if sum(s.values()) > 1 - 1e-4:
        assert sum(found.values()) == pytest.approx(1)
        assert found.keys() >= s.keys()
    else:
        assert found.keys() == s.keys()  # nothing moves unassigned probability into a label
        assert sum(found.values()) < 1


@given(scores(least=2), parameters, st.floats(0.05, 0.5))
def test_more_score_for_a_label_is_more_probability(s: dict[Label, float], p: Parameters, share: float) -> None:
    one, other, *_ = s
    moved = s | {one: s[one] + share * s[other], other: (1 - share) * s[other]}
    assert p.apply(moved)[one] >= p.apply(s)[one]  # both may round to 1
    assert p.apply(moved)[other] < p.apply(s)[other]


@given(scores(), parameters)
def test_the_label_is_the_likeliest_of_the_likeliest_class(s: dict[Label, float], p: Parameters) -> None:
    label, confidence = p.choose(s)
    assert label is not None
    found = p.apply(s)
    assert confidence == pytest.approx(max(classes(found).values()))
    assert found[label] == max(value for other, value in found.items() if group_of(other) == group_of(label))


def test_wrong_is_the_sum_of_its_labels_and_the_confidence_that_of_the_class() -> None:
    label, confidence = Parameters().choose({RIGHT: 0.4, CONTRA: 0.35, UNVER: 0.25})
    assert (label, confidence) == (CONTRA, pytest.approx(0.6))


def test_an_unassigned_probability_is_no_label() -> None:
    found = Parameters(temperature=0.5).apply({NO_FACT: 0.3})
    assert found == {NO_FACT: pytest.approx(0.3**2 / (0.3**2 + 0.7**2))}


def test_labels_without_a_vote_take_part_where_nothing_is_unassigned() -> None:
    votes = Parameters(offsets={RIGHT: 0.0, WRONG_: 2.0}, floor=0.1)
    assert votes.apply({RIGHT: 1.0})[WRONG_] == pytest.approx(0.1 * math.exp(2) / (1 + 0.1 * math.exp(2)))
    assert WRONG_ not in votes.apply({RIGHT: 0.6})


@given(scores(least=2), st.floats(0.01, 0.9))
def test_the_band_of_abstention(s: dict[Label, float], width: float) -> None:
    found = sorted(classes(s).values(), reverse=True)
    gap = (found[0] - (found[1] if len(found) > 1 else 0.0)) / sum(found)
    assume(abs(gap - width) > 1e-3)
    label, _ = Parameters(abstain=width).choose(s)
    assert (label is None) == (gap < width)


def test_weights_and_thresholds() -> None:
    s = {RIGHT: 0.7, WRONG_: 0.3}
    assert Parameters(weights={"wrong": 3.0}).choose(s) == (WRONG_, pytest.approx(0.3))
    assert Parameters(thresholds={"right": 0.7 - 1e-9}).choose(s)[0] == RIGHT
    assert Parameters(thresholds={"right": 0.71}).choose(s)[0] is None
    assert Parameters(thresholds={"right": None}).choose(s)[0] is None
    assert Parameters(thresholds={"right": None}).choose({NO_FACT: 0.6, RIGHT: 0.4})[0] == NO_FACT


def calibration(**changes: object) -> Calibration:
    return Calibration.model_validate(
        {"judge": JUDGE, "aim": "balanced", "parameters": Parameters(offsets={WRONG_: 2.0})} | changes
    )


def test_decide() -> None:
    s = {RIGHT: 0.7, WRONG_: 0.3}
    own = decide(RIGHT, None, s, Rule())
    assert own == (RIGHT, Status.OK, 0.7)
    label, status, confidence = decide(RIGHT, 0.7, s, Rule(calibration()))
    assert (label, status) == (WRONG_, Status.OK)
    assert confidence == pytest.approx(0.3 * math.exp(2) / (0.7 + 0.3 * math.exp(2)))
    assert decide(RIGHT, 0.7, s, Rule(calibration(), 0.8)) == (None, Status.UNSURE, None)
    assert decide(RIGHT, 0.7, s, Rule(None, 0.8)) == (None, Status.UNSURE, None)
    assert decide(RIGHT, 0.7, s, Rule(None, 0.7)) == (RIGHT, Status.OK, 0.7)
    assert decide(None, None, s, Rule()) == (RIGHT, Status.OK, 0.7)


def test_a_verdict_that_nothing_is_known_of_keeps_its_label() -> None:
    assert decide(RIGHT, None, None, Rule(calibration(), 0.9)) == (RIGHT, Status.OK, None)
    assert decide(RIGHT, 0.5, None, Rule(calibration())) == (RIGHT, Status.OK, 0.5)
    assert decide(RIGHT, 0.5, None, Rule(calibration(), 0.9)) == (None, Status.UNSURE, None)
    with pytest.raises(ValueError, match="needs a label or scores"):
        decide(None, None, None, Rule())


def test_the_verdict_of_the_judge_itself_after_a_rule_has_replaced_it() -> None:
    s = {RIGHT: 0.4, CONTRA: 0.6}
    kept = Sentence(start=0, end=1, label=RIGHT, confidence=0.4, scores=s)  # where the turns of a protocol led
    assert own_verdict(kept, JUDGE) == (RIGHT, 0.4)
    assert own_verdict(kept, JUDGE.model_copy(update={"calibration": "x"})) == (CONTRA, 0.6)
    unsure = Sentence(start=0, end=1, status=Status.UNSURE, scores=s)
    assert own_verdict(unsure, JUDGE) == (CONTRA, 0.6)


@pytest.mark.parametrize(
    ("gold", "labels", "agree"),
    [
        (RIGHT, [RIGHT, WRONG_], [RIGHT]),
        (NO_FACT, [RIGHT, WRONG_], []),
        (WRONG_, [RIGHT, CONTRA, UNVER], [CONTRA, UNVER]),
        (CONTRA, [RIGHT, CONTRA, UNVER], [CONTRA]),
        (CONTRA, [RIGHT, WRONG_], [WRONG_]),
        (CONTRA, [RIGHT, CONTRA, WRONG_], [CONTRA, WRONG_]),
        (CONTRA, [RIGHT, UNVER], [UNVER]),
    ],
)
def test_labels_that_agree_with_gold(gold: Label, labels: list[Label], agree: list[Label]) -> None:
    assert compatible(gold, labels) == agree


@given(st.sampled_from(list(Label)), st.sets(st.sampled_from(list(Label))))
def test_a_label_agrees_only_within_its_class(gold: Label, labels: set[Label]) -> None:
    assert all(group_of(label) == group_of(gold) for label in compatible(gold, labels))
    if gold in WRONG and labels & WRONG:
        assert compatible(gold, labels)


def test_the_hash_is_of_what_decides_labels() -> None:
    one = calibration()
    assert one.hash == calibration(seed=3, gold_sha256="other").hash
    assert one.hash != calibration(parameters=Parameters(offsets={WRONG_: 2.1})).hash
    assert one.hash != calibration(judge=JUDGE.model_copy(update={"model": "n"})).hash


def test_another_judge_is_refused_by_what_differs() -> None:
    refuse_other_judge(calibration(), JUDGE.model_copy(update={"splitter": "nltk", "calibration": "x"}))
    refuse_other_judge(calibration(), JUDGE.model_copy(update={"model": "/other/folder"}))  # the same files
    for change in ({"model": "n", "revision": "d"}, {"protocol": "joint"}, {"votes": 3}, {"name": "mine"}):
        with pytest.raises(UserError, match=next(iter(change))):
            refuse_other_judge(calibration(), JUDGE.model_copy(update=change))


def test_the_commit_of_a_model_on_the_hub_may_be_known_to_one_side_only() -> None:
    before, after, other = (
        JUDGE.model_copy(update={"model": "org/m", "revision": revision}) for revision in (None, "org/m@1", "org/m@2")
    )
    refuse_other_judge(calibration(judge=before), after)
    refuse_other_judge(calibration(judge=after), before)
    with pytest.raises(UserError, match="revision"):
        refuse_other_judge(calibration(judge=after), other)
    with pytest.raises(UserError, match="model"):
        refuse_other_judge(calibration(judge=before), after.model_copy(update={"model": "org/n"}))


def test_a_file_and_what_is_none(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(calibration().model_dump_json())
    assert read_calibration(file) == calibration()
    file.write_text('{"format_version": 2}')
    with pytest.raises(InputError, match=r"c\.json.*no file that maskdpo calibrate writes"):
        read_calibration(file)
    with pytest.raises(InputError, match="no such file"):
        read_calibration(tmp_path / "none.json")


# --- one rule for what scores say without a calibration ----------------------------------------------

THREE_WAYS = {RIGHT: 0.4, UNVER: 0.35, CONTRA: 0.25}


@given(scores())
def test_what_scores_say_is_what_parameters_that_change_nothing_choose(s: dict[Label, float]) -> None:
    found = sorted(classes(s).values(), reverse=True)
    assume(len(found) == 1 or found[0] - found[1] > 1e-3)
    inside = sorted((v for k, v in s.items() if group_of(k) == group_of(likeliest(s))), reverse=True)
    assume(len(inside) == 1 or inside[0] - inside[1] > 1e-6)
    assert likeliest(s) == Parameters().choose(s)[0]


def test_the_class_is_decided_before_the_label() -> None:
    assert likeliest(THREE_WAYS) == UNVER
    assert likeliest({WRONG_: 0.5, RIGHT: 0.5}) == RIGHT  # of equal ones the first
    assert decide(None, None, THREE_WAYS, Rule()) == (UNVER, Status.OK, 0.35)
    unsure = Sentence(start=0, end=1, status=Status.UNSURE, scores=THREE_WAYS)
    assert own_verdict(unsure, JUDGE) == (UNVER, 0.35)
    replaced = Sentence(start=0, end=1, label=RIGHT, confidence=0.9, scores=THREE_WAYS)
    assert own_verdict(replaced, JUDGE.model_copy(update={"calibration": "x"})) == (UNVER, 0.35)


@pytest.mark.parametrize("rule", [Rule(None, 0.55), Rule(calibration(parameters=Parameters()), 0.55)])
def test_the_least_confidence_is_compared_with_the_probability_of_the_class(rule: Rule) -> None:
    assert decide(UNVER, 0.35, THREE_WAYS, rule)[:2] == (UNVER, Status.OK)
    assert decide(RIGHT, None, {RIGHT: 0.5, CONTRA: 0.3, UNVER: 0.2}, rule)[:2] == (None, Status.UNSURE)


def test_scores_that_do_not_speak_of_the_class_of_the_label_leave_its_confidence_to_decide() -> None:
    assert decide(WRONG_, None, {RIGHT: 0.9}, Rule(None, 0.5)).label == WRONG_
    assert decide(WRONG_, 0.4, {RIGHT: 0.9}, Rule(None, 0.5)).label is None
