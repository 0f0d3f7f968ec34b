"""``scripts/gpu_check.py`` with tiny shapes on a CPU: what it finds, and that nothing ends it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "gpu_check.py"


def checked(out: Path, *options: str) -> tuple[int, str, list[dict[str, Any]]]:
    """Exit code, the table, and the rows of the JSON."""
    command = [sys.executable, str(SCRIPT), "--small", "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, json.loads(out.read_text())["rows"]


def test_a_section_that_gets_no_time_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    code, table, rows = checked(tmp_path / "found.json", "--minutes", "0.005", "--only", "exact", "lora")
    assert code == 1
    assert [(row["section"], row["ok"]) for row in rows if row["ok"] is not None] == [("exact", False), ("lora", False)]
    assert "no result after 0 s" in rows[0]["found"] and rows[-1]["found"] == "the time is over"
    assert "NOT OK" in table and "the time is over" in " ".join(table.split())


def test_the_list_of_wheels_names_packages_once_and_pins_the_pair_that_must_match() -> None:
    names = re.findall(r"^([a-z][a-z-]*)", (ROOT / "scripts" / "gpu_wheels.txt").read_text(), re.MULTILINE)
    assert len(names) == len(set(names))
    assert {"pydantic", "pydantic-core", "platformdirs", "jiter"} <= set(names)


@pytest.mark.slow
def test_two_ranks_end_where_one_does_and_go_on_as_one(tmp_path: Path) -> None:
    code, table, rows = checked(tmp_path / "found.json", "--minutes", "9", "--only", "ranks")
    assert code == 0, table
    assert [row["ok"] for row in rows if row["what"] != "seconds"] == [True] * 5
    far = [float(row["found"]) for row in rows if "relative" in row["what"]]
    assert 0 < min(far) <= max(far) < 1e-2


@pytest.mark.slow
def test_figures_are_those_of_float64_and_a_stopped_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    code, table, rows = checked(tmp_path / "found.json", "--minutes", "9", "--only", "exact", "resume")
    assert code == 0, table
    found = {row["what"]: row for row in rows}
    assert float(found["SDPA, float32: gradient, relative difference"]["found"]) < 1e-5
    assert found["SDPA, bfloat16: gradient, relative difference"]["ok"]
    assert found["resume: weights of a run that was stopped"]["found"] == "the same bits"
    assert int(found["resume: stopped by SIGTERM after step"]["found"]) < 16
