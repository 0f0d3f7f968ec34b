"""Whole runs on a tiny model: what they write, what they refuse, when the cache counts."""

import json
import math
import re
import shutil
from datetime import date
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from train_helpers import make_pair, random_model

from maskdpo.commands.training import train as command
from maskdpo.errors import CannotContinue, UserError
from maskdpo.io import write_records
from maskdpo.models import load_model, load_tokenizer
from maskdpo.schemas import Label
from maskdpo.schemas.training import StepStats
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.read import read_pairs
from maskdpo.train.run import reference
from maskdpo.train.run import train as run
from maskdpo.train.run.loop import run_steps
from maskdpo.train.run.train import TrainResult, train
from maskdpo.train.settings import RunOptions, TrainSettings
from maskdpo.train.step import Trainer

pytestmark = pytest.mark.slow

RIGHT, WRONG = Label.NO_HALLUCINATION, Label.CONTRADICTORY
CITIES = ("Paris", "London", "Rome", "Zürich", "北京")
MEASURED = ("seconds", "pairs_per_s", "tokens_per_s", "peak_share", "memory_gb")
"""Figures that differ from run to run."""


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKDPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    pairs = [
        make_pair(
            [(f"{city} has a river.", RIGHT), (" It is green.", WRONG)],
            [(f"{city} has no river.", WRONG), (" It is a city.", RIGHT)],
            id=city,
            prompt=f"Tell me about {city}.",
        )
        for city in CITIES
    ]
    write_records(file, pairs)
    return file


def config_for(model: str, **settings: Any) -> TrainConfig:
    fixed: dict[str, Any] = {"lr": 1e-3, "batch_size": 2, "epochs": 100, "max_steps": 4, "dtype": "float32"}
    return TrainConfig(model=model, **fixed | settings)


def metrics_of(out: Path) -> list[dict[str, Any]]:
    """Without the figures that differ from run to run."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def finished(tiny_model: str, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, Path]:
    """A run of 30 steps over all pairs."""
    out = tmp_path_factory.mktemp("finished") / "out"
    config = config_for(tiny_model, max_steps=30, batch_size=5)
    result = train(pairs_file, out, config, RunOptions(save_every=7, use_cache=False))
    assert result is not None
    return result, out


def test_the_loss_falls(finished: tuple[TrainResult, Path]) -> None:
    losses = [stats.loss for stats in finished[0].steps]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < 0.8 * losses[0]
    assert finished[0].steps[-1].accuracy == 1
    assert finished[0].layout == "shared"


def test_metrics_have_one_line_a_step(finished: tuple[TrainResult, Path]) -> None:
    result, out = finished
    assert [row["step"] for row in metrics_of(out)] == list(range(1, 31))
    assert [row["loss"] for row in metrics_of(out)] == [stats.loss for stats in result.steps]


def test_the_export_loads_with_other_log_probs(finished: tuple[TrainResult, Path], tiny_model: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = finished[1]
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template
    ids = tokenizer("Paris has a river.", return_tensors="pt").input_ids
    with torch.no_grad():
        trained, base = (AutoModelForCausalLM.from_pretrained(name)(ids).logits for name in (out, tiny_model))
    assert (trained.log_softmax(-1) - base.log_softmax(-1)).abs().max() > 0.01


def test_a_finished_run_leaves_no_checkpoints(finished: tuple[TrainResult, Path]) -> None:
    assert not (finished[1] / "checkpoints").exists()
    assert not [file for file in finished[1].iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize(("steps", "columns"), [(1, ["step 1"]), (2, ["step 1", "step 2"])])
def test_the_table_shows_the_first_and_the_last_step_once(
    steps: int,
    columns: list[str],
    tiny_model: str,
    pairs_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    command(TrainSettings(pairs=pairs_file, out=out, **config_for(tiny_model, max_steps=steps).given()))
    table = capsys.readouterr().out
    assert re.findall(r"step \d", table) == columns
    (losses,) = re.findall(r"│ loss +│(.*)│", table)
    assert losses.split("│")[0].strip() == f"{metrics_of(out)[0]['loss']:.3f}"


def test_a_complete_run_says_so_and_does_nothing(
    tiny_model: str, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_for(tiny_model, max_steps=2)
    train(pairs_file, tmp_path / "out", config)
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    capsys.readouterr()
    assert train(pairs_file, tmp_path / "out", config) is None
    assert "this very run is complete" in said(capsys)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


def test_another_configuration_or_pairs_file_is_refused(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    train(pairs_file, tmp_path / "out", config_for(tiny_model, max_steps=2))
    with pytest.raises(CannotContinue, match=r"beta: 0\.1 -> 0\.3.*`restart`"):
        train(pairs_file, tmp_path / "out", config_for(tiny_model, max_steps=2, beta=0.3))
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(pairs_file.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(UserError, match="the pairs file has changed"):
        train(fewer, tmp_path / "out", config_for(tiny_model, max_steps=2))


def test_restart_sets_the_earlier_run_aside(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(pairs_file, out, config_for(tiny_model, max_steps=2))
    before = (out / "model.safetensors").read_bytes()
    result = train(pairs_file, out, config_for(tiny_model, max_steps=3, lr=1e-2), RunOptions(restart=True))
    assert result is not None
    assert len(result.steps) == 3
    assert (tmp_path / "out.bak" / "model.safetensors").read_bytes() == before
    assert (out / "model.safetensors").read_bytes() != before


def test_a_first_try_is_set_aside_by_a_run_on_all_pairs(
    tiny_model: str, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, few = tmp_path / "out", config_for(tiny_model, max_steps=2, limit=2)
    tried, whole = train(pairs_file, out, few), train(pairs_file, out, config_for(tiny_model, max_steps=2))
    assert tried is not None and whole is not None
    assert tried.pairs == 2 < whole.pairs
    assert "the earlier run was on the first 2 pairs only (`limit`); it is set aside" in said(capsys)
    assert (tmp_path / "out.bak" / "model.safetensors").exists()
    assert train(pairs_file, out, config_for(tiny_model, max_steps=2)) is None


def test_a_folder_behind_a_link_is_trained_into_and_set_aside(
    tiny_model: str, pairs_file: Path, tmp_path: Path
) -> None:
    out, real = tmp_path / "out", tmp_path / "disk" / "model"
    real.parent.mkdir()
    out.symlink_to(real)  # which is not there yet
    for _ in range(2):
        train(pairs_file, out, config_for(tiny_model, max_steps=1), RunOptions(restart=True))
        assert out.is_symlink()
        assert (real / "model.safetensors").exists()
    assert sorted(path.name for path in real.parent.iterdir()) == ["model", "model.bak"]


def test_a_model_is_the_same_where_its_files_are(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    model, out = Path(shutil.copytree(tiny_model, tmp_path / "model")), tmp_path / "out"
    train(pairs_file, out, config_for(str(model), max_steps=1))
    shutil.rmtree(model)
    shutil.copytree(tiny_model, model, copy_function=shutil.copyfile)
    assert train(pairs_file, out, config_for(str(model), max_steps=1)) is None, "it is complete"
    template = model / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    with pytest.raises(UserError, match=r"model_files: .*`restart`"):
        train(pairs_file, out, config_for(str(model), max_steps=1))


def of_version_1(record: Path, **changed: Any) -> None:
    """The record as the version before wrote it, which had neither a date nor a version of its schema."""
    written = json.loads(record.read_text()) | changed
    written["options"].pop("prompt_date", None)
    record.write_text(json.dumps({key: value for key, value in written.items() if key != "schema_version"}))


def test_what_the_version_before_has_begun_is_refused_and_what_it_has_finished_is_complete(
    tiny_model: str, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = Path(shutil.copytree(tiny_model, tmp_path / "model")), tmp_path / "out"
    template = model / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %B') }} " + template.read_text())
    config = config_for(str(model), max_steps=1)
    train(pairs_file, out, config)
    of_version_1(out / "maskdpo_run.json")
    assert train(pairs_file, out, config) is None
    assert "this very run is complete" in said(capsys)
    of_version_1(out / "maskdpo_run.json", status="running")
    before = sorted((file.name, file.stat().st_mtime_ns) for file in out.iterdir())
    with pytest.raises(
        CannotContinue, match=r"begun by an earlier maskdpo.* finish it with that version, or `restart`"
    ):
        train(pairs_file, out, config)
    assert sorted((file.name, file.stat().st_mtime_ns) for file in out.iterdir()) == before
    assert train(pairs_file, out, config, RunOptions(restart=True))


def test_restart_works_a_second_time(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    for _ in range(3):
        assert train(pairs_file, tmp_path / "out", config_for(tiny_model, max_steps=1), RunOptions(restart=True))


def test_restart_with_bad_input_leaves_the_earlier_run_where_it_is(
    tiny_model: str, pairs_file: Path, tmp_path: Path
) -> None:
    out, bad = tmp_path / "out", tmp_path / "bad.jsonl"
    train(pairs_file, out, config_for(tiny_model, max_steps=1))
    before = sorted((file.name, file.stat().st_mtime_ns) for file in out.iterdir())
    for text in ("", pairs_file.read_text().splitlines()[0][:-5] + "\n"):
        bad.write_text(text)
        with pytest.raises(UserError, match=r"bad\.jsonl"):
            train(bad, out, config_for(tiny_model, max_steps=1), RunOptions(restart=True))
        assert sorted((file.name, file.stat().st_mtime_ns) for file in out.iterdir()) == before
        assert not (tmp_path / "out.bak").exists()


def test_a_folder_with_other_things_is_left_alone(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds no maskdpo run"):
        train(pairs_file, tmp_path, config_for(tiny_model))
    with pytest.raises(UserError, match="is a file"):
        train(pairs_file, tmp_path / "thesis.tex", config_for(tiny_model))


def test_dropped_pairs_are_counted_and_recorded(tiny_model: str, tmp_path: Path) -> None:
    good = make_pair([("A.", RIGHT)], [("B.", WRONG)], id="good")
    bad = make_pair([("A.", None)], [("B.", WRONG)], id="bad")
    write_records(tmp_path / "pairs.jsonl", [good, bad])
    result = train(tmp_path / "pairs.jsonl", tmp_path / "out", config_for(tiny_model, max_steps=1, eos="drop"))
    assert result is not None
    assert (result.pairs, result.dropped.total()) == (1, 1)
    record = json.loads((tmp_path / "out" / "maskdpo_run.json").read_text())
    assert record["status"] == "complete"
    assert record["counts"]["dropped"] == {"no_weight_chosen": 1}


def test_a_tokenizer_of_another_model_is_refused(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    small = load_model(tiny_model, dtype=torch.float32, device="cpu")
    small.resize_token_embeddings(50)
    small.save_pretrained(tmp_path / "small")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "small")
    with pytest.raises(UserError, match="they do not match"):
        train(pairs_file, tmp_path / "out", config_for(str(tmp_path / "small")))


def test_gradient_checkpointing_changes_nothing(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    for name, on in (("with", True), ("without", False)):
        train(pairs_file, tmp_path / name, config_for(tiny_model, gradient_checkpointing=on))
    with_, without = (metrics_of(tmp_path / name) for name in ("with", "without"))
    assert [row["loss"] for row in with_] == pytest.approx([row["loss"] for row in without], rel=1e-5)


def test_the_reference_is_computed_once_for_every_lr_and_mask(
    tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    compute = reference.compute_reference
    monkeypatch.setattr(reference, "compute_reference", lambda *given: (calls.append(1), compute(*given))[1])
    model = load_model(tiny_model, dtype=torch.float32, device="cpu")
    folder = tmp_path / "model"
    folder.mkdir()
    for file in Path(tiny_model).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())

    def computed(name: str, *, use_cache: bool = True, **settings: Any) -> int:
        before = len(calls)
        config = config_for(str(folder), max_steps=1, **settings)
        train(pairs_file, tmp_path / name, config, RunOptions(use_cache=use_cache))
        return len(calls) - before

    assert computed("1") == 1
    assert computed("2", lr=1e-4) == 0
    assert computed("3", method="dpo") == 0
    assert computed("4", dtype="bfloat16") == 1
    assert computed("5", use_cache=False) == 1
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)
    model.save_pretrained(folder)
    assert computed("6") == 1, "the model's files have changed"


def test_a_loss_without_a_reference_computes_none(
    tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    def never(*args: object) -> None:
        raise AssertionError("the reference was computed")

    monkeypatch.setattr(reference, "compute_reference", never)
    config = config_for(tiny_model, loss="simpo", beta=2.0, max_steps=6, batch_size=5)
    result = train(pairs_file, tmp_path / "out", config)
    assert result is not None
    assert result.steps[-1].loss < result.steps[0].loss
    assert not (cache_folder / "reference").exists()


@pytest.mark.parametrize("settings", [{"loss": "ipo"}, {"loss": "ld-dpo", "ld_alpha": 0.0}, {"method": "soft"}])
@pytest.mark.parametrize("sft_weight", [0.0, 0.5])
def test_the_loss_falls_with_other_losses_and_methods(
    settings: dict[str, Any], sft_weight: float, tiny_model: str, pairs_file: Path, tmp_path: Path
) -> None:
    config = config_for(tiny_model, max_steps=12, batch_size=5, sft_weight=sft_weight, **settings)
    result = train(pairs_file, tmp_path / "out", config)
    assert result is not None
    assert result.steps[-1].loss < result.steps[0].loss
    assert result.steps[0].margin == pytest.approx(0, abs=1e-4)


def test_a_margin_from_scores_leaves_out_pairs_without_scores(tiny_model: str, tmp_path: Path) -> None:
    scores = {"chosen_score": 1.0, "rejected_score": 0.5}
    fields: dict[str, dict[str, float]] = {"none": {}, "half": {"chosen_score": 1.0}, "both": scores}
    pairs = [make_pair([("A.", RIGHT)], [("B.", WRONG)], id=name, **given) for name, given in fields.items()]
    write_records(tmp_path / "pairs.jsonl", pairs)
    config = config_for(tiny_model, max_steps=1, loss="fdpo-margin", margin_gamma=4.0, beta=0.5)
    result = train(tmp_path / "pairs.jsonl", tmp_path / "out", config)
    assert result is not None
    assert result.pairs == 1
    assert {drop.name: count for drop, count in result.dropped.items()} == {"NO_SCORES": 2}
    assert result.steps[0].loss == pytest.approx(1.3132617, abs=1e-4)  # -log sigmoid(0 - 0.5 * 4 * 0.5)


def test_metrics_hold_the_rewards_of_masked_tokens_now_and_then(
    tiny_model: str, pairs_file: Path, tmp_path: Path
) -> None:
    train(pairs_file, tmp_path / "out", config_for(tiny_model, max_steps=5, log_masked_every=3))
    rows = metrics_of(tmp_path / "out")
    assert [row["step"] for row in rows if row["reward_masked_chosen"] is not None] == [3, 5]
    assert all(isinstance(row["kept_tokens_chosen"], int) for row in rows)
    written = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert all(row.keys() == StepStats.model_fields.keys() for row in written)
    assert all(value is None or math.isfinite(value) for row in written for value in row.values())


@pytest.mark.parametrize("weight", [1e9, 1.0, 0.01, 0.0])
def test_a_held_term_that_makes_the_loss_rise_is_pointed_out(
    weight: float, tiny_model: str, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With 1 nothing is learnt either, but the loss does not rise. With 0.01 the term outweighs the rest of the loss
    for a while too, and the pairs are learnt."""
    train(pairs_file, tmp_path / "out", config_for(tiny_model, hold_weight=weight, max_steps=60))
    rows = metrics_of(tmp_path / "out")
    assert (rows[-1]["margin"] < 0.1) == (weight >= 1)
    if weight == 0.01:
        assert any(2 * weight * row["hold"] > row["loss"] for row in rows)
    assert ("the term of `hold_weight` 1e+09 was most of the loss" in said(capsys)) == (weight == 1e9)


def test_a_held_run_knows_masked_tokens_at_every_step_and_moves_less(
    tiny_model: str, pairs_file: Path, tmp_path: Path
) -> None:
    """Without passes of their own: ``log_masked_every`` is 0."""
    rows = {}
    for name, settings in {"held": {"hold_weight": 10.0}, "free": {}}.items():
        config = config_for(tiny_model, **{"max_steps": 8, "log_masked_every": 0} | settings)
        train(pairs_file, tmp_path / name, config)
        rows[name] = metrics_of(tmp_path / name)
        for figure in ("hold", "reward_masked_chosen", "reward_masked_rejected"):
            assert [row[figure] is not None for row in rows[name]] == [name == "held"] * 8
    assert rows["held"][0]["hold"] == pytest.approx(0, abs=1e-6)
    assert 0 < rows["held"][-1]["margin"] < rows["free"][-1]["margin"] / 2


def test_the_date_of_a_template_is_that_of_the_day_on_which_the_run_began(
    tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stopped and taken up again on the next day ends with the same bits."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    template = model / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %B') }} " + template.read_text())
    config = config_for(str(model))

    def on(day: int, out: Path, stop_after: int | None = None) -> None:
        monkeypatch.setattr(run, "date", SimpleNamespace(today=lambda: date(2026, 11, day)))
        monkeypatch.setattr(run, "run_steps", lambda *given: islice(run_steps(*given), stop_after))
        train(pairs_file, out, config, RunOptions(save_every=1))

    on(27, tmp_path / "whole")
    with pytest.raises(RuntimeError), monkeypatch.context() as patch:
        patch.setattr(run, "export", lambda *_: (_ for _ in ()).throw(RuntimeError))
        on(27, tmp_path / "two-days", stop_after=2)
    on(28, tmp_path / "two-days")
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "two-days"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    on(28, tmp_path / "next-day")
    later = load_file(tmp_path / "next-day" / "model.safetensors")
    assert not all(torch.equal(whole[name], later[name]) for name in whole)


def test_without_the_cache_the_model_is_not_hashed(
    tiny_model: str, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "cache_file", lambda *args: pytest.fail("all weights are read for this"))
    config = config_for(tiny_model)
    pairs = read_pairs(pairs_file, config, load_tokenizer(tiny_model), use_cache=False)
    trainer = Trainer(random_model(vocab=400), config, "shared")
    assert list(reference.find_reference(trainer, pairs, False)) == [pair.id for pair in pairs]
