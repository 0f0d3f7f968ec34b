"""What the finished judge is measured and calibrated on."""

from collections.abc import Sequence

import pytest
from judge_data import SAYS

from maskdpo.judge_training.examples import LabelledSentence
from maskdpo.judge_training.figures import LEAST_TO_CALIBRATE, Judged, fit_calibration, judge_figures
from maskdpo.schemas import JudgeInfo, Label, Prompt, Span

RIGHT, WRONG = Label.NO_HALLUCINATION, Label.HALLUCINATION
JUDGE = JudgeInfo(name="classifier", model="m")


def examples(count: int, *, by_judge: bool, swapped: bool = False) -> tuple[list[LabelledSentence], list[Judged]]:
    """Sentences, right and wrong in turn, and what a judge says of them, which is the opposite where ``swapped``."""
    found: list[LabelledSentence] = []
    judged: list[Judged] = []
    for i in range(count):
        label = (RIGHT, WRONG)[i % 2]
        text = SAYS[label]
        prompt = Prompt(id="p", prompt="?", reference="x")
        found.append(
            LabelledSentence(
                f"{by_judge}{i}#0", prompt, f"t{i // 2 % 7}", text, Span(0, len(text)), text, label, None, 1.0, by_judge
            )
        )
        right = 0.1 + 0.8 * ((label is RIGHT) != swapped)
        judged.append((RIGHT if right > 0.5 else WRONG, {RIGHT: right, WRONG: 1 - right}))
    return found, judged


def fitted(*parts: tuple[Sequence[LabelledSentence], Sequence[Judged]]) -> tuple[str, int, bool] | None:
    """Whose labels, how many, and whether a high score for right means right."""
    found = fit_calibration([e for some, _ in parts for e in some], [j for _, some in parts for j in some], JUDGE, 0)
    if found is None:
        return None
    right = found.calibration.parameters.choose({RIGHT: 0.9, WRONG: 0.1})[0] is RIGHT
    return found.labels, found.calibration.gold_sentences, right


def test_labels_of_people_decide_the_calibration_where_there_are_enough() -> None:
    few, enough = LEAST_TO_CALIBRATE - 2, LEAST_TO_CALIBRATE
    machine = examples(200, by_judge=True)
    assert fitted(machine) == ("labels of a judge", 200, True)
    assert fitted(machine, examples(few, by_judge=False)) == ("labels of people and of a judge", 200 + few, True)
    assert fitted(machine, examples(enough, by_judge=False)) == ("labels of people", enough, True)
    assert fitted(examples(few, by_judge=False)) is None


def test_every_figure_has_an_interval_over_topics() -> None:
    found, judged = examples(60, by_judge=False)
    judged[:5] = [(RIGHT, {RIGHT: 0.9, WRONG: 0.1})] * 5
    figures = judge_figures(found, judged, None).before
    for name in ("auroc", "balanced_accuracy", "brier", "ece"):
        assert figures[name].low < figures[name].high
        assert figures[name].low <= figures[name].value <= figures[name].high
    assert figures["balanced_accuracy"].value == pytest.approx((1 + 28 / 30) / 2)
