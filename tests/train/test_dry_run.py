"""``--dry-run``: the numbers are those of the run, the memory formula is held against autograd, nothing is written."""

import json
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import exit_code
from test_run import RIGHT, WRONG, cache_folder, config_for, metrics_of, pairs_file
from train_helpers import make_pair, random_model, random_pair, tiny_config
from transformers import AutoModelForCausalLM

from maskdpo.cli import main
from maskdpo.errors import UserError
from maskdpo.io import write_records
from maskdpo.models import load_tokenizer
from maskdpo.schemas import SIDES
from maskdpo.train.data.store import StoredPairs
from maskdpo.train.model.adapter import add_adapter
from maskdpo.train.model.decoder import checkpoint_layers
from maskdpo.train.model.gates import recompute_gates, recomputes_gates
from maskdpo.train.model.memory import activation_bytes, free_host_bytes, memory_parts, sizes_of
from maskdpo.train.run import dry_run
from maskdpo.train.run.dry_run import plan_run
from maskdpo.train.run.forecast import forecast
from maskdpo.train.run.train import train
from maskdpo.train.step import Trainer

pytestmark = pytest.mark.slow

__all__ = ["cache_folder", "pairs_file"]  # fixtures


@pytest.fixture(scope="module")
def windowed_model(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mistral")
    tokenizer = load_tokenizer(tiny_model)
    random_model("mistral", vocab=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("settings", [{}, {"lora_r": 4}, {"batch_size": 3, "epochs": 3, "max_steps": None}])
def test_the_plan_is_what_the_run_does(
    settings: dict[str, Any], tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(tiny_model, **{"epochs": 1, "max_steps": None} | settings)
    passes: list[int] = []
    forward = Trainer.forward
    plan = plan_run(pairs_file, config)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(Trainer, "forward", lambda self, pairs: (passes.append(1), forward(self, pairs))[1])
    result = train(pairs_file, tmp_path / "out", config)
    assert result
    rows = metrics_of(tmp_path / "out")
    assert (plan.pairs, plan.steps, plan.passes) == (result.pairs, result.total_steps, len(passes))
    for name in ("kept_tokens_chosen", "kept_tokens_rejected"):
        assert config.epochs * plan.kept[name] == sum(row[name] for row in rows)
    assert (plan.trained == plan.parameters) == (config.lora_r == 0)
    assert plan.seconds
    assert all(value > 0 for value in plan.seconds.values())


def test_few_steps_are_warned_of(
    tiny_model: str, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = "3 optimiser steps over 5 pairs can hardly change a model"
    few = config_for(tiny_model, epochs=1, max_steps=None)
    train(pairs_file, tmp_path / "out", few)
    assert warning in capsys.readouterr().err
    plan_run(pairs_file, few, ranks=2)
    assert warning in capsys.readouterr().err
    for enough in ({"batch_size": 1}, {"max_steps": 3}):
        plan_run(pairs_file, few.model_copy(update=enough), ranks=2)
        assert "hardly change" not in capsys.readouterr().err


def test_a_plan_puts_no_pair_together(tiny_model: str, pairs_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_for(tiny_model, epochs=3, max_steps=None)
    whole = plan_run(pairs_file, config)
    monkeypatch.setattr(StoredPairs, "__getitem__", lambda *_: pytest.fail("a pair is put together"))
    plan = plan_run(pairs_file, config, ranks=2)  # of which no pass is timed
    assert (plan.passes, plan.tokens, plan.kept, plan.mix) == (whole.passes, whole.tokens, whole.kept, whole.mix)


@pytest.mark.parametrize("method", ["mask-dpo", "dpo"])
def test_the_mix_counts_the_tokens_of_the_method(tiny_model: str, pairs_file: Path, method: str) -> None:
    plan = plan_run(pairs_file, config_for(tiny_model, method=method), ranks=2)
    kept = sum(plan.kept[f"kept_tokens_{side}"] for side in SIDES)
    answers = sum(plan.kept[f"kept_tokens_{side}"] / plan.kept[f"kept_{side}"] for side in SIDES)
    assert plan.mix.left_out == pytest.approx(1 - kept / answers)
    assert (plan.mix.left_out == 0) == (method == "dpo")
    assert plan.mix.model_dump(exclude={"left_out"}) == {
        "wrong_of_chosen": 0.5, "right_of_rejected": 0.5, "margin": 0, "sentences_per_answer": 2
    }  # fmt: skip


def test_the_mix_of_a_large_file_is_that_of_its_first_pairs(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [
        make_pair([(" It is.", RIGHT)], [(" Is it not.", label), (" No.", WRONG)], id=f"p{i}")
        for i, label in enumerate((WRONG, RIGHT, WRONG, RIGHT))
    ]
    write_records(tmp_path / "pairs.jsonl", pairs)
    write_records(tmp_path / "first.jsonl", pairs[:2])
    config = config_for(tiny_model)
    first = plan_run(tmp_path / "first.jsonl", config, ranks=2)
    monkeypatch.setattr(dry_run, "MIXED", 2)
    part = plan_run(tmp_path / "pairs.jsonl", config, ranks=2)
    assert (part.mix, part.mix_of_first, first.mix_of_first) == (first.mix, 2, None)
    assert part.mix.right_of_rejected == 1 / 4 and part.pairs == 4
    file, limit = str(tmp_path / "pairs.jsonl"), plan_run(tmp_path / "pairs.jsonl", config_for(tiny_model, limit=2))
    assert (limit.mix, limit.mix_of_first) == (first.mix, None)
    options = "--model", tiny_model, "--out", str(tmp_path / "out"), "--dry-run", "--nproc", "2"
    assert exit_code("train", file, *options) == 0
    assert "mix of the first 2 pairs" in capsys.readouterr().out


def test_the_plan_counts_both_rows_of_a_pair_where_prompts_repeat(
    pairs_file: Path, windowed_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(windowed_model, epochs=1, max_steps=None, batch_size=5, tokens_per_batch=150)
    made: list[int] = []
    forward = Trainer.forward

    def counted(self: Trainer, pairs: Any) -> Any:
        made.append(self.collate(pairs).input_ids_RL.numel())
        return forward(self, pairs)

    plan = plan_run(pairs_file, config)
    monkeypatch.setattr(Trainer, "forward", counted)
    result = train(pairs_file, tmp_path / "out", config)
    assert result
    assert result.layout == "padded"
    assert (plan.passes, plan.largest_pass) == (len(made), max(made))
    assert plan.largest_pass <= 150
    assert plan.passes > result.total_steps, "the budget must cut steps for this test to say anything"


def test_pairs_beyond_the_positions_stop_a_plan_too(windowed_model: str, tmp_path: Path) -> None:
    pairs = [make_pair([("A. " * n, RIGHT)], [("B.", WRONG)], id=f"p{n}") for n in (1, 400)]
    write_records(tmp_path / "pairs.jsonl", pairs)
    with pytest.raises(UserError, match=r"1 of 2 pairs \(p400\) have more than 256 tokens.*`max_length` 256"):
        plan_run(tmp_path / "pairs.jsonl", config_for(windowed_model))


def test_drops_are_counted_by_reason(tiny_model: str, tmp_path: Path) -> None:
    pairs = [make_pair([("A.", label)], [("B.", WRONG)], id=f"{label}") for label in (RIGHT, None, None)]
    write_records(tmp_path / "pairs.jsonl", [pair.model_copy(update={"id": f"{i}"}) for i, pair in enumerate(pairs)])
    plan = plan_run(tmp_path / "pairs.jsonl", config_for(tiny_model, eos="drop"))
    assert plan.pairs == 1
    assert {reason.name: number for reason, number in plan.dropped.items()} == {"NO_WEIGHT_CHOSEN": 2}
    assert (plan.mix.wrong_of_chosen, plan.mix.right_of_rejected, plan.mix.margin) == (0, 0, 1)
    assert plan.mix.sentences_per_answer == 1, "dropped pairs are not in the mix"


def saved_bytes(model: Any, config: Any, pairs: Any) -> tuple[int, int]:
    """What autograd keeps of a forward pass, parameters aside, and how many tokens it has."""
    trainer = Trainer(model, config, "shared")
    batch = trainer.collate(pairs)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = trainer.logps(batch).sum()
    assert held.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), batch.input_ids_RL.numel()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_activations_are_what_autograd_keeps(dtype: str, lora: bool, again: bool) -> None:
    size = {"hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 6, "num_key_value_heads": 2}
    model = random_model(**size, head_dim=64)
    config = config_for("m", dtype=dtype, loss="simpo", beta=2.0, lora_r=8 * lora, gradient_checkpointing=again)
    if lora and dtype == "bfloat16":
        model.to(torch.bfloat16)
    if lora:
        add_adapter(model, config)
    if again:
        checkpoint_layers(model)
    if recomputes_gates(config):
        recompute_gates(model)
    rng = np.random.default_rng(0)
    measured, tokens = saved_bytes(model, config, [random_pair(rng, f"{i}", longest=40) for i in range(8)])
    sizes = sizes_of(model)
    expected = tokens * activation_bytes(sizes, config, 2 if dtype == "bfloat16" else 4)
    if again:  # the forward pass keeps inputs of layers only
        expected = tokens * (sizes.layers * sizes.weight_bytes + 8) * sizes.hidden
    else:
        parts = memory_parts(sizes, config, "cpu", tokens)
        expected += round(1e9 * parts["weights in the compute type"])
    assert measured == pytest.approx(expected, rel=0.2)


def peak_bytes(run: Callable[[], object], file: Path) -> int:
    """The most that is allocated at one time, beyond what was there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    profiled.export_chrome_trace(str(file))
    events = [event for event in json.loads(file.read_text())["traceEvents"] if event["name"] == "[memory]"]
    sizes = [event["args"]["Bytes"] for event in sorted(events, key=lambda event: event["args"]["Ev Idx"])]
    return max(accumulate(sizes))


@pytest.mark.parametrize("again", [False, True])
def test_what_a_step_of_several_passes_takes_is_what_the_formula_says(again: bool, tmp_path: Path) -> None:
    """Gradients of the passes before are there when the forward pass casts the weights of layer after layer."""
    size = {"hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 8, "num_key_value_heads": 2}
    model = random_model(**size, head_dim=64)
    settings: dict[str, Any] = {"batch_size": 8, "tokens_per_batch": 200, "gradient_checkpointing": again}
    config = config_for("m", dtype="bfloat16", loss="simpo", beta=2.0, **settings)
    if again:
        checkpoint_layers(model)
    recompute_gates(model)
    rng = np.random.default_rng(0)
    pairs = [random_pair(rng, f"{i}", longest=40) for i in range(8)]
    trainer = Trainer(model, config, "shared")
    batches = [trainer.collate(group) for group, _ in trainer.passes(pairs)]
    assert len(batches) > 2
    trainer.step(pairs, 1e-5)  # makes the state of AdamW
    parts = memory_parts(sizes_of(model), config, "cpu", max(batch.input_ids_RL.numel() for batch in batches))
    expected = 1e9 * (sum(parts.values()) - parts["weights"] - parts["AdamW"])
    assert peak_bytes(lambda: trainer.step(pairs, 1e-5), tmp_path / "trace.json") == pytest.approx(expected, rel=0.1)
    with torch.no_grad():  # as a reference computes its log-probs
        alone = peak_bytes(lambda: trainer.logps(batches[0]), tmp_path / "trace.json")
    assert (alone < 1e9 * parts["gradients"] / 4) is again


def test_the_parts_that_are_no_estimate(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    parts = plan_run(pairs_file, config_for(tiny_model)).memory
    model = random_model()  # any
    sizes = sizes_of(model)
    assert sizes.parameters == sum(p.numel() for p in model.parameters()) == sizes.trained
    count = plan_run(pairs_file, config_for(tiny_model)).parameters
    assert parts["weights"] == parts["gradients"] == pytest.approx(4 * count / 1e9)
    assert parts["AdamW"] == pytest.approx(8 * count / 1e9)
    assert parts["weights in the compute type"] == 0
    lora = plan_run(pairs_file, config_for(tiny_model, lora_r=4, dtype="bfloat16"))
    assert lora.memory["weights"] == pytest.approx((2 * count + 4 * lora.trained) / 1e9)
    assert lora.memory["AdamW"] == pytest.approx(8 * lora.trained / 1e9)


def test_gradient_checkpointing_and_small_passes_need_less(tiny_model: str, pairs_file: Path) -> None:
    whole = plan_run(pairs_file, config_for(tiny_model, batch_size=5))
    small = plan_run(pairs_file, config_for(tiny_model, batch_size=5, tokens_per_batch=100))
    again = plan_run(pairs_file, config_for(tiny_model, batch_size=5, gradient_checkpointing=True))
    assert small.largest_pass <= 100 < whole.largest_pass
    assert small.memory["activations"] < whole.memory["activations"]
    assert again.memory["activations"] < whole.memory["activations"]


LLAMA_8B: dict[str, Any] = {
    "vocab": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": False,
}


def test_the_forecast_of_a_model_of_8_billion_parameters(tiny_model: str) -> None:
    """The sums of docs/scale.md, from a config alone."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config(**LLAMA_8B))
    config = config_for(tiny_model, dtype="bfloat16", gradient_checkpointing=True)
    found = forecast(model, sizes_of(model), config, "cpu", 2048, 8)
    assert found.letters["P"] == sum(p.numel() for p in model.parameters()) == 8_030_261_248
    assert found.letters["E"] == 2 * 128256 * 4096
    assert found.trial_s is not None and found.trial_s > 0
    assert forecast(model, sizes_of(model), config, "cuda", 2048, 1).trial_s is None, "a GPU tries it in no time"

    def gb(part: str, devices: int, setting: str) -> float:
        value = found.rows[part][found.columns.index((devices, setting))]
        assert value is not None
        return value

    wide, low = "float32, adamw", "bfloat16, adamw8bit"
    split = ("weights", "gradients", "AdamW")
    assert sum(gb(part, 8, wide) for part in split) == pytest.approx(16 * 8.03 / 8, abs=0.01)
    assert gb("embedding and lm_head gathered", 8, wide) == pytest.approx(8.4, abs=0.01)
    assert gb("layers gathered", 8, wide) == pytest.approx(1.3, abs=0.01)
    assert gb("main memory of rank 0: loading", 8, wide) == pytest.approx(32, abs=0.2)
    assert sum(gb(part, 1, wide) for part in split) == pytest.approx(16 * 8.03, abs=0.1)
    assert sum(gb(part, 1, low) for part in split) == pytest.approx(6.03 * 8.03, abs=0.1)
    assert gb("together", 1, low) < 80 < gb("together", 1, wide)
    assert gb("together", 1, "LoRA, 4 bits") < 24
    assert found.rows["together"][found.columns.index((8, "LoRA, 4 bits"))] is None
    assert all(gb("together", 8, name) < gb("together", 1, name) for name in (wide, low, "LoRA, rank 16"))


@pytest.mark.parametrize("lora", [0, 4])
def test_the_forecast_of_a_setting_is_that_of_a_run_with_it(lora: int, tiny_model: str, pairs_file: Path) -> None:
    settings: dict[str, Any] = {"lora_r": lora} if lora else {"weights": "bfloat16", "optim": "adamw8bit"}
    plan = plan_run(pairs_file, config_for(tiny_model, **settings), ranks=2)
    assert plan.seconds is None
    column = plan.forecast.columns.index((2, f"LoRA, rank {lora}" if lora else "bfloat16, adamw8bit"))
    assert plan.forecast.rows["together"][column] == pytest.approx(sum(plan.memory.values()))
    files = sum(file.stat().st_size for file in Path(tiny_model).glob("*.safetensors"))
    assert plan.forecast.disk_gb == files / 1e9


def test_a_config_without_weights_has_a_plan(
    tiny_model: str, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in Path(tiny_model).iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    plan = plan_run(pairs_file, config_for(str(tmp_path)))
    assert plan.seconds is None
    assert "holds no weights, so no pass is timed" in " ".join(capsys.readouterr().err.split())
    assert plan.forecast.disk_gb == pytest.approx(4 * plan.parameters / 1e9)


def test_a_model_that_does_not_fit_is_not_loaded(
    tiny_model: str, pairs_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(dry_run, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(dry_run, "load_policy", never)
    plan = plan_run(pairs_file, config_for(tiny_model))
    assert plan.seconds is None
    assert plan.memory["weights"] > 0
    assert "no pass is timed" in capsys.readouterr().err


def test_the_command_writes_nothing(
    tiny_model: str,
    pairs_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["maskdpo", "train", str(pairs_file), "--model", tiny_model, "--out", "out", "--dry-run", "--max-steps", "3"]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    shown, said = capsys.readouterr()
    assert "loading the model on cpu, to time one forward and backward pass" in " ".join(said.split())
    for words in (
        "steps",
        "activations",
        "w P / N",
        "adamw8bit",
        "seconds at 1 GB/s",
        "seconds at most to try the model",
        "AdamW",
        "forward and backward passes",
        "chosen: trained tokens",
        "share of tokens that the masks of mask-dpo leave out",
    ):
        assert words in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("weight", "method"), [("0", "mask-dpo"), ("0.01", "mask-dpo"), ("0.01", "dpo")])
def test_held_tokens_that_a_mask_leaves_out_are_not_passed_over(
    weight: str, method: str, tiny_model: str, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--model", tiny_model, "--out", str(tmp_path / "out"), "--dry-run", "--nproc", "2", "--method", method
    assert exit_code("train", str(pairs_file), *options, "--hold-weight", weight) == 0
    said = "With --hold-weight the other tokens of both answers get a gradient too"
    assert (said in capsys.readouterr().out) == (weight != "0" and method != "dpo")


def test_what_stops_a_run_stops_its_plan(tiny_model: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"id": 1}) + "\n")
    with pytest.raises(UserError, match=r"pairs\.jsonl:1"):
        plan_run(tmp_path / "pairs.jsonl", config_for(tiny_model))


def test_what_is_free_counts_the_page_cache_and_limits_of_groups(tmp_path: Path) -> None:
    """Trees as Linux shows them: version 2 with a limit above the own group, version 1, no limit at all."""
    proc = tmp_path / "proc"

    def write(place: str, text: str) -> None:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)

    assert free_host_bytes(proc, tmp_path) is None, "no Linux"
    write("proc/meminfo", "MemTotal: 32000000 kB\nMemFree: 3200000 kB\nMemAvailable: 16000000 kB\n")
    write("proc/self/cgroup", "0::/job/step\n")
    assert free_host_bytes(proc, tmp_path / "groups") == 16_000_000 * 1024
    write("groups/job/memory.max", "9000000000\n")
    write("groups/job/memory.current", "8000000000\n")
    write("groups/job/memory.stat", "anon 5\ninactive_file 3000000000\n")
    write("groups/job/step/memory.max", "max\n")
    write("groups/job/step/memory.current", "1\n")
    write("groups/job/step/memory.stat", "inactive_file 0\n")
    assert free_host_bytes(proc, tmp_path / "groups") == 4_000_000_000
    write("proc/self/cgroup", "9:name=systemd:/x\n4:cpu,memory:/far/away\n0::/\n")
    write("groups/memory/memory.limit_in_bytes", "2000000000\n")
    write("groups/memory/memory.usage_in_bytes", "1500000000\n")
    write("groups/memory/memory.stat", "inactive_file 7\ntotal_inactive_file 100\n")
    assert free_host_bytes(proc, tmp_path / "groups") == 500_000_100
