"""Articles: what the judge's errors leave open. Sentences of all methods are drawn together and labelled by hand,
before any method is compared; figures and differences are then corrected by these labels."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import maskdpo
from benchmarks.closed_world.map_plan import BASE, Results, Run
from benchmarks.closed_world.methods import METHODS
from benchmarks.closed_world.tables import markdown
from benchmarks.real_model.align import Lab
from benchmarks.real_model.plan import developed
from benchmarks.real_model.tables import title
from maskdpo.evaluate.prediction_powered import FIGURES, compare_powered, powered, topic_sums
from maskdpo.io import read_prompts, read_records, write_records
from maskdpo.schemas import Annotation, group_of
from maskdpo.verdicts.estimate import Estimate
from maskdpo.verdicts.gold import matches

DRAWN = 200
GROUPS = ("right", "wrong", "no_fact", "not_judged")
Answers = Mapping[str, list[Annotation]]
"""By method, of all seeds at its best rate."""


def answers_of(lab: Lab, results: Results) -> Answers:
    """The answers that are compared. Their ids do not tell whose they are, so that a reviewer cannot see it."""
    choices = developed(lab.plan, results).choices
    rates = {BASE: 0.0} | {method: choices[method].best_lr for method in lab.plan.methods}
    runs = {method: [Run(lab.plan.part, seed, method, lr) for seed in lab.plan.seeds] for method, lr in rates.items()}
    return {method: [one for run in mine for one in _unnamed(lab, run)] for method, mine in runs.items()}


def _unnamed(lab: Lab, run: Run) -> list[Annotation]:
    annotations = read_records(lab.evaluated(run) / "sampled" / "annotations.jsonl", Annotation)
    return [one.model_copy(update={"id": _hidden(run, one.id), "model": None}) for one in annotations]


def _hidden(run: Run, answer: str) -> str:
    return hashlib.sha256(f"{run.method} {run.world} {answer}".encode()).hexdigest()[:16]


def ask(lab: Lab, results: Results, decisions: Path) -> str:
    """Write the answers of all methods as one file; the command with which people label some of their sentences."""
    file = lab.root / "to_review.jsonl"
    mixed = [one for answers in answers_of(lab, results).values() for one in answers]
    write_records(file, sorted(mixed, key=lambda one: one.id))
    prompts = lab.prompts(lab.plan.seeds[0], "test")
    return (
        f"No figure is shown before {DRAWN} sentences are labelled against their references:\n\n"
        f"    maskdpo review {file} --prompts {prompts} --queue random --limit {DRAWN} "
        f"--reviewer YOU --out {decisions}\n"
    )


def corrected(lab: Lab, results: Results, decisions: Path) -> str:
    """The corrected figures of every method, their differences, and the judge against people."""
    answers, gold = answers_of(lab, results), {one.id: one for one in maskdpo.gold_of_decisions(decisions)}
    prompts = read_prompts(lab.prompts(lab.plan.seeds[0], "test"))
    topics = {prompt.id: prompt.shared_topic for prompt in prompts.values()}
    sums = {method: topic_sums(mine, gold, topics) for method, mine in answers.items()}
    anchor = lab.plan.methods[0]
    levels, gains = [], []
    for method, mine in sums.items():
        found = powered(mine)
        if isinstance(found, str):
            levels.append([title(method), found, *("-" for _ in FIGURES)])
        else:
            shown = [_interval(found.figures[name]) for name in FIGURES]
            levels.append([title(method), str(found.gold_sentences), *shown])
        difference = compare_powered(sums[anchor], mine).difference
        if method != anchor and difference is not None:
            gains.append([title(method), *(_interval(difference[name], "+") for name in FIGURES)])
    return "\n\n".join(
        [
            f"## {lab.plan.name}: corrected by labels of people (prediction-powered, 95% intervals over topics)",
            markdown(["method", "labelled sentences", *FIGURES], levels),
            f"## Corrected: less {METHODS[anchor].title}",
            markdown(["method", *FIGURES], gains),
            "## The judge against people",
            against_people(answers, gold),
        ]
    )


def against_people(answers: Answers, gold: Mapping[str, Annotation]) -> str:
    """What people say of the sentences that the judge calls so, over all methods."""
    every = [one for mine in answers.values() for one in mine]
    counts = Counter(
        (group_of(match.sentence.label if match.sentence else None), group_of(match.gold.label))
        for match in matches(every, gold)
    )
    rows = [[said, *(str(counts[said, true]) for true in GROUPS[:3])] for said in GROUPS]
    return markdown(["the judge says", *(f"people: {name}" for name in GROUPS[:3])], rows)


def _interval(estimate: Estimate, sign: str = "") -> str:
    return f"{estimate.value:{sign}.3f} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"
