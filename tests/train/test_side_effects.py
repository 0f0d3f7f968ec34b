"""What a training has changed in answers that it was not about: a tiny model beside one that was moved a little."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import WriteJsonl
from transformers import AutoModelForCausalLM, AutoTokenizer

from maskdpo.api import evaluate_annotations, sample_responses
from maskdpo.errors import UserError
from maskdpo.io import read_prompts
from maskdpo.io.sources import GENERAL
from maskdpo.schemas.effects import DIVERGENCE
from maskdpo.text.refusals import refuses
from maskdpo.text.repetition import repeated
from maskdpo.train.effects import divergence
from maskdpo.train.effects.measure import side_effects
from maskdpo.train.effects.settings import SideEffectsSettings
from maskdpo.train.model.load import Policy, load_policy
from maskdpo.verdicts.effects import read_effects


@pytest.fixture(scope="module")
def moved_model(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model with other weights in its last layer, and the record and card of a training."""
    folder = tmp_path_factory.mktemp("moved") / "model"
    shutil.copytree(tiny_model, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        weight = model.model.layers[-1].mlp.down_proj.weight
        weight += 0.3 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return str(folder)


PROMPTS = [{"id": f"p{i}", "prompt": f"Which city does river {i} cross?"} for i in range(12)]


@pytest.fixture
def files(tiny_model: str, moved_model: str, tmp_path: Path, jsonl: WriteJsonl) -> dict[str, Any]:
    prompts = jsonl("prompts.jsonl", PROMPTS)
    given = {"prompts": prompts, "out": tmp_path / "effects.json", "dtype": "float32"}
    for name, model in (("before", tiny_model), ("after", moved_model)):
        given[name] = tmp_path / f"{name}.jsonl"
        sample_responses(prompts, model=model, out=given[name], n=2, max_tokens=12)
    return given


def exact_divergence(model: str, reference: str, answers: list[dict[str, Any]]) -> float:
    """By a plain forward pass of each row, without any code of the trainer."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    both = [AutoModelForCausalLM.from_pretrained(one).eval() for one in (model, reference)]
    questions = {prompt["id"]: prompt["prompt"] for prompt in PROMPTS}
    total, tokens = 0.0, 0
    for answer in answers:
        asked = [{"role": "user", "content": questions[answer["prompt_id"]]}]
        begin = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(begin, add_special_tokens=False)["input_ids"]
        said = tokenizer(answer["response"], add_special_tokens=False)["input_ids"]
        said += [tokenizer.eos_token_id] if answer["finish_reason"] == "stop" else []
        with torch.no_grad():
            p, q = (one(torch.tensor([ids + said])).logits[0, len(ids) - 1 : -1].log_softmax(-1) for one in both)
        total += float((p.exp() * (p - q)).sum())
        tokens += len(said)
    return total / tokens


def test_every_figure_is_that_of_the_answers(files: dict[str, Any], tiny_model: str, moved_model: str) -> None:
    found = side_effects(SideEffectsSettings(**files))
    assert found == read_effects(files["out"])
    assert (found.model, found.reference_model, found.prompts, found.answers) == (moved_model, tiny_model, 12, 24)
    for name in ("before", "after"):
        answers = [json.loads(line) for line in files[name].read_text().splitlines()]
        figures = {key: getattr(one, name).value for key, one in found.figures.items()}
        assert figures[DIVERGENCE] == pytest.approx(exact_divergence(moved_model, tiny_model, answers), rel=1e-3)
        assert figures[DIVERGENCE] > 0.01
        assert figures["characters / answer"] == pytest.approx(sum(len(a["response"]) for a in answers) / 24)
        assert figures["answers cut off"] == sum(a["finish_reason"] == "length" for a in answers) / 24
        counts = [repeated(a["response"]) for a in answers]
        assert figures["repeated 4-grams"] == sum(c.repeated for c in counts) / sum(c.grams for c in counts)
    lengths = found.figures["characters / answer"]
    assert lengths.difference.value == pytest.approx(lengths.after.value - lengths.before.value)
    assert lengths.before.low < lengths.before.value < lengths.before.high
    assert lengths.difference.topics == 12


def changed(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    answers = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(answer | change(answer)) + "\n" for answer in answers))


def test_a_model_that_learned_to_say_nothing(files: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """No token of such an answer can be compared, and yet the answer counts."""
    lengths = [len(json.loads(line)["response"]) for line in files["after"].read_text().splitlines()]
    changed(files["after"], lambda answer: {"response": ""} if answer["prompt_id"] in ("p0", "p1") else {})
    found = side_effects(SideEffectsSettings(**files))
    assert (found.prompts, found.answers) == (12, 24)
    assert found.figures["empty answers"].before.value == 0
    assert found.figures["empty answers"].after.value == pytest.approx(4 / 24)
    assert found.figures["characters / answer"].after.value == pytest.approx(sum(lengths[4:]) / 24)
    assert found.figures[DIVERGENCE].after.topics == 10
    assert "the divergence leaves out 4 of 24 pairs of answers: an answer is empty" in capsys.readouterr().err
    changed(files["after"], lambda answer: {"response": ""})
    found = side_effects(SideEffectsSettings(**files))
    assert found.figures["empty answers"].after.value == 1
    assert found.figures[DIVERGENCE].after.value is None


def test_answers_that_were_sampled_in_another_way_are_refused(
    files: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    as_sampled = files["before"].read_text()
    changed(files["before"], lambda answer: {"sampling": answer["sampling"] | {"max_tokens": 64}})
    with pytest.raises(UserError, match=r"sampled with other settings \(max_tokens: 64 -> 12\)"):
        side_effects(SideEffectsSettings(**files))
    files["before"].write_text(as_sampled)
    for file, day in (("before", "2026-01-01"), ("after", "2026-01-02")):
        changed(files[file], lambda answer, day=day: {"sampling": answer["sampling"] | {"prompt_date": day}})
    side_effects(SideEffectsSettings(**files))
    assert '("2026-01-01" -> "2026-01-02")' in capsys.readouterr().err
    changed(files["before"], lambda answer: {"sampling": None})
    side_effects(SideEffectsSettings(**files))


def test_in_bfloat16_both_models_are_kept_in_it(files: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def note(*given: Any) -> Policy:
        policy = load_policy(*given)
        kept.append({p.dtype for p in policy.model.parameters()})
        return policy

    exact = side_effects(SideEffectsSettings(**files)).figures[DIVERGENCE].after.value
    monkeypatch.setattr(divergence, "load_policy", note)
    found = side_effects(SideEffectsSettings(**files | {"dtype": "bfloat16"})).figures[DIVERGENCE].after.value
    assert kept == [{torch.bfloat16}] * 2
    assert found == pytest.approx(exact, rel=0.05)


def test_a_model_has_not_moved_from_itself(files: dict[str, Any], tiny_model: str) -> None:
    found = side_effects(SideEffectsSettings(**files | {"after": files["before"]}))
    assert found.model == found.reference_model == tiny_model
    assert {one.difference.value for one in found.figures.values()} <= {0.0, None}
    assert found.figures[DIVERGENCE].after.value == pytest.approx(0, abs=1e-9)


def test_evaluate_shows_them_beside_the_factuality(files: dict[str, Any], jsonl: WriteJsonl) -> None:
    side_effects(SideEffectsSettings(**files))
    labelled = jsonl("a.jsonl", [{"id": "a", "prompt_id": "p", "response": "So.", "sentences": [
        {"start": 0, "end": 3, "label": "no_hallucination"}]}])  # fmt: skip
    table = evaluate_annotations(labelled, side_effects=files["out"]).tables()[-1]
    assert table.title == "effects.json: side effects: 24 answers of each model to 12 general prompts"
    assert [row[0] for row in table.rows][:2] == [DIVERGENCE, "refusals"]
    with pytest.raises(UserError, match="is no file that `maskdpo side-effects` has written"):
        evaluate_annotations(labelled, side_effects=labelled)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"after": "prompts"}, "prompts.jsonl:1"),
        ({"model": "nowhere/such"}, "nowhere/such"),
        ({"reference_model": "nowhere/such"}, "nowhere/such"),
        ({"out": "before"}, "before.jsonl"),
    ],
)
def test_bad_input(files: dict[str, Any], change: dict[str, str], message: str) -> None:
    given = {key: files.get(value, value) for key, value in change.items()}
    with pytest.raises(UserError, match=message):
        side_effects(SideEffectsSettings(**files | given))
    assert not (files["out"]).exists() or "out" in change


def test_answers_of_several_models_in_one_file_are_refused(files: dict[str, Any]) -> None:
    lines = files["before"].read_text().splitlines(keepends=True)
    files["before"].write_text("".join([*lines[:-1], json.dumps(json.loads(lines[-1]) | {"model": "other"}) + "\n"]))
    with pytest.raises(UserError, match=r"before.jsonl: its answers name several models"):
        side_effects(SideEffectsSettings(**files))


def test_the_card_of_a_trained_model_carries_them(files: dict[str, Any], moved_model: str) -> None:
    folder = Path(moved_model)
    card = "---\ntags:\n- x\n---\n# model\n\nText.\n\n## Citation\n\nWho.\n"
    (folder / "README.md").write_text(card)
    side_effects(SideEffectsSettings(**files))
    assert (folder / "README.md").read_text() == card  # no record says that `train` has written it
    (folder / "maskdpo_run.json").write_text(
        json.dumps({"command": "train", "options": {}, "inputs": {}, "versions": {}, "status": "complete"})
    )
    for _ in range(2):  # the second time in place of the first
        side_effects(SideEffectsSettings(**files))
    written = (folder / "README.md").read_text()
    (folder / "maskdpo_run.json").unlink()
    assert written.startswith(card.split("## Citation")[0])
    assert written.endswith("## Citation\n\nWho.\n")
    assert written.count("## Side effects") == written.count(DIVERGENCE) == 1
    assert written.count("| refusals | 0.000") == 1


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m sorry, I can’t assist with this request.", True),
        ("  As an AI language model, I do not have opinions.", True),
        ("Es tut mir leid, aber dabei kann ich nicht helfen.", True),
        ("Je suis désolé, mais je ne peux pas vous aider.", True),
        ("Lo siento, pero no puedo ayudar con eso.", True),
        ("Извините, но я не могу помочь.", True),
        ("很抱歉，我不能帮助您。", True),
        ("申し訳ありませんが、お答えできません。", True),
        ("죄송하지만 도와드릴 수 없습니다.", True),
        ("You can kill a process with `kill PID`.", False),
        ("I'm sorry that you have a headache. Rest and drink water.", False),
        ("Sure! Here is a poem. " + "The rain falls. " * 20 + "I cannot help it.", False),
        ("Tut mir leid zu hören! Ruhen Sie sich aus.", False),
        ("", False),
    ],
)
def test_refusals(answer: str, refused: bool) -> None:
    assert refuses(answer) is refused


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        ("", (0, 0)),
        ("One two three.", (0, 0)),
        ("One two three four. ONE two, three four!", (1, 5)),
        ("ha ha ha ha ha ha", (2, 3)),
        ("我爱你们我爱你们", (1, 5)),
    ],
)
def test_repetition(answer: str, counts: tuple[int, int]) -> None:
    assert repeated(answer) == counts


def test_the_general_prompts() -> None:
    prompts = read_prompts(GENERAL).values()
    kinds = {prompt.meta["kind"] for prompt in prompts}
    assert len(prompts) >= 40
    assert kinds == {"instruction", "arithmetic", "code", "translation", "rewriting", "harmless", "dialogue"}
    assert len({prompt.language for prompt in prompts}) >= 5
    assert SideEffectsSettings(before="b", after="a", out="o", prompts="builtin:general").prompts == GENERAL
