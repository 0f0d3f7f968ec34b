"""Articles: what the judge's errors leave open. Sentences of all methods are drawn together and labelled by hand,
before any method is compared; figures and differences are then corrected by these labels."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import maskdpo
from benchmarks.closed_world.map_plan import BASE, Results, Run
from benchmarks.closed_world.methods import METHODS
from benchmarks.closed_world.tables import markdown
from benchmarks.real_model.align import Lab
from benchmarks.real_model.plan import developed
from benchmarks.real_model.tables import title
from maskdpo.evaluate.prediction_powered import FIGURES, compare_powered, powered, topic_sums
from maskdpo.io import read_records, write_records
from maskdpo.review.others import left_of
from maskdpo.review.queue import candidates, make_queue
from maskdpo.schemas import Annotation, Decision, Prompt, group_of
from maskdpo.schemas.labels import Group
from maskdpo.verdicts.estimate import Estimate
from maskdpo.verdicts.gold import matches
from maskdpo.verdicts.people import read_decisions, standing

ANSWERS, DECISIONS = "answers.jsonl", "decisions.jsonl"
"""Beside the lines."""
DRAWN, SEED = 200, 0
GROUPS: tuple[Group, ...] = ("right", "wrong", "no_fact", "not_judged")
Answers = Mapping[str, list[Annotation]]
"""By method, of all seeds at its best rate."""


def unlabelled(lab: Lab, results: Results, folder: Path) -> int:
    """How many of the drawn sentences nobody has labelled yet.

    The answers of all methods are written as one file beside the lines, so that tables can be made on another machine.
    """
    if not (folder / ANSWERS).exists():
        mixed = [one for run in _compared(lab, results) for one in _unnamed(lab, run)]
        write_records(folder / ANSWERS, sorted(mixed, key=lambda one: one.id))
    if not (folder / DECISIONS).exists():
        return DRAWN
    answers = {one.id: one for one in read_records(folder / ANSWERS, Annotation)}
    prompts = {
        one.prompt_id: Prompt(id=one.prompt_id, prompt="?") for one in answers.values()
    }  # the draw reads no text
    drawn = make_queue("random", candidates(answers.values(), prompts), limit=DRAWN, blind=1.0, seed=SEED).chosen
    spans: dict[str, list[Decision]] = {}
    for one in standing(read_decisions([folder / DECISIONS])):
        if one.act == "label":
            spans.setdefault(one.answer_id, []).append(one)
    sentences = {(answer.id, one.start): one for answer in answers.values() for one in answer.sentences}
    return sum(
        bool(left_of(answers[one.answer_id], sentences[one.answer_id, one.start], spans.get(one.answer_id, [])))
        for one in drawn
    )


def ask(lab: Lab, folder: Path, left: int) -> str:
    """The command with which the drawn sentences are labelled."""
    prompts = lab.prompts(lab.plan.seeds[0], "test")
    return (
        f"No figure is shown before {DRAWN} sentences are labelled against their references; {left} are left:\n\n"
        f"    maskdpo review {folder / ANSWERS} --prompts {prompts} --queue random --limit {DRAWN} --seed {SEED} "
        f"--reviewer YOU --out {folder / DECISIONS}\n"
    )


def _compared(lab: Lab, results: Results) -> list[Run]:
    choices = developed(lab.plan, results).choices
    rates = {BASE: 0.0} | {method: choices[method].best_lr for method in lab.plan.methods}
    return [Run(seed, method, lr) for method, lr in rates.items() for seed in lab.plan.seeds]


def _unnamed(lab: Lab, run: Run) -> list[Annotation]:
    """The answers of a line under ids that do not tell whose they are, so that a reviewer cannot see it."""
    file = lab.evaluated(run) / "sampled" / "annotations.jsonl"
    if not file.exists():
        raise SystemExit(f"{file}: is missing, and {ANSWERS} is not there either; take it from where the line was made")
    return [_bare(one, _hidden(run, place)) for place, one in enumerate(read_records(file, Annotation))]


def _bare(annotation: Annotation, id: str) -> Annotation:
    """The answer with its labels alone: without what the judge quotes of articles, and the folders of models."""
    none = {"evidence": None, "reason": None, "scores": None, "confidence": None}
    sentences = [one.model_copy(update=none) for one in annotation.sentences]
    return annotation.model_copy(
        update={"id": id, "model": None, "judge": None, "sampling": None, "sentences": sentences}
    )


def _hidden(run: Run, place: int) -> str:
    return hashlib.sha256(f"{run.method} {run.world} {place}".encode()).hexdigest()[:16]


def answers_of(lab: Lab, results: Results, folder: Path) -> Answers:
    """The answers that are compared. A method that was added after they were put together has none."""
    places = range(lab.plan.setting.final[1] * lab.plan.setting.eval_samples)
    methods = {_hidden(run, place): run.method for run in _compared(lab, results) for place in places}
    answers: dict[str, list[Annotation]] = {}
    for one in read_records(folder / ANSWERS, Annotation):
        answers.setdefault(methods[one.id], []).append(one)
    return answers


def corrected(lab: Lab, results: Results, folder: Path) -> str:
    """The corrected figures of every method, their differences, and the judge against the labels."""
    answers = answers_of(lab, results, folder)
    gold = {one.id: one for one in maskdpo.gold_of_decisions(folder / DECISIONS)}
    anchor = lab.plan.methods[0]
    sums = {names: topic_sums(mine, gold, {}) for names, mine in alike(answers, (BASE, *lab.plan.methods)).items()}
    first = next(mine for names, mine in sums.items() if anchor in names)
    levels, gains = [], []
    for names, mine in sums.items():
        found, shown_as = powered(mine), " = ".join(map(title, names))
        if isinstance(found, str):
            levels.append([shown_as, found, *("-" for _ in FIGURES)])
        else:
            shown = [_interval(found.figures[name]) for name in FIGURES]
            levels.append([shown_as, str(found.gold_sentences), *shown])
        difference = compare_powered(first, mine).difference
        if mine is not first and difference is not None:
            gains.append([shown_as, *(_interval(difference[name], "+") for name in FIGURES)])
    return "\n\n".join(
        [
            f"## {lab.plan.name}: corrected by the labels by hand (prediction-powered, 95% intervals over topics)",
            markdown(["method", "labelled sentences", *FIGURES], levels),
            f"## Corrected: less {METHODS[anchor].title}",
            markdown(["method", *FIGURES], gains),
            "## The judge against the labels",
            against_labels(answers, gold),
        ]
    )


def alike(answers: Answers, order: Sequence[str]) -> dict[tuple[str, ...], list[Annotation]]:
    """The answers by method, where methods with the same answers are one: the labels of either speak of both. Masks of
    two methods are the same where the judge calls no sentence ``no_fact``."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for method in order:
        if method in answers:
            said = tuple(sorted(f"{one.prompt_id} {one.response}" for one in answers[method]))
            groups.setdefault(said, []).append(method)
    return {tuple(names): [one for name in names for one in answers[name]] for names in groups.values()}


def against_labels(answers: Answers, gold: Mapping[str, Annotation]) -> str:
    """The labels of the sentences that the judge calls so, over all methods."""
    every = [one for mine in answers.values() for one in mine]
    counts = Counter(
        (group_of(match.sentence.label if match.sentence else None), group_of(match.gold.label))
        for match in matches(every, gold)
    )
    rows = [[said, *(str(counts[said, true]) for true in GROUPS[:3])] for said in GROUPS]
    return markdown(["the judge says", *(f"label: {name}" for name in GROUPS[:3])], rows)


def _interval(estimate: Estimate, sign: str = "") -> str:
    return f"{estimate.value:{sign}.3f} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"
