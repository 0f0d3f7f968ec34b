"""Verdicts on sentences that are there already, for other stages: nothing is split, and nothing is written."""

from collections.abc import Sequence

from maskdpo.annotate.judge import Judge, Task, Verdict
from maskdpo.annotate.settings import JudgeSettings
from maskdpo.console import progress
from maskdpo.schemas import JudgeInfo, Label, Prompt, Response, Scores, Sentence, Span, Status
from maskdpo.settings_reading import load_settings

Answers = Sequence[tuple[Prompt, Response, list[Span], list[Span]]]
"""Answers with the spans to judge, and with their other spans. The answers have ids of their own."""


def judge_sentences(judge: Judge, answers: Answers) -> list[list[Verdict]]:
    """The verdicts of a judge, in the order of the answers and their spans."""
    found: dict[str, list[Verdict]] = {}
    tasks = (
        Task(prompt, response, spans, tuple(Sentence(**o._asdict(), status=Status.UNSURE) for o in others))
        for prompt, response, spans, others in answers
    )
    with progress("judge", len(answers), "answers") as bar:
        for task, verdicts in judge.judge(tasks):
            found[task.response.id] = verdicts
            bar.advance(1)
    return [found[response.id] for _, response, _, _ in answers]


def by_classifier(
    model: str, answers: Answers, device: str | None
) -> tuple[JudgeInfo, list[list[tuple[Label | None, Scores | None]]]]:
    """Label and scores of every sentence by ``annotate --judge classifier --model MODEL``, and what is recorded of this
    judge."""
    judge = load_settings(JudgeSettings, {"judge": "classifier", "model": model, "device": device}).make_judge()
    verdicts = judge_sentences(judge, answers)
    return judge.info, [[(one.label, one.scores) for one in of_answer] for of_answer in verdicts]
