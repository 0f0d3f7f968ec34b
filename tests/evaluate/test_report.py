"""``report`` runs for annotations, for two of them, and for pairs; tables and JSON are those of ``evaluate``."""

import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import exit_code

from maskdpo.api import evaluate_annotations, write_report
from maskdpo.cli import main
from maskdpo.errors import UserError
from maskdpo.html.render import SummaryTable


def rows(labels: tuple[str, ...], text: str = "One is so.") -> list[dict[str, Any]]:
    return [
        {"id": f"a{i}", "prompt_id": f"q{i}", "response": text, "sentences": [{"start": 0, "end": 10, "label": label}]}
        for i, label in enumerate(labels)
    ]


@pytest.fixture
def before(jsonl: Any) -> Path:
    return jsonl("before.jsonl", rows(("no_hallucination", "contradictory", "no_fact")))


@pytest.fixture
def gold(jsonl: Any) -> Path:
    """People who agree with the judge."""
    return jsonl("gold.jsonl", rows(("no_hallucination", "contradictory", "no_fact")))


@pytest.fixture
def after(jsonl: Any) -> Path:
    return jsonl("after.jsonl", rows(("no_hallucination",) * 3, "Two is so."))


@pytest.fixture
def prompts(jsonl: Any) -> Path:
    return jsonl("prompts.jsonl", [{"id": f"q{i}", "prompt": f"Question {i}?", "topic": "t"} for i in range(3)])


def data(page: Path) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(found)


def test_one_file(before: Path, gold: Path, prompts: Path, tmp_path: Path) -> None:
    stats = write_report(before, tmp_path / "r.html", prompts=prompts, gold=gold, title="My title")
    assert (stats.items, stats.answers, stats.sentences, stats.gold_sentences) == (3, 3, 3, 3)
    page = (tmp_path / "r.html").read_text()
    assert "My title" in page
    assert "One is so." in page
    assert "Question 2?" in page
    assert "kappa" in page


def test_two_files(before: Path, after: Path, tmp_path: Path) -> None:
    stats = write_report(before, tmp_path / "r.html", compare=after)
    assert (stats.items, stats.answers, stats.unmatched) == (3, 6, 0)
    page = (tmp_path / "r.html").read_text()
    assert "One is so." in page
    assert "Two is so." in page
    assert "after - before" in page


def test_several_files_are_plotted_and_the_last_stands_beside_the_first(
    before: Path, after: Path, jsonl: Any, tmp_path: Path
) -> None:
    last = jsonl("last.jsonl", rows(("contradictory",) * 3, "Three is so."))
    stats = write_report(before, tmp_path / "r.html", compare=[after, last])
    assert (stats.items, stats.answers) == (3, 6)
    found = data(tmp_path / "r.html")
    assert {side["t"] for item in found["items"] for side in item["a"]} == {"One is so.", "Three is so."}
    shares = {name: figures["right / all sentences"] for name, figures in found["by_file"].items()}
    assert {name: share["value"] for name, share in shares.items()} == pytest.approx(
        {"before": 1 / 3, "after": 1.0, "last": 0.0}
    )
    assert shares["before"]["low"] < 1 / 3 < shares["before"]["high"]
    assert "beside 2 others" in (tmp_path / "r.html").read_text()
    write_report(before, tmp_path / "r.html", compare=[after, last], labels=["no training", "one", "two"])
    assert list(data(tmp_path / "r.html")["by_file"]) == ["no training", "one", "two"]
    assert "two - no training" in (tmp_path / "r.html").read_text()
    with pytest.raises(UserError, match="each of the 2 files of `compare`, each differently, and is given 2 names"):
        write_report(before, tmp_path / "r.html", compare=[after, last], labels=["no training", "one"])
    write_report(before, tmp_path / "r.html", compare=after)
    assert "by_file" not in data(tmp_path / "r.html")


@pytest.mark.parametrize(("name", "begins"), [("f.png", b"\x89PNG"), ("f.svg", b"<?xml"), ("f.pdf", b"%PDF")])
def test_evaluate_draws_the_main_figures(
    before: Path, after: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, begins: bytes
) -> None:
    out = tmp_path / name
    assert maskdpo(monkeypatch, "evaluate", before, "--compare", after, "--plot", out) == 0
    assert out.read_bytes().startswith(begins)


def test_what_cannot_be_plotted(
    before: Path, after: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, message in (
        ((before, "--plot", "f.png"), "--plot goes with --compare: it sets the figures"),
        ((before, "--compare", after, "--plot", "f.gif"), "f.gif: the name must end in .png, .svg, .pdf"),
        ((before, "--compare", after, "--plot", after), "after.jsonl"),
    ):
        assert maskdpo(monkeypatch, "evaluate", *words) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    assert after.read_text().startswith("{")


def test_files_of_one_name_are_told_apart_by_their_folders(before: Path, after: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "before.jsonl"
    twin.write_bytes(after.read_bytes())
    assert list(evaluate_annotations(before, compare=[after, twin]).main_figures()) == [
        *map(str, (before, after, twin))
    ]


def test_pairs(jsonl: Any, tmp_path: Path) -> None:
    sentence = [{"start": 0, "end": 3, "label": "no_hallucination"}]
    pair = {"id": "a|b", "prompt_id": "q", "topic": "t", "prompt": "Where?", "chosen": "Here.", "rejected": "There."}
    file = jsonl("pairs.jsonl", [pair | {"chosen_sentences": sentence, "rejected_sentences": []}])
    assert write_report(file, tmp_path / "r.html").items == 1
    assert "There." in json.dumps(data(tmp_path / "r.html"))
    for more in ({"compare": file}, {"gold": file}):
        with pytest.raises(UserError, match="is a pairs file: `compare` and `gold` take annotations"):
            write_report(file, tmp_path / "no.html", **more)


def test_other_records_have_no_report(prompts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds prompt records; report takes annotations, pairs or a training"):
        write_report(prompts, tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()


def cells(table: SummaryTable) -> dict[str, Sequence[str]]:
    return {row[0]: row[1:] for row in table.rows}


def test_a_table_of_one_file(before: Path, prompts: Path) -> None:
    (table,) = evaluate_annotations(before, prompts=prompts).tables()
    assert table.title == "before.jsonl: 3 answers, 1 topic"
    assert cells(table)["wrong sentences / answer"] == ("0.333",)
    assert cells(table)["characters / answer"][0].startswith("10")
    assert not any("penalty" in name for name in cells(table))
    (table,) = evaluate_annotations(before, prompts=prompts, length_penalty=1).tables()
    assert cells(table)["precision, length penalty 1"] == ("0.333",)


def test_a_table_of_two_files_marks_what_is_certain(before: Path, after: Path, prompts: Path, jsonl: Any) -> None:
    (table,) = evaluate_annotations(before, compare=after, prompts=prompts, length_penalty=1).tables()
    assert table.title == "before.jsonl -> after.jsonl: 3 and 3 answers, the 1 topic of both"
    found = cells(table)
    assert found["wrong sentences / answer"][2] == "-0.333"
    assert found["answers cut off"] == ("-", "-", "-")
    assert found["precision, length penalty 1"][2] == "+0.667"  # one topic proves nothing
    (note,) = table.notes
    assert note.startswith("Only 1 topic: intervals need two, and no difference gets a star")
    wrong, right = (jsonl(f"{name}.jsonl", rows((name,) * 10)) for name in ("contradictory", "no_hallucination"))
    (table,) = evaluate_annotations(wrong, compare=right).tables()
    found = cells(table)
    assert found["wrong sentences / answer"][2] == "-1.00 [-1.62, -0.383] *"
    assert not found["not judged / answer"][2].endswith("*")
    assert table.notes == []
    elsewhere = jsonl("e.jsonl", [row | {"prompt_id": "z"} for row in rows(("no_fact",))])
    with pytest.raises(UserError, match="share no topic, so there is nothing to compare"):
        evaluate_annotations(before, compare=elsewhere)


def test_tables_of_agreement(before: Path, gold: Path, after: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, figures, confusion, scores, *four = evaluate_annotations(before, gold=gold).tables()
    assert figures.columns[2] == 'always "right"'
    assert cells(figures) == {
        "gold answers": ("3", ""),
        "of them not annotated": ("0", ""),
        "gold sentences": ("3", ""),
        "of them judged": ("3", ""),
        "coverage": ("1.000", ""),
        "accuracy": ("1.00 [0.292, 1.00]", "0.333"),
        "Cohen's kappa": ("1.00 [-0.415, 1.00]", "0.000"),
        "Krippendorff's alpha": ("1.00 [-0.415, 1.00]", "-0.111"),  # 1 - 5 * 4 / (36 - 18)
        "balanced accuracy": ("1.00 [0.292, 1.00]", "0.333"),
        "macro F1": ("1.00 [0.292, 1.00]", "0.167"),
    }
    assert cells(confusion) == {
        "right": ("1", "0", "0", "0"),
        "wrong": ("0", "1", "0", "0"),
        "no_fact": ("0", "0", "1", "0"),
    }
    assert cells(scores)["wrong"] == ("1.000", "1.000", "1.000", "1")
    assert [table.title for table in four] == [
        "before.jsonl against gold.jsonl, four labels",
        "confusion by label",
        "by label",
    ]
    assert cells(four[1])["contradictory"] == ("0", "1", "0", "0", "0")
    assert cells(four[2])["unverifiable"] == ("-", "-", "-", "0")
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="share no judged sentence: do the ids and the texts of the answers match"):
        evaluate_annotations(before, gold=after)


def test_gold_answers_that_were_not_annotated_are_shown_and_warned_of(
    before: Path, jsonl: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = rows(("no_hallucination", "hallucination", "unverifiable", "no_fact"))
    gold[1]["response"] = "Two is so."
    _, figures, _, _, four, *_ = evaluate_annotations(before, gold=jsonl("gold.jsonl", gold)).tables()
    shown = cells(figures)
    assert (shown["gold answers"][0], shown["of them not annotated"][0], shown["coverage"][0]) == ("4", "2", "0.500")
    assert four.title.endswith("four labels (without 1 sentence with the gold label hallucination)")
    warnings = " ".join(capsys.readouterr().err.split())
    assert "1 gold answer has another text in" in warnings
    assert "only 50% of the gold sentences were judged" in warnings


def maskdpo(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["maskdpo", *map(str, arguments)])
    try:
        main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def test_json_of_one_file_and_of_agreement(
    before: Path, gold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "figures.json"
    assert maskdpo(monkeypatch, "evaluate", before, "--gold", gold, "--length-penalty", 2, "--json", out) == 0
    found = json.loads(out.read_text())
    assert (found["annotations"], found["gold"]) == (str(before), str(gold))
    assert (found["compare"], found["comparison"]) == (None, None)
    assert (found["summary"]["answers"], found["summary"]["topics"]) == (3, 3)
    figures = found["summary"]["figures"]
    assert figures["wrong sentences / answer"] == {
        "value": pytest.approx(1 / 3),
        "low": pytest.approx(0.0045, abs=1e-4),
        "high": pytest.approx(24.63, abs=0.01),  # three topics say little
        "topics": 3,
    }
    assert figures["answers cut off"] == {"value": None, "low": None, "high": None, "topics": 0}
    assert figures["precision, length penalty 2"]["value"] == pytest.approx(math.exp(-1) / 3)
    agreed = found["agreement"]
    assert (agreed["gold_answers"], agreed["not_annotated"], agreed["other_text"]) == (3, 0, 0)
    three = agreed["three_classes"]
    kappa = {"value": 1.0, "low": pytest.approx(-0.415, abs=1e-3), "high": 1.0, "topics": 3}
    assert three["figures"]["kappa"] == kappa
    assert (three["baseline"]["always"], three["baseline"]["accuracy"]) == ("right", pytest.approx(1 / 3))
    assert three["per_class"]["wrong"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}
    assert three["confusion"]["wrong"] == {"right": 0, "wrong": 1, "no_fact": 0, "not_judged": 0}
    assert agreed["four_labels"]["per_class"]["unverifiable"]["recall"] is None


def test_json_of_a_comparison(before: Path, after: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "figures.json"
    assert maskdpo(monkeypatch, "evaluate", before, "--compare", after, "--json", out) == 0
    found = json.loads(out.read_text())
    assert (found["compare"], found["summary"], found["agreement"]) == (str(after), None, None)
    name = "right / all sentences"
    sides = [found["comparison"][side]["figures"][name]["value"] for side in ("before", "after")]
    assert sides == pytest.approx([1 / 3, 1.0])
    assert found["comparison"]["difference"][name]["value"] == pytest.approx(2 / 3)


def test_json_appears_by_a_rename(before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, link = tmp_path / "figures.json", tmp_path / "link"
    out.write_text("old")
    link.hardlink_to(out)
    assert maskdpo(monkeypatch, "evaluate", before, "--json", out) == 0
    assert json.loads(out.read_text())["agreement"] is None
    assert link.read_text() == "old"  # written in place, the old file would have changed


def test_json_is_left_alone_by_a_failed_command_and_is_never_an_input(
    before: Path, after: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    out.write_text("from an earlier run")
    assert maskdpo(monkeypatch, "evaluate", before, "--gold", after, "--json", out) == 2
    assert out.read_text() == "from an earlier run"
    text = before.read_text()
    assert maskdpo(monkeypatch, "evaluate", after, "--gold", before, "--json", before) == 2
    assert before.read_text() == text
    assert "is an input of this command" in " ".join(capsys.readouterr().err.split())


def test_a_prompt_id_without_a_prompt_is_an_error_where_prompts_are_given(
    before: Path, after: Path, jsonl: Any, tmp_path: Path
) -> None:
    some = jsonl("some.jsonl", [{"id": "q0", "prompt": "?"}])
    message = r"before\.jsonl:2: prompt_id: no prompt has the id 'q1'"
    with pytest.raises(UserError, match=message):
        evaluate_annotations(before, prompts=some)
    with pytest.raises(UserError, match=message):
        evaluate_annotations(before, compare=after, prompts=some)
    with pytest.raises(UserError, match=message):
        write_report(before, tmp_path / "r.html", prompts=some)
    assert not (tmp_path / "r.html").exists()


def test_labels_of_different_judges_are_compared_with_a_warning(
    before: Path, after: Path, jsonl: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = [row | {"judge": {"name": "other", "version": "1"}} for row in rows(("no_hallucination",) * 3)]
    evaluate_annotations(before, compare=jsonl("other.jsonl", judged))
    assert "have their labels from different judges" in " ".join(capsys.readouterr().err.split())
    evaluate_annotations(before, compare=after)
    assert "different judges" not in capsys.readouterr().err


def test_gold_is_never_the_judges_own(before: Path, gold: Path, jsonl: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"before\.jsonl: is the file whose labels it is to check"):
        evaluate_annotations(before, gold=before)
    judge = {"name": "llm", "version": "1"}
    judged = jsonl("judged.jsonl", [row | {"judge": judge} for row in rows(("no_fact",) * 3)])
    copy = jsonl("copy.jsonl", [row | {"judge": judge} for row in rows(("no_fact",) * 3)])
    with pytest.raises(UserError, match=r"copy\.jsonl: has its labels from the very judge of .*judged\.jsonl"):
        evaluate_annotations(judged, gold=copy)
    assert evaluate_annotations(before, gold=copy).agreement is not None
    assert "labels of the judge llm are taken as gold" in " ".join(capsys.readouterr().err.split())


def with_inclusion(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"sentences": [s | {"inclusion": 0.5} for s in row["sentences"]]} for row in lines]


def test_prediction_powered_figures_stand_beside_those_of_the_judge(jsonl: Any, tmp_path: Path) -> None:
    """The judge calls all 24 sentences right; in gold on 12 of them one third is wrong."""
    judged = jsonl("judged.jsonl", rows(("no_hallucination",) * 24))
    true = rows(("no_hallucination", "contradictory", "no_hallucination") * 4)
    silent, drawn = jsonl("silent.jsonl", true), jsonl("drawn.jsonl", with_inclusion(true))
    summary, *_ = evaluate_annotations(judged, gold=silent).tables()
    assert any("silent.jsonl does not say how its sentences were drawn" in note for note in summary.notes)
    for found in (
        evaluate_annotations(judged, gold=drawn),
        evaluate_annotations(judged, gold=silent, gold_drawn="random"),
    ):
        _, table, *_ = found.tables()
        judge, powered = cells(table)["right / (right + wrong)"]
        assert judge == "1.00 [0.858, 1.00]"
        low, high = map(float, re.findall(r"\d\.\d+", powered)[1:])
        assert powered.startswith("0.667 [")
        assert low < 0.5 < 0.8 < high
        out = tmp_path / "f.json"
        found.write_json(out)
        values = json.loads(out.read_text())["prediction_powered"]
        assert (values["gold_sentences"], values["gold_topics"]) == (12, 12)
        assert values["figures"]["right / all sentences"]["value"] == pytest.approx(2 / 3)


def test_two_files_need_gold_on_both(before: Path, jsonl: Any) -> None:
    labels = ("no_hallucination",) * 12
    old, new = jsonl("old.jsonl", rows(labels)), jsonl("new.jsonl", rows(labels, "Two is so."))
    gold = with_inclusion(rows(("no_hallucination", "contradictory") * 6))
    other = [row | {"response": "Two is so."} for row in gold]
    gold_of_old, gold_of_new = jsonl("gold-old.jsonl", gold), jsonl("gold-new.jsonl", other)
    _, table, *_ = evaluate_annotations(old, compare=new, gold=gold_of_old).tables()
    assert cells(table)["right / all sentences"][1:] == ("-", "-")
    assert any(note.startswith("after: no prediction-powered estimates") for note in table.notes)
    _, table, *_ = evaluate_annotations(old, compare=new, gold=gold_of_old, compare_gold=gold_of_new).tables()
    before_, after_, difference = cells(table)["right / all sentences"]
    assert before_ == after_ and before_.startswith("0.500 [")
    assert difference.startswith("+0.000 [-")
    _, table = evaluate_annotations(old, compare=new, gold=gold_of_new).tables()  # no agreement: gold is of the second
    assert cells(table)["right / all sentences"][0] == "-"
    for labels, columns in (((), ("before", "after", "after - before")), (("a", "b"), ("a", "b", "b - a"))):
        both = evaluate_annotations(old, compare=new, gold=gold_of_new, labels=labels).tables()
        assert [table.columns[1:] for table in both] == [columns] * 2
        assert any(note.startswith(f"{columns[0]}: no prediction-powered estimates") for note in both[1].notes)
    with pytest.raises(UserError, match="`compare_gold` goes with `compare` and `gold`"):
        evaluate_annotations(old, gold=gold_of_old, compare_gold=gold_of_new)


def test_several_files_are_evaluated_as_one(jsonl: Any, tmp_path: Path) -> None:
    every = rows(("no_hallucination", "contradictory", "contradictory") * 4)
    whole, some, more = (jsonl(name, part) for name, part in (("w", every), ("s", every[:5]), ("m", every[5:])))
    (expected,), (table,) = evaluate_annotations(whole).tables(), evaluate_annotations([some, more]).tables()
    assert table.rows == expected.rows
    assert table.title == "s + m: 12 answers, 12 topics"
    (first,) = evaluate_annotations([some, more], limit=6).tables()
    assert first.rows == evaluate_annotations(jsonl("f", every[:6])).tables()[0].rows
    with pytest.raises(UserError, match="m:1: id: duplicate id"):
        evaluate_annotations([some, more, more])
    evaluate_annotations([some, more]).write_json(tmp_path / "f.json")
    assert json.loads((tmp_path / "f.json").read_text())["annotations"] == [str(some), str(more)]


def test_figures_of_probabilities_are_shown_where_there_are_scores(jsonl: Any, tmp_path: Path) -> None:
    lines = rows(("no_hallucination", "no_hallucination", "contradictory", "no_fact") * 5)
    for i, row in enumerate(lines):
        right = (0.9, 0.6, 0.2, 0.5)[i % 4]
        row["sentences"][0]["scores"] = {"no_hallucination": right, "contradictory": 1 - right}
    judged = jsonl("scored.jsonl", lines)
    gold = jsonl("people.jsonl", rows(("no_hallucination", "contradictory", "unverifiable", "no_fact") * 5))
    found = evaluate_annotations(judged, gold=gold)
    *_, figures, reliability = found.tables()
    assert figures.title == "probability of right, as the judge gave it: 5 right and 10 wrong sentences with scores"
    assert cells(figures)["AUROC"] == ("1.00 [0.782, 1.00]", "0.500")
    assert cells(figures)["Brier score"][0].startswith("0.137 [")
    assert cells(figures)["Brier score"][1] == "0.222"
    assert sum(int(row[2]) for row in reliability.rows) == 15
    found.write_json(tmp_path / "f.json")
    values = json.loads((tmp_path / "f.json").read_text())["agreement"]["probabilities"]
    assert values["figures"]["auroc"]["value"] == 1.0
    assert values["figures"]["brier"]["value"] == pytest.approx((0.01 + 0.36 + 0.04) / 3)
    assert [one["sentences"] for one in values["reliability"]] == [int(row[2]) for row in reliability.rows]


def test_a_win_by_filler_is_said_in_the_table_and_on_the_page(jsonl: Any, tmp_path: Path) -> None:
    fact, filler = "It was built in 1887 by Gustave Eiffel.", "That is a lovely question."

    def lines(text: str, label: str) -> list[dict[str, Any]]:
        sentence = {"start": 0, "end": len(text), "label": label}
        return [row | {"response": text, "sentences": [sentence]} for row in rows((label,) * 12)]

    old, new = jsonl("old.jsonl", lines(fact, "contradictory")), jsonl("new.jsonl", lines(filler, "no_hallucination"))
    (table,) = evaluate_annotations(old, compare=new).tables()
    (note,) = table.notes
    assert note.startswith("right / all sentences and right / (right + wrong) rose while answers name less")
    assert "2.00 -> 0.00" in note
    write_report(old, tmp_path / "r.html", compare=new)
    assert "rose while answers name less" in (tmp_path / "r.html").read_text()


def test_several_models_are_compared_in_one_table(jsonl: Any, tmp_path: Path) -> None:
    wrong, half, right = (
        jsonl(f"{name}.jsonl", rows(labels * 6))
        for name, labels in {
            "before": ("contradictory", "contradictory"),
            "half": ("contradictory", "no_hallucination"),
            "right": ("no_hallucination", "no_hallucination"),
        }.items()
    )
    found = evaluate_annotations(wrong, compare=[half, right])
    table, between = found.tables()
    assert table.columns[1:] == ("before", "half", "half - before", "right", "right - before")
    figures = [cell.split(" ")[0] for cell in cells(table)["right / all sentences"]]
    assert figures == ["0.000", "0.500", "+0.500", "1.00", "+1.00"]
    (alone,) = evaluate_annotations(wrong, compare=right).tables()
    assert [row[-1] for row in alone.rows] == [row[-1] for row in table.rows]
    assert (between.title, between.columns[1:]) == (
        "half.jsonl: beside 1 other, by the topics of both", ("half", "right", "right - half")
    )  # fmt: skip
    (alone,) = evaluate_annotations(half, compare=right).tables()
    assert [row[1:] for row in alone.rows] == [row[1:] for row in between.rows]
    labelled = evaluate_annotations(wrong, compare=[half, right], labels=["none", "one", "two"]).tables()
    assert [table.columns[-1] for table in labelled] == ["two - none", "two - one"]
    found.write_json(tmp_path / "f.json")
    values = json.loads((tmp_path / "f.json").read_text())
    assert [list(values[name]) for name in ("comparisons", "between")] == [[str(half), str(right)], [str(right)]]
    apart = jsonl("apart.jsonl", [row for row in rows(("contradictory",) * 24) if row["id"] > "a5"])
    few = jsonl("few.jsonl", [row for row in rows(("contradictory",) * 3) if row["id"] <= "a5"])
    note = "apart is not set beside few: they share no topic"
    (table,) = evaluate_annotations(right, compare=[few, apart]).tables()
    assert table.notes[-1] == note
    table, between = evaluate_annotations(right, compare=[few, apart, half]).tables()
    assert (len(table.columns), between.columns[1:]) == (8, ("few", "half", "half - few"))
    assert note not in table.notes
    assert between.notes[-1] == note
    with pytest.raises(UserError, match="`gold` goes with one file of `compare`"):
        evaluate_annotations(wrong, compare=[half, right], gold=right)


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("before.jsonl", "without --compare too"),
        ("x/../before.jsonl", "without --compare too"),
        ("after.jsonl", "twice"),
        ("x/../after.jsonl", "twice"),
    ],
)
def test_no_file_is_set_beside_itself(
    file: str, how: str, before: Path, after: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").mkdir()
    compare = "--compare", str(after), "--compare", str(tmp_path / file)
    for command in (["evaluate"], ["report", "--out", str(tmp_path / "r.html")]):
        assert exit_code(*command, str(before), *compare) == 2
        assert f"is given {how}; give each file once" in capsys.readouterr().err
