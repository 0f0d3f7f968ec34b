"""``maskdpo train-judge``."""

import shlex
from typing import TYPE_CHECKING

from maskdpo import console
from maskdpo.judge_training.settings import TrainJudgeSettings

if TYPE_CHECKING:
    from maskdpo.judge_training.result import JudgeResult


def train_judge(settings: TrainJudgeSettings) -> None:
    """Train a judge on labelled sentences: people's labels, or the probabilities of a larger judge.

    Repeat the same command to continue an interrupted run from its last checkpoint. `annotate --judge classifier
    --model OUT` judges with the result; docs/train-judge.md is the guide.
    """
    from maskdpo.annotate.sentences import by_classifier
    from maskdpo.hub.push import check_push, push_model
    from maskdpo.judge_training.run import train_judge as run
    from maskdpo.run_folder import published

    if settings.push:
        check_push(settings.push)
    result = run(settings, by_classifier)
    if result is not None:
        _show(result)
    if settings.push:
        console.say(push_model(settings.push, published(settings.out), "Judge and card, with maskdpo train-judge"))


def _show(result: "JudgeResult") -> None:
    from maskdpo.judge_training.figures import SHOWN, shown
    from maskdpo.verdicts.estimate import few_topics

    rows: list[tuple[str, object]] = [("sentences trained on", result.data.rows)]
    rows += [("of them changed", result.data.changed)] if result.data.changed else []
    rows += [("sentences of held-out topics", result.data.held_out)]
    for count in result.files:
        rows += [(f"{count.file}: left out, {reason}", number) for reason, number in count.left_out.most_common()]
    rows += [(f"left out, {reason}", number) for reason, number in result.data.left_out.items()]
    rows += [("classes", ", ".join(label.value for label in result.classes))]
    rows += [("steps", result.steps if result.steps == result.total else f"{result.steps} of {result.total}")]
    rows += [("weights of step", result.best)] if result.best is not None else []
    rows += [("calibration fitted to", result.calibrated_to)] if result.calibrated_to else []
    console.table(f"train-judge -> {result.out}", ("", "value"), rows)
    if result.held_out is not None:
        held = [(title, shown(result.held_out.before.get(key))) for key, title in SHOWN.items()]
        title = f"{console.counted(result.held_out.sentences, 'sentence')} of held-out topics"
        console.table(title, ("", "before calibration"), held, few_topics(result.held_out.topics))
    if result.gold is not None:
        after = result.gold.after or {}
        both = [(title, shown(result.gold.before.get(k)), shown(after.get(k))) for k, title in SHOWN.items()]
        title, notes = console.counted(result.gold.sentences, "gold sentence"), few_topics(result.gold.topics)
        console.table(title, ("", "before calibration", "after"), both, notes)
    with_calibration = f" --calibration {shlex.quote(str(result.calibration))}" if result.calibration else ""
    console.say(
        f"judge with it: maskdpo annotate PROMPTS RESPONSES --judge classifier --model {shlex.quote(str(result.out))}"
        f"{with_calibration} --out annotations.jsonl"
    )
