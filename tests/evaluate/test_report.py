"""``report`` runs for annotations, for two of them, and for pairs; its tables are those of ``evaluate``."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from maskdpo.errors import UserError
from maskdpo.evaluate.report import write_report
from maskdpo.evaluate.tables import agreement_tables, comparison_table, summary_table


def rows(labels: tuple[str, ...], text: str = "One is so.") -> list[dict[str, Any]]:
    return [
        {"id": f"a{i}", "prompt_id": f"q{i}", "response": text, "sentences": [{"start": 0, "end": 10, "label": label}]}
        for i, label in enumerate(labels)
    ]


@pytest.fixture
def before(jsonl: Any) -> Path:
    return jsonl("before.jsonl", rows(("no_hallucination", "contradictory", "no_fact")))


@pytest.fixture
def after(jsonl: Any) -> Path:
    return jsonl("after.jsonl", rows(("no_hallucination",) * 3, "Two is so."))


@pytest.fixture
def prompts(jsonl: Any) -> Path:
    return jsonl("prompts.jsonl", [{"id": f"q{i}", "prompt": f"Question {i}?", "topic": "t"} for i in range(3)])


def data(page: Path) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(found)


def test_one_file(before: Path, prompts: Path, tmp_path: Path) -> None:
    stats = write_report(before, tmp_path / "r.html", prompts=prompts, gold=before, title="My title")
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


def test_pairs(jsonl: Any, tmp_path: Path) -> None:
    sentence = [{"start": 0, "end": 3, "label": "no_hallucination"}]
    pair = {"id": "a|b", "prompt_id": "q", "topic": "t", "prompt": "Where?", "chosen": "Here.", "rejected": "There."}
    file = jsonl("pairs.jsonl", [pair | {"chosen_sentences": sentence, "rejected_sentences": []}])
    assert write_report(file, tmp_path / "r.html").items == 1
    assert "There." in json.dumps(data(tmp_path / "r.html"))
    for more in ({"compare": file}, {"gold": file}):
        with pytest.raises(UserError, match="is a pairs file: --compare and --gold take annotations"):
            write_report(file, tmp_path / "no.html", **more)


def test_other_records_have_no_report(prompts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds prompt records; report takes annotations or pairs"):
        write_report(prompts, tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()


def test_a_table_of_one_file(before: Path, prompts: Path) -> None:
    table = summary_table(before, prompts, seed=0)
    assert table.title == "before.jsonl: 3 answers, 1 topics"
    shown = dict(table.rows)
    assert shown["wrong sentences / answer"] == "0.333 [0.333, 0.333]"
    assert shown["characters / answer"].startswith("10")


def test_a_table_of_two_files_marks_what_is_certain(before: Path, after: Path, prompts: Path, jsonl: Any) -> None:
    table = comparison_table(before, after, prompts, seed=0)
    cells = {row[0]: row[1:] for row in table.rows}
    assert cells["wrong sentences / answer"][2].startswith("-0.333 [")
    assert cells["wrong sentences / answer"][2].endswith("*")
    assert not cells["answers cut off"][2].endswith("*")
    elsewhere = jsonl("e.jsonl", [row | {"prompt_id": "z"} for row in rows(("no_fact",))])
    with pytest.raises(UserError, match="share no topic, so there is nothing to compare"):
        comparison_table(before, elsewhere, None, seed=0)


def test_tables_of_agreement(before: Path, after: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, classes = agreement_tables(before, before, seed=0)
    assert dict(figures.rows)["gold sentences"] == "3"
    assert dict(figures.rows)["macro F1"] == "1.000"
    assert [row[:4] for row in classes.rows] == [
        ("right", "1", "0", "0"),
        ("wrong", "0", "1", "0"),
        ("no_fact", "0", "0", "1"),
    ]
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="share no judged sentence: do the ids and the texts of the answers match"):
        agreement_tables(before, after, seed=0)


def test_a_prompt_id_without_a_prompt_is_an_error_where_prompts_are_given(
    before: Path, after: Path, jsonl: Any, tmp_path: Path
) -> None:
    some = jsonl("some.jsonl", [{"id": "q0", "prompt": "?"}])
    message = r"before\.jsonl:2: prompt_id: no prompt has the id 'q1'"
    with pytest.raises(UserError, match=message):
        summary_table(before, some, seed=0)
    with pytest.raises(UserError, match=message):
        comparison_table(before, after, some, seed=0)
    with pytest.raises(UserError, match=message):
        write_report(before, tmp_path / "r.html", prompts=some)
    assert not (tmp_path / "r.html").exists()
