"""``scripts/gpu_check.py`` with tiny shapes on a CPU: what it finds, and that nothing ends it."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import gpu_check

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


def test_what_a_section_has_started_ends_with_it(tmp_path: Path) -> None:
    """A server that outlives its section would keep the memory of the device."""
    beats = tmp_path / "beats"
    command = ["sh", "-c", f"(while :; do echo >> {beats}; sleep 0.02; done) & wait"]
    assert gpu_check._run(command, tmp_path / "log", os.environ, 0.5) == "no result after 0 s"
    size = beats.stat().st_size
    time.sleep(0.3)
    assert beats.stat().st_size == size > 0


@pytest.mark.parametrize(("version", "there"), [("0.1", True), ("999.0", False)])
def test_a_package_of_an_earlier_major_version_is_missing(version: str, there: bool) -> None:
    assert gpu_check._is_there(Path(f"pydantic-{version}-py3-none-any.whl")) is there
    assert not gpu_check._is_there(Path("no_such_package-1.0-py3-none-any.whl"))


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
