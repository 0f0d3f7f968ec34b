"""The page of a training: what is read of its files, and the page in a real browser."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from training_files import evaluation, step, write_training

from maskdpo.api import write_report
from maskdpo.cli import main
from maskdpo.errors import UserError
from maskdpo.evaluate.training import DRAWN, TrainingStats, write_training_page
from maskdpo.schemas.training import StepStats

pytestmark = pytest.mark.slow


def data(page: Path) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(found)


def maskdpo(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> int:
    """Run a command in this process; its exit code."""
    monkeypatch.setattr("sys.argv", ["maskdpo", *map(str, arguments)])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def cells(page: Path) -> dict[str, list[str]]:
    """The rows of the tables by their first cell."""
    rows = re.findall(r"<tr><td><bdi>(.*?)</bdi></td>(.*?)</tr>", page.read_text(), re.DOTALL)
    return {name: re.findall(r"<bdi>(.*?)</bdi>", rest) for name, rest in rows}


def test_the_trainer_writes_what_the_page_reads() -> None:
    assert set(DRAWN) <= set(StepStats.model_fields)


@pytest.mark.parametrize("by_file", [False, True])
def test_figures_travel_as_columns(tmp_path: Path, by_file: bool) -> None:
    steps = [step(1), step(2, reward_masked_chosen=-0.123456789), step(3)]
    folder = write_training(tmp_path / "m", steps, [evaluation(0), evaluation(3)], lr=1e-5, method="dpo", ld_alpha=None)
    out = tmp_path / "r.html"
    stats = write_report(folder / "metrics.jsonl" if by_file else folder, out)
    assert stats == TrainingStats(runs=1, steps=3, evals=2, broken=0, bytes=out.stat().st_size)
    (run,) = data(out)["runs"]
    assert run["name"] == "m"
    assert run["steps"]["step"] == [1, 2, 3]
    assert run["steps"]["loss"] == [0.69, 0.68, 0.67]
    assert run["steps"]["reward_masked_chosen"] == [None, -0.123457, None]
    assert "reward_masked_rejected" not in run["steps"], "it was never taken"
    assert run["evals"]["loss"] == [0.69, 0.63]
    found = cells(out)
    assert found["loss"] == ["0.690 → 0.670"]
    assert found["lowest held-out loss"] == ["0.630 at step 3"]
    assert found["tokens / s, median"] == ["1,002"]
    assert (found["lr"], found["method"]) == (["1e-05"], ["dpo"])
    assert "ld_alpha" not in found


def test_two_runs_show_the_settings_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write_training(tmp_path / "one", [step(1)], lr=1e-5, method="dpo")
    two = write_training(tmp_path / "two", [step(1), step(2)], lr=1e-5, method="mask-dpo")
    out = tmp_path / "r.html"
    assert maskdpo(monkeypatch, "report", one, "--compare", two, "--out", out, "--title", "Both") == 0
    assert [run["name"] for run in data(out)["runs"]] == ["one", "two"]
    assert cells(out)["method"] == ["dpo", "mask-dpo"]
    assert cells(out)["steps"] == ["1", "2"]
    assert "lr" not in cells(out)
    assert "<title>Both</title>" in out.read_text()


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent).mkdir()
    folders = [write_training(tmp_path / parent / "model", [step(1)]) for parent in ("a", "b")]
    write_training_page(tmp_path / "r.html", folders)
    assert [run["name"] for run in data(tmp_path / "r.html")["runs"]] == [str(folder) for folder in folders]


def test_a_run_under_way_and_a_loss_that_is_no_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [step(1), step(2, loss=float("nan"), grad_norm=float("inf")), step(3), '{"step": 4, "lo']
    folder = write_training(tmp_path / "m", steps)
    stats = write_training_page(tmp_path / "r.html", [folder])
    assert (stats.steps, stats.broken) == (3, 1)
    (run,) = data(tmp_path / "r.html")["runs"]
    assert run["steps"]["loss"] == [0.69, None, 0.67]
    assert run["evals"] is None
    assert "1 step has a loss that is no finite number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"holds no step yet"),
        ([step(1), '{"step": 2}\n'], r"metrics\.jsonl:2: loss: Field required; this is no line that maskdpo train"),
        ([step(-1)], r"metrics\.jsonl:1: step: Input should be greater"),
        (["nonsense\n"], r"metrics\.jsonl:1: Invalid JSON"),
        ([step(1, loss="low")], r"metrics\.jsonl:1: loss: "),
    ],
)
def test_files_that_are_no_training(tmp_path: Path, lines: list[Any], message: str) -> None:
    folder = write_training(tmp_path / "m", lines)
    (folder / "metrics.jsonl").touch()
    with pytest.raises(UserError, match=message):
        write_report(folder, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_options_that_a_training_does_not_take(
    tmp_path: Path, jsonl: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_training(tmp_path / "m", [step(1)])
    prompts = jsonl("prompts.jsonl", [{"id": "q", "prompt": "?"}])
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "r.html"
    wrong = {
        "is a training: --prompts, --gold, --label, --model and --side-effects": [folder, "--prompts", prompts],
        "is no training: it has no metrics.jsonl": [folder, "--compare", prompts],
        "is a folder, a file is needed, or the folder of a training": [empty],
        "no such file": [tmp_path / "none" / "metrics.jsonl"],
    }
    for message, arguments in wrong.items():
        assert maskdpo(monkeypatch, "report", *arguments, "--out", out) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_a_page_never_takes_the_place_of_what_it_is_made_from(tmp_path: Path) -> None:
    folder = write_training(tmp_path / "m", [step(1)], [evaluation(0)], lr=1)
    kept = {file: file.read_text() for file in folder.iterdir()}
    for file in kept:
        with pytest.raises(UserError, match="is an input of this command"):
            write_report(folder, file)
    assert {file: file.read_text() for file in folder.iterdir()} == kept


HOSTILE = "<script>window.hacked = 1</script>\u202e שלום"


def test_hostile_names_and_settings_stay_text(browser: Browser, tmp_path: Path) -> None:
    folders = [
        write_training(tmp_path / name.replace("/", "\u2215"), [step(1)], model=name, lr=number)
        for number, name in enumerate((HOSTILE, "</title><img src=x onerror=hacked=1>" + "x" * 90))
    ]
    out = tmp_path / "r.html"
    write_training_page(out, folders, title=HOSTILE)
    browser.open(out)
    assert browser.driver.title == HOSTILE
    assert browser.count("script") == 2
    assert browser.count("img") == 0
    assert browser.js("return typeof window.hacked") == "undefined"
    assert browser.texts("#bar bdi")[0] == HOSTILE.replace("/", "\u2215")
    assert browser.js("return document.documentElement.scrollWidth <= innerWidth")


def test_curves_and_their_readout(browser: Browser, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    masked = {"reward_masked_chosen": -0.2, "reward_masked_rejected": 0.3}
    folder = write_training(tmp_path / "m", [step(1, **masked), step(2), step(3)], [evaluation(0), evaluation(2)])
    out = tmp_path / "r.html"
    write_report(folder, out)
    browser.open(out)
    panels = browser.js("return [...document.querySelectorAll('.curve')].map(n => n.id.slice(6))")
    assert panels == ["loss", "margin", "accuracy", "kept", "masked", "speed", "peak", "gradient", "lr"]
    assert browser.count("#panel-loss svg[role=img] path.line:not(.held)") == 1
    assert browser.count("#panel-loss svg[role=img] .ring") == 2
    assert "training from 0.69 at step 1 to 0.67 at step 3" in browser.find("#panel-loss svg").get_attribute(
        "aria-label"
    )
    assert browser.texts("#panel-loss .readout b") == ["0.67", "0.65"]
    assert browser.texts("#panel-kept .readout bdi") == ["chosen", "rejected"]
    browser.press(Keys.ARROW_LEFT)
    assert browser.text("#step") == "step 2"
    assert browser.texts("#panel-loss .readout b") == ["0.68", "0.65"]
    assert browser.texts("#panel-masked .readout li") == ["chosen−0.2 (step 1)", "rejected0.3 (step 1)"]
    browser.press(Keys.HOME)
    assert browser.texts("#panel-loss .readout b") == ["–", "0.69"], "step 0 is before training"
    browser.press(Keys.ESCAPE)
    assert browser.text("#step") == "step 3"
    browser.press("?")
    assert browser.js("return document.getElementById('keys').open")
    browser.press(Keys.ESCAPE)


def test_pointing_at_a_curve_reads_all_panels(browser: Browser, tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains

    out = tmp_path / "r.html"
    write_report(write_training(tmp_path / "m", [step(n) for n in range(1, 101)]), out)
    browser.open(out)
    ActionChains(browser.driver).move_to_element(browser.find("#panel-loss svg")).perform()
    browser.until(lambda: browser.text("#step") != "step 100")
    at = int(browser.text("#step").removeprefix("step "))
    assert 35 < at < 65
    assert browser.texts("#panel-margin .readout b") == [str(round(0.1 * at, 3)).removesuffix(".0")]


def test_runs_over_each_other_can_be_hidden(browser: Browser, tmp_path: Path) -> None:
    one = write_training(tmp_path / "one", [step(1), step(2)], [evaluation(2)])
    two = write_training(tmp_path / "two", [step(1), step(5)])
    out = tmp_path / "r.html"
    write_report(one, out, compare=two)
    browser.open(out)
    assert browser.texts("#panel-loss .readout bdi") == ["one", "one, held out", "two"]
    colours = browser.js(
        "return [...document.querySelectorAll('#panel-lr svg[role=img] .line')].map(n => getComputedStyle(n).stroke)"
    )
    assert len(set(colours)) == 2
    browser.find("[data-run='0']").click()
    assert browser.texts("#panel-loss .readout bdi") == ["two"]
    assert browser.text("#step") == "step 5"
    browser.find("[data-run='1']").click()
    assert browser.count(".curve") == 0
    browser.find("[data-run='0']").click()
    assert browser.text("#step") == "step 2"


def test_long_runs_keep_their_spikes_and_smoothing_calms_them(browser: Browser, tmp_path: Path) -> None:
    steps = [step(n, loss=9.0 if n == 12_345 else 0.5 + 0.1 * (n % 2)) for n in range(1, 20_001)]
    out = tmp_path / "r.html"
    write_report(write_training(tmp_path / "m", steps), out)
    browser.open(out)
    path = "#panel-loss svg[role=img] .line:not(.faint)"
    drawn = browser.js("return document.querySelector(arguments[0]).getAttribute('d')", path)
    assert drawn.count("L") < 1000
    spike = min(float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", drawn))
    assert spike < 30, "9.0 stands at the top of the panel"
    browser.press("s", "s", "s")
    smoothed = browser.js("return document.querySelector(arguments[0]).getAttribute('d')", path)
    assert min(float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", smoothed)) > 100
    assert browser.count("#panel-loss .faint") == 1
    browser.press("S")
    assert browser.count(".faint") == 0


def test_a_phone_in_the_dark(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    write_report(write_training(tmp_path / "m", [step(1), step(2)], [evaluation(0)], lr=1), out)
    browser.open(out, width=390, height=840)
    assert browser.js("return document.documentElement.scrollWidth") <= 390
    background = "return getComputedStyle(document.body).backgroundColor"
    light = browser.js(background)
    browser.find("#theme").click()
    assert browser.js(background) != light
    browser.find("#theme").click()
