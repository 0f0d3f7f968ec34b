"""What the decisions of people say: agreement, and gold."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest
from command_line import exit_code
from sklearn.metrics import cohen_kappa_score

from maskdpo.io import read_records, write_records
from maskdpo.people.agree import agreement_of
from maskdpo.people.gold import GoldStats, gold_records
from maskdpo.people.sentences import Decided, decided, decided_sentences
from maskdpo.schemas import Annotation, Decision, JudgeInfo, Label, Sentence
from maskdpo.verdicts.people import read_decisions, standing

RIGHT, CONTRA, UNSUPPORTED, NO_FACT = (
    Label.NO_HALLUCINATION,
    Label.CONTRADICTORY,
    Label.UNVERIFIABLE,
    Label.NO_FACT,
)
TEXT = "One thing. Another thing. A third thing."
SPANS = ((0, 10), (11, 25), (26, 40))


def decision(reviewer: str, answer: str, place: int, label: Label | None, **more: Any) -> Decision:
    start, end = SPANS[place]
    values: dict[str, Any] = {
        "id": f"{reviewer}-{answer}-{place}",
        "prompt_id": answer,
        "answer_id": answer,
        "response": TEXT,
        "topic": answer,
        "start": start,
        "end": end,
        "reviewer": reviewer,
        "label": label,
        "queue": "random",
        "inclusion": 0.5,
        "act": "skip" if label is None else "label",
    }
    return Decision.model_validate(values | more)


def sentences(decisions: Iterable[Decision], folder: Path) -> list[Decided]:
    """As they come back out of a file."""
    return decided(written(decisions, folder))


def written(decisions: Iterable[Decision], folder: Path) -> list[Decision]:
    file = folder / "decisions.jsonl"
    write_records(file, decisions)
    return read_decisions([file])


def three_people(seed: int = 0, topics: int = 30) -> list[Decision]:
    """Three reviewers of 3 sentences in each answer, who say the same in about two thirds of the cases; the third one
    has not labelled all."""
    rng = np.random.default_rng(seed)
    made = []
    for topic in range(topics):
        for place in range(3):
            true = rng.choice([RIGHT, CONTRA, UNSUPPORTED, NO_FACT], p=[0.4, 0.3, 0.2, 0.1])
            for name, share in (("ada", 1.0), ("ben", 1.0), ("eve", 0.5)):
                if rng.random() < share:
                    said = true if rng.random() < 0.7 else rng.choice([RIGHT, CONTRA, UNSUPPORTED, NO_FACT])
                    made.append(decision(name, f"t{topic}", place, Label(said)))
    return made


def test_figures_are_those_of_the_libraries(tmp_path: Path) -> None:
    made = written(three_people(), tmp_path)
    every = decided(made)
    found = agreement_of(made)
    code = {label: float(i) for i, label in enumerate(Label)}
    ratings = np.full((3, len(every)), np.nan)
    for j, one in enumerate(every):
        for i, name in enumerate(("ada", "ben", "eve")):
            if name in one.by_reviewer:
                ratings[i, j] = code[one.by_reviewer[name].label]  # type: ignore[index]
    assert found.people is not None
    expected = krippendorff.alpha(ratings, level_of_measurement="nominal")
    assert found.people.figures["labels"].value == pytest.approx(expected)
    is_no_fact = np.where(np.isnan(ratings), np.nan, ratings == code[NO_FACT])
    expected = krippendorff.alpha(is_no_fact, level_of_measurement="nominal")
    assert found.people.figures["no_fact"].value == pytest.approx(expected)
    both = [one for one in every if {"ada", "ben"} <= one.by_reviewer.keys()]
    kappa = cohen_kappa_score(*([one.by_reviewer[name].label for one in both] for name in ("ada", "ben")))
    assert found.pairs["ada", "ben"].figures["kappa"].value == pytest.approx(kappa)
    interval = found.people.figures["labels"]
    assert 0 < interval.low < interval.value < interval.high < 1


def test_a_stratified_sample_is_weighed_to_the_whole(tmp_path: Path) -> None:
    """Two strata: one where people agree, drawn whole, and one where they never do, of which a fifth was drawn."""
    made = []
    for topic in range(100):
        answer = f"t{topic}"
        hard = topic >= 50
        if hard and topic % 5:
            continue
        drawn = {"queue": "stratified", "inclusion": 0.2 if hard else 1.0}
        made += [
            decision("ada", answer, 0, RIGHT, **drawn),
            decision("ben", answer, 0, CONTRA if hard else RIGHT, **drawn),
        ]
    found = agreement_of(made)
    assert found.pairs["ada", "ben"].figures["accuracy"].value == pytest.approx(0.5)
    found = agreement_of(made, all_sentences=True)
    assert found.pairs["ada", "ben"].figures["accuracy"].value == pytest.approx(50 / 60)


def test_sentences_that_were_chosen_do_not_count(tmp_path: Path) -> None:
    chosen = {"queue": "uncertain", "inclusion": None}
    made = [decision(name, "t0", place, RIGHT, **chosen) for name in ("ada", "ben") for place in (0, 1)]
    made.append(decision("ada", "t1", 0, RIGHT))
    found = agreement_of(made)
    assert (found.decided, found.shared, found.counted, found.people) == (3, 2, 1, None)
    assert agreement_of(made, all_sentences=True).shared == 2


def test_people_against_the_judge_apart_by_what_they_saw(tmp_path: Path) -> None:
    made = [
        decision("ada", f"t{i}", 0, RIGHT if shown or i % 2 else CONTRA, judged=RIGHT, shown=shown)
        for i in range(40)
        for shown in [i < 20]
    ]
    found = agreement_of(made).judge
    assert found["label shown"].figures["accuracy"].value == 1
    assert found["label hidden"].figures["accuracy"].value == 0.5


def judged_by_ada() -> list[Decision]:
    """A hundred drawn sentences; the judge agrees with 80 of them."""
    return [decision("ada", f"t{i}", 0, RIGHT if i < 80 else CONTRA, judged=RIGHT, shown=False) for i in range(100)]


CHOSEN: dict[str, Any] = {"queue": "uncertain", "inclusion": None}


def test_what_is_decided_again_where_it_is_doubtful_changes_no_figure_of_the_draw() -> None:
    drawn = judged_by_ada()
    again = [
        decision("ada", f"t{i}", 0, RIGHT, id=f"again-{i}", judged=RIGHT, shown=True, **CHOSEN) for i in range(80, 100)
    ]
    alone, both = agreement_of(drawn), agreement_of([*drawn, *again])
    assert both.judge == alone.judge
    assert alone.judge["label hidden"].figures["accuracy"].value == 0.8
    gold = gold_records(decided([*drawn, *again]))
    assert [s.inclusion for record in gold for s in record.sentences] == [0.5] * 100
    assert all(s.label is RIGHT for record in gold for s in record.sentences)  # the newest label is the one of gold


def test_whoever_settles_a_difference_keeps_what_they_said_before() -> None:
    made = three_people()
    apart = [one for one in decided(made) if one.differs]
    settling = [
        one.by_reviewer["ada"].model_copy(
            update={
                "id": f"s{i}",
                "label": RIGHT,
                "adjudicates": ["ada", "ben"],
                "queue": "disagreement",
                "inclusion": None,
            }
        )
        for i, one in enumerate(apart)
    ]
    before, after = agreement_of(made), agreement_of([*made, *settling])
    assert after.people == before.people
    assert after.pairs == before.pairs
    assert (len(before.differing), after.differing) == (len(apart), [])


def test_a_label_that_was_chosen_does_not_count_because_another_person_drew_the_sentence() -> None:
    drawn = judged_by_ada()
    chosen = [decision("ben", f"t{i}", 0, NO_FACT, judged=RIGHT, shown=True, **CHOSEN) for i in range(80, 100)]
    found = agreement_of([*drawn, *chosen])
    assert (found.people, found.pairs, list(found.judge)) == (None, {}, ["label hidden"])


def test_gold_says_what_it_does_not_describe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "d.jsonl", tmp_path / "gold.jsonl"
    write_records(file, [decision("ada", f"t{i}", 0, RIGHT, **CHOSEN) for i in range(3)])
    assert exit_code("gold", file, "--out", out) == 0
    assert "no sentence was drawn at random" in " ".join(capsys.readouterr().err.split())
    judged = Annotation(
        id="t0",
        prompt_id="t0",
        response=TEXT,
        sentences=[Sentence(start=0, end=10, label=RIGHT)],
        judge=JudgeInfo(name="lexical"),
    )
    write_records(tmp_path / "a.jsonl", [judged])
    assert exit_code("evaluate", tmp_path / "a.jsonl", "--gold", out) == 0
    assert "none of its sentences was drawn at random" in " ".join(capsys.readouterr().err.split())
    made = [
        decision(name, f"t{i}", 0, RIGHT if name == "ada" or i else CONTRA) for name in ("ada", "ben") for i in range(4)
    ]
    write_records(file, made)
    assert exit_code("gold", file, "--out", out) == 0
    assert "1 drawn sentences (25%) are left out because people differ" in " ".join(capsys.readouterr().err.split())


def test_gold_is_what_most_say_and_what_was_settled(tmp_path: Path) -> None:
    made = [
        *(decision(name, "a", 0, RIGHT) for name in ("ada", "ben")),  # all say the same
        *(decision(name, "a", 1, label) for name, label in (("ada", RIGHT), ("ben", CONTRA))),  # a tie
        *(decision(name, "a", 2, label) for name, label in (("ada", CONTRA), ("ben", UNSUPPORTED), ("eve", RIGHT))),
        *(decision(name, "b", 0, label) for name, label in (("ada", RIGHT), ("ben", NO_FACT))),
        decision("mia", "b", 0, NO_FACT, queue="disagreement", inclusion=None, adjudicates=["ada", "ben"]),
        decision("ada", "b", 1, None),  # skipped
        decision("ada", "b", 2, CONTRA),
    ]
    stats = GoldStats()
    records = gold_records(sentences(made, tmp_path), stats)
    assert [(r.id, [(s.start, s.label, s.inclusion) for s in r.sentences], r.judge) for r in records] == [
        ("a", [(0, RIGHT, 0.5), (26, Label.HALLUCINATION, 0.5)], None),
        ("b", [(0, NO_FACT, 0.5), (26, CONTRA, 0.5)], None),
    ]
    assert (stats.answers, stats.sentences, stats.ties, stats.skipped, stats.adjudicated) == (2, 4, 1, 1, 1)


def test_a_sentence_cut_in_two_ways_is_gold_only_where_most_cut_it_so(tmp_path: Path) -> None:
    joined = {"end": 25, "made_of": [{"start": 0, "end": 10}, {"start": 11, "end": 25}]}
    made = [
        decision("ada", "a", 0, CONTRA, **joined),
        decision("ben", "a", 0, RIGHT),
        decision("ben", "a", 1, RIGHT),
        decision("ada", "b", 0, CONTRA, **joined),
        decision("eve", "b", 0, CONTRA, **joined),
        decision("ben", "b", 0, RIGHT),
    ]
    stats = GoldStats()
    [record] = gold_records(sentences(made, tmp_path), stats)
    assert (record.id, [(s.start, s.end, s.label) for s in record.sentences]) == ("b", [(0, 25, CONTRA)])
    assert stats.cut_differently == 4


def test_two_draws_have_no_common_probability(tmp_path: Path) -> None:
    made = [decision("ada", f"t{i}", 0, RIGHT) for i in range(3)]
    made.append(decision("ada", "other", 0, RIGHT, queue="stratified", inclusion=0.1))
    stats = GoldStats()
    records = gold_records(sentences(made, tmp_path), stats)
    assert [r.sentences[0].inclusion for r in records] == [0.5, 0.5, 0.5, None]
    assert (stats.drawn, stats.other_draw) == (3, 1)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = standing(three_people(topics=12))
    files = [tmp_path / f"{name}.jsonl" for name in ("ada", "ben")]
    for file in files:
        write_records(file, [one for one in every if one.reviewer == file.stem])
    assert exit_code("agree", *files, "--json", tmp_path / "agree.json") == 0
    shown = capsys.readouterr().out
    assert "Krippendorff's alpha" in shown
    assert "ada, ben" in shown
    figures = json.loads((tmp_path / "agree.json").read_text())
    assert figures["sentences"]["by_several"] == 36
    assert len(figures["differing"]) == sum(one.differs for one in decided_sentences(files))
    assert exit_code("gold", *files, "--out", tmp_path / "gold.jsonl") == 0
    gold = list(read_records(tmp_path / "gold.jsonl", Annotation))
    assert gold
    assert all(record.judge is None for record in gold)
    assert exit_code("validate", tmp_path / "gold.jsonl") == 0


def test_bad_input_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "d.jsonl", tmp_path / "gold.jsonl"
    write_records(file, [decision("ada", "a", 0, None)])
    assert exit_code("gold", file, "--out", out) == 2
    assert "no label in these decisions" in capsys.readouterr().err
    write_records(file, [decision("ada", "a", 0, RIGHT), decision("ben", "a", 0, CONTRA)])
    assert exit_code("gold", file, "--out", out) == 2
    assert "1 ties" in capsys.readouterr().err
    out.write_text("people's own work\n")
    assert exit_code("gold", file, "--out", out) == 2
    assert out.read_text() == "people's own work\n"
    assert exit_code("agree", out) == 2
