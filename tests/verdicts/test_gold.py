"""Gold labels that say nothing about a judge, because the judge has learnt them."""

from pathlib import Path

import pytest

from maskdpo.run_record import META_IN_FOLDER
from maskdpo.schemas import JudgeInfo
from maskdpo.stage_run import Run
from maskdpo.verdicts.gold import check_gold


def test_gold_that_a_judge_was_trained_on_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gold, other, model = tmp_path / "gold.jsonl", tmp_path / "other.jsonl", tmp_path / "judge"
    gold.write_text("{}\n")
    other.write_text("[]\n")
    model.mkdir()
    Run(model / META_IN_FOLDER, "train-judge", {}, {"labelled": gold}, restart="").finish({})
    judge = JudgeInfo(name="classifier", model=str(model))
    check_gold({}, gold, [tmp_path / "judged.jsonl"], iter([judge]))
    assert "was trained on these labels" in " ".join(capsys.readouterr().err.split())
    check_gold({}, other, [tmp_path / "judged.jsonl"], [judge, None, JudgeInfo(name="llm", model="org/model")])
    assert capsys.readouterr().err == ""
