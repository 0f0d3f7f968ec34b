"""Whole pipelines on the tiny model with the lexical judge: what runs, what is passed over, what is made anew."""

import functools
import gc
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from conftest import WriteJsonl

from maskdpo.commands import COMMANDS
from maskdpo.commands.pipeline import run as run_command
from maskdpo.commands.signature import register
from maskdpo.errors import Interrupted, UserError
from maskdpo.identity import fingerprint
from maskdpo.lineage import Node, trace
from maskdpo.models import load_tokenizer
from maskdpo.pipeline.execute import plan, run_stages
from maskdpo.pipeline.settings import RunSettings
from maskdpo.pipeline.spec import Stage, load_pipeline
from maskdpo.run_record import meta_file, read_meta
from maskdpo.sample import SampleSettings
from maskdpo.settings import Settings, settings_model

pytestmark = pytest.mark.slow

CITIES = ("Paris", "London", "Rome", "Berlin", "Madrid")
STOP = ["e", "i", "o", "u"]
"""Some of these come soon, so that the babble is not cut off: the torn end of an answer does not train."""
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


class World:
    """A folder with prompts and a pipeline that trains the tiny model."""

    def __init__(self, folder: Path, spec: dict[str, Any]) -> None:
        self.folder, self.spec = folder, spec
        self.out = folder / "out"

    def stages(self) -> list[Stage]:
        file = self.folder / "pipeline.yaml"
        file.write_text(yaml.safe_dump(self.spec))
        return load_pipeline(file, COMMANDS)

    def run(self, start: str | None = None) -> dict[str, str]:
        return {stage.name: state.action for stage, state in run_stages(self.stages(), start)}

    def plan(self) -> dict[str, tuple[str, str]]:
        return {stage.name: (state.action, state.why) for stage, state in plan(self.stages())}

    def read(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / name).read_text().splitlines()]

    def backups(self) -> set[str]:
        return {file.name for file in self.out.glob("*.bak*")}

    def contents(self) -> dict[str, bytes]:
        """Of all that is not made each time."""
        files = (file for file in self.out.rglob("*") if file.is_file() and file.suffix != ".html")
        return {str(file): file.read_bytes() for file in files if file.stem != "evaluate"}


@pytest.fixture
def world(tmp_path: Path, tiny_model: str, jsonl: WriteJsonl, monkeypatch: pytest.MonkeyPatch) -> World:
    """The tiny model babbles; what it babbles first about a city is declared to be true of it, so that pairs arise. It
    computes in float32, as processors that have bfloat16 would make other babble of it than those that have not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKDPO_CACHE", str(tmp_path / "cache"))
    prompts = [{"id": city, "prompt": f"Which river crosses {city}?"} for city in CITIES]
    babble = {"prompts": jsonl("asked.jsonl", prompts), "model": tiny_model, "out": tmp_path / "babble.jsonl"}
    sampling = {"n": 3, "max_tokens": 30, "stop": STOP, "dtype": "float32"}
    COMMANDS["sample"](SampleSettings(**babble | sampling))
    said = {row["prompt_id"]: row["response"] for row in reversed(read(tmp_path / "babble.jsonl"))}
    jsonl("prompts.jsonl", [prompt | {"reference": said[prompt["id"]]} for prompt in prompts[:4]])
    jsonl("heldout.jsonl", [prompt | {"reference": said[prompt["id"]]} for prompt in prompts[4:]])
    spec = {
        "out": "out",
        "prompts": "prompts.jsonl",
        "heldout": "heldout.jsonl",
        "model": tiny_model,
        "sample": {"n": 3, "max-tokens": 30, "stop": STOP, "dtype": "float32"},
        "annotate": {"judge": "lexical"},
        "build-pairs": {"test_size": 0, "max-length-ratio": 9},
        "train": {"lr": "1e-3", "max-steps": 2, "batch-size": 2},
        "evaluate": None,
        "report": None,
    }
    return World(tmp_path, spec)


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


ALL = (
    "sample", "annotate", "build-pairs", "train",
    "sample-before", "annotate-before", "sample-after", "annotate-after", "evaluate", "report",
)  # fmt: skip


# --- what runs -------------------------------------------------------------------------------------


def test_everything_runs_once_and_is_then_up_to_date(world: World) -> None:
    assert world.plan()["sample"] == ("run", "no output yet")
    assert not world.out.exists()  # a dry run writes nothing
    assert world.run() == dict.fromkeys(ALL, "run")
    assert world.read("pairs.jsonl")
    assert {row["model"] for row in world.read("after.responses.jsonl")} == {"out/model"}
    assert {row["model"] for row in world.read("before.responses.jsonl")} == {world.spec["model"]}
    assert "<html" in (world.out / "report.html").read_text()
    figures = (world.out / "evaluate.json").read_text()
    assert json.loads(figures)
    before = world.contents()
    again = world.run()
    assert {name for name, action in again.items() if action != "up to date"} == {"evaluate", "report"}
    assert world.contents() == before
    assert (world.out / "evaluate.json").read_text() == figures


def test_a_first_try_goes_on_with_the_rest(world: World) -> None:
    """Every stage takes its first records; without the limit it goes on, and nothing that was done is done again."""
    for name in ("heldout", "evaluate", "report"):
        del world.spec[name]
    limits = {"sample": 3, "annotate": 8, "train": 1}
    for name, limit in limits.items():
        world.spec[name]["limit"] = limit
    assert world.run() == dict.fromkeys(ALL[:4], "run")
    tried, labelled = world.read("responses.jsonl"), world.read("annotations.jsonl")
    assert [row["prompt_id"] for row in tried] == ["Paris"] * 3 + ["London"] * 3 + ["Rome"] * 3
    assert [row["id"] for row in labelled] == [row["id"] for row in tried[:8]]
    assert read_meta(meta_file(world.out / "model")).counts["pairs"] == 1  # type: ignore[union-attr]
    for name in limits:
        del world.spec[name]["limit"]
    planned = {name: action for name, (action, _) in world.plan().items()}
    maybe = "continue or anew"
    assert planned == {"sample": "changed", "annotate": "changed", "build-pairs": maybe, "train": "changed"}
    assert world.run() == {"sample": "changed", "annotate": "changed", "build-pairs": "continue", "train": "anew"}
    assert world.read("responses.jsonl")[:9] == tried
    assert world.read("annotations.jsonl")[:8] == labelled
    assert len(world.read("annotations.jsonl")) == len(world.read("responses.jsonl")) == 12
    assert world.backups() == {"model.bak"}  # the order of all pairs is another one than that of the first
    assert read_meta(meta_file(world.out / "model")).counts["pairs"] > 1  # type: ignore[union-attr]


def test_references_out_of_documents_are_what_all_judges_see(world: World) -> None:
    docs = world.folder / "docs"
    docs.mkdir()
    for name in ("prompts.jsonl", "heldout.jsonl"):
        prompts = read(world.folder / name)
        for prompt in prompts:
            (docs / f"{prompt['id']}.txt").write_text(f"{prompt['id']} and its river. {prompt.pop('reference')}")
        (world.folder / name).write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    world.spec["ground"] = {"corpus": "docs", "passages": 2}
    stages = (*ALL[:1], "ground", *ALL[1:4], "sample-before", "sample-after", "ground-heldout", *ALL[5:8:2], *ALL[8:])
    assert world.run() == dict.fromkeys(stages, "run")
    assert world.read("pairs.jsonl")
    for name in ("prompts.jsonl", "heldout.prompts.jsonl"):
        for prompt in world.read(name):
            assert prompt["sources"][0]["document"] == f"{prompt['id']}.txt"
    assert {name for name, action in world.run().items() if action != "up to date"} == {"evaluate", "report"}
    assert world.backups() == set()
    world.run(start="ground")
    assert {"prompts.jsonl.bak", "annotations.jsonl.bak", "model.bak"} <= world.backups()
    docs.rename(world.folder / "moved")
    with pytest.raises(UserError, match="ground reads docs: no such file or folder"):
        world.run()


MODELS = ("model", "model-plain-dpo")


def test_more_trainings_are_compared_in_one_table_and_everything_can_be_exported(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.spec["also-train"] = {"plain-dpo": {"method": "dpo"}}
    world.spec |= {"export": {"format": "trl"}, "export-annotations": {"format": "argilla"}}
    world.spec["push"] = {"repo": "me/facts", "license": "cc0-1.0", "dry-run": str(world.folder / "data")}
    planned = world.plan()
    done = world.run()
    assert list(done) == list(planned)
    assert set(done) - set(ALL) == {
        "train-plain-dpo", "sample-after-plain-dpo", "annotate-after-plain-dpo", "report-plain-dpo",
        "export", "export-annotations", "push",
    }  # fmt: skip
    settings = [json.loads((world.out / name / "maskdpo_run.json").read_text())["options"] for name in MODELS]
    assert [options["method"] for options in settings] == ["mask-dpo", "dpo"]
    assert {row["model"] for row in world.read("after-plain-dpo.responses.jsonl")} == {"out/model-plain-dpo"}
    shown = capsys.readouterr().out
    assert "before.annotations.jsonl: beside 2 others" in shown
    assert "after.annotations.jsonl: beside 1 other" in shown
    between = "after-plain-dpo - after"
    assert between in (world.out / "report-plain-dpo.html").read_text()
    assert between not in (world.out / "report.html").read_text()
    assert world.read("exported.pairs.jsonl")
    assert (world.folder / "data" / "README.md").exists()
    again = world.run()
    assert {name for name, action in again.items() if action != "up to date"} == {
        "evaluate", "report", "report-plain-dpo", "export", "export-annotations", "push",
    }  # fmt: skip


@pytest.mark.parametrize("report", [{}, {"gold": "g"}, {"labels": ["before", "after"]}, {"label": ["a", "b"]}])
def test_a_report_with_what_is_for_one_compared_file_has_one(tmp_path: Path, report: dict[str, Any]) -> None:
    also = {"rounds": 1, "heldout": "h", "train": {}, "also-train": {"dpo": {"method": "dpo"}}, "report": report}
    stages = stages_of(tmp_path, also)
    compared = [stages[name].plain["compare"] for name in ("report", "report-dpo")]
    first, second = "o/after.annotations.jsonl", "o/after-dpo.annotations.jsonl"
    assert compared == [[first], [second] if report else [first, second]]
    labels = [stages[name].plain.get("label") for name in ("report", "report-dpo")]
    of_gold = [["before", "after"], ["before", "after-dpo"]]
    assert labels == (of_gold if "gold" in report else [report.get("labels", report.get("label"))] * 2)
    with pytest.raises(UserError, match=r"evaluate\.gold: goes with one trained model"):
        stages_of(tmp_path, also | {"evaluate": {"gold": "g"}})


PARITY_JUDGE = """
from maskdpo.annotate.judge import Verdict
from maskdpo.schemas import JudgeInfo, Label

class Judge:
    info = JudgeInfo(name="parity")

    def judge(self, tasks):
        for task in tasks:
            sums = (sum(task.sentence(i).encode()) for i in range(len(task.spans)))
            yield task, [Verdict(list(Label)[number % 2]) for number in sums]
"""
"""Whatever a model has become, some of what it babbles is right and some is wrong."""

LATER = ("sample-2", "annotate-2", "build-pairs-2", "train-2", "sample-after-2", "annotate-after-2")


def test_every_round_begins_with_the_model_of_the_one_before(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    (world.folder / "judge.py").write_text(PARITY_JUDGE)
    world.spec["annotate"] = {"judge": "./judge.py:Judge"}
    world.run()
    first = world.contents()
    world.spec["rounds"] = 2
    planned = world.plan()
    assert [name for name, (action, _) in planned.items() if action != "up to date"] == [*LATER, "evaluate", "report"]
    done = world.run()
    assert list(done) == list(planned) == [*ALL[:8], *LATER, "evaluate", "report"]
    assert first.items() <= world.contents().items()  # a single training was the first round
    assert {row["model"] for row in world.read("responses-2.jsonl")} == {"out/model"}
    assert {row["model"] for row in world.read("after-2.responses.jsonl")} == {"out/model-2"}
    records = [json.loads((world.out / name / "maskdpo_run.json").read_text()) for name in ("model", "model-2")]
    assert [record["options"]["model"] for record in records] == [world.spec["model"], "out/model"]
    assert records[1]["paths"]["pairs"] == "../pairs-2.jsonl"
    assert "beside 2 others" in capsys.readouterr().out
    assert (world.out / "evaluate.png").read_bytes().startswith(b"\x89PNG")
    report = next(stage for stage in world.stages() if stage.name == "report").settings
    assert [file.name for file in report.compare] == ["after.annotations.jsonl", "after-2.annotations.jsonl"]
    page = (world.out / "report.html").read_text()
    assert all(name in page for name in ('"round 1":{', '"round 2":{', "round 2 - before"))
    base = Path(world.spec["model"]).name
    assert models_behind(trace(world.out / "model-2")) == ["model", base, base, "model"]  # the second time: as above
    again = world.run()
    assert {name for name, action in again.items() if action != "up to date"} == {"evaluate", "report"}


def models_behind(node: Node) -> list[str]:
    """All models in the tree behind an output, depth first."""
    found = [node.path.name] if node.role == "model" else []
    return [*found, *(name for child in node.inputs for name in models_behind(child))]


def test_what_else_each_round_changes_is_measured_where_each_asks_its_own_prompts(
    world: World, jsonl: WriteJsonl, capsys: pytest.CaptureFixture[str]
) -> None:
    (world.folder / "judge.py").write_text(PARITY_JUDGE)
    world.spec["annotate"] = {"judge": "./judge.py:Judge"}
    asked = jsonl("general.jsonl", [{"id": f"g{i}", "prompt": f"Say the number {i}."} for i in range(3)])
    world.spec |= {"rounds": 2, "round-prompts": "split", "sample-later": {"n": 8}}
    world.spec |= {"side-effects": {"prompts": str(asked)}, "sample-general": {"max-tokens": 8}}
    world.spec["train"]["reference"] = world.spec["model"]  # kept in all rounds
    done = world.run()
    stages = [
        "sample-general-before",
        "sample-general-after",
        "side-effects",
        "sample-general-after-2",
        "side-effects-2",
    ]
    assert [name for name in done if "general" in name or "effects" in name] == stages
    found = [json.loads((world.out / name).read_text()) for name in ("side-effects.json", "side-effects-2.json")]
    assert [one["model"] for one in found] == ["out/model", "out/model-2"]
    assert {one["reference_model"] for one in found} == {world.spec["model"]}
    assert found[0]["figures"]["divergence / token (nats)"]["after"]["value"] > 0
    records = [json.loads((world.out / name / "maskdpo_run.json").read_text()) for name in ("model", "model-2")]
    assert [record["options"]["model"] for record in records] == [world.spec["model"], "out/model"]
    assert [record["options"]["reference"] for record in records] == [None, world.spec["model"]]
    of_round_2 = trace(world.out / "model-2").inputs
    assert [(node.role, node.path.name, node.state) for node in of_round_2[1:]] == [
        ("model", "model", "unchanged"),
        ("reference", Path(world.spec["model"]).name, "unchanged"),
    ]
    answers = world.read("general-after-2.responses.jsonl")
    assert {(row["sampling"]["temperature"], row["sampling"]["max_tokens"]) for row in answers} == {(1.0, 8)}
    assert capsys.readouterr().out.count("of each model to 3 general prompts") == 4  # twice by evaluate
    assert "## Side effects" in (world.out / "model-2" / "README.md").read_text()
    assert (world.out / "report.html").read_text().count("general prompts") == 2
    again = world.run()
    assert {name for name, action in again.items() if action != "up to date"} == {"evaluate", "report"}


def test_rounds_may_split_the_prompts(tmp_path: Path) -> None:
    stages = stages_of(tmp_path, {"round-prompts": "split", "sample-later": {"n": 2}})
    parts = [stages[name].plain["shard"] for name in ("sample", "sample-2", "sample-3")]
    assert parts == ["1/3", "2/3", "3/3"]
    assert "--shard 2/3" in stages["sample-2"].line
    with pytest.raises(UserError, match=r"sample\.shard: cannot be set here: the pipeline sets it"):
        stages_of(tmp_path, {"round-prompts": "split", "sample": {"shard": "1/2"}})


def test_the_first_model_may_stay_the_reference_of_all_rounds(tmp_path: Path) -> None:
    """To name it makes nothing of the first round anew."""
    stages = stages_of(tmp_path, {"train": {"reference": "m"}})
    trained = [(stages[name].plain["model"], stages[name].plain.get("reference")) for name in TRAININGS]
    assert trained == [("m", None), ("o/model", "m"), ("o/model-2", "m")]
    assert stages["train"].plain == stages_of(tmp_path, {"train": None})["train"].plain
    assert "--reference m" in stages["train-2"].line
    with pytest.raises(UserError, match=r"train-2: .*`loss` simpo has no reference; leave `reference` out"):
        stages_of(tmp_path, {"train": {"reference": "m", "loss": "simpo", "beta": 2}})


def test_a_round_is_made_anew_with_those_that_follow_it(world: World) -> None:
    (world.folder / "judge.py").write_text(PARITY_JUDGE)
    world.spec["annotate"] = {"judge": "./judge.py:Judge"}
    world.spec["rounds"] = 2
    world.run()
    kept = {name: (world.out / name).read_bytes() for name in ("responses.jsonl", "model/model.safetensors")}
    assert world.run("train-2") == dict.fromkeys((*LATER[3:], "evaluate", "report"), "anew")
    assert {"model-2.bak", "after-2.responses.jsonl.bak"} <= world.backups()
    assert "responses-2.jsonl.bak" not in world.backups()
    world.spec["train"]["lr"] = 0.01
    done = world.run()
    assert (done["sample"], done["build-pairs"], done["train"]) == ("up to date", "up to date", "changed")
    assert {done[name] for name in LATER} == {"anew"}
    assert (world.out / "responses.jsonl").read_bytes() == kept["responses.jsonl"]
    assert (world.out / "model" / "model.safetensors").read_bytes() != kept["model/model.safetensors"]


SCORED_JUDGE = """
from maskdpo.annotate.judge import Verdict
from maskdpo.schemas import JudgeInfo, Label

class Judge:
    info = JudgeInfo(name="scored")

    def judge(self, tasks):
        for task in tasks:
            scores = [{Label.NO_HALLUCINATION: p, Label.HALLUCINATION: 1 - p} for p in map(self.right, task.spans)]
            yield task, [Verdict(max(found, key=found.get), scores=found) for found in scores]

    def right(self, span):
        return 0.6 + 0.1 * (span.end % 4)
"""


def test_a_calibration_relabels_what_the_pairs_are_built_from_and_the_held_out_answers(world: World) -> None:
    (world.folder / "judge.py").write_text(SCORED_JUDGE)
    world.spec["annotate"] = {"judge": "./judge.py:Judge"}
    stages = {"sample": world.spec["sample"], "annotate": world.spec["annotate"]}
    World(world.folder, {key: world.spec[key] for key in ("out", "prompts", "model")} | stages).run()
    judged = world.read("annotations.jsonl")
    for answer in judged:  # the people say that the judge's .7 and less is wrong
        answer["judge"] = None
        for sentence in answer["sentences"]:
            right = sentence["scores"]["no_hallucination"] > 0.75
            sentence |= {"label": "no_hallucination" if right else "hallucination", "scores": None, "confidence": None}
    (world.folder / "gold.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in judged))
    world.spec["calibrate"] = {"gold": "gold.jsonl"}
    actions = world.run()
    assert [name for name in actions if name != "evaluate"][:4] == ["sample", "annotate", "calibrate", "relabel"]
    relabelled = world.read("relabelled.jsonl")
    labels = [sentence["label"] for answer in relabelled for sentence in answer["sentences"]]
    assert labels == [sentence["label"] for answer in judged for sentence in answer["sentences"]]
    assert {answer["judge"]["calibration"] for answer in world.read("after.annotations.jsonl")} != {None}
    meta = read_meta(meta_file(world.out / "pairs.jsonl"))
    assert meta is not None
    assert meta.paths["annotations"] == "relabelled.jsonl"
    assert {name for name, action in world.run().items() if action != "up to date"} == {"evaluate", "report"}


def test_what_people_decide_becomes_gold_for_calibration_and_pairs(world: World) -> None:
    (world.folder / "judge.py").write_text(SCORED_JUDGE)
    world.spec["annotate"] = {"judge": "./judge.py:Judge"}
    stages = {"sample": world.spec["sample"], "annotate": world.spec["annotate"]}
    World(world.folder, {key: world.spec[key] for key in ("out", "prompts", "model")} | stages).run()
    for name in ("ada", "ben"):
        lines = [
            {
                "id": f"{name}-{answer['id']}-{s['start']}",
                "answer_id": answer["id"],
                **{key: answer[key] for key in ("prompt_id", "response")},
                **{key: s[key] for key in ("start", "end")},
                "reviewer": name,
                "queue": "random",
                "inclusion": 1.0,
                "label": "no_hallucination" if s["scores"]["no_hallucination"] > 0.75 else "contradictory",
            }
            for answer in world.read("annotations.jsonl")
            for s in answer["sentences"]
            if s["scores"]
        ]
        (world.folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    world.spec |= {"gold": {"decisions": ["ada.jsonl", "ben.jsonl"]}, "agree": None, "calibrate": None}
    actions = world.run()
    names = ["sample", "annotate", "gold", "agree", "calibrate", "relabel", "build-pairs"]
    assert [name for name in actions if name in names] == names
    assert json.loads((world.out / "agree.json").read_text())["people"]["figures"]["labels"]["value"] == 1
    for output in ("calibration.json", "pairs.jsonl"):
        meta = read_meta(meta_file(world.out / output))
        assert meta is not None
        assert meta.paths["gold"] == "gold.jsonl"
    again = {name for name, action in world.run().items() if action != "up to date"}
    assert again == {"agree", "evaluate", "report"}


def test_the_record_names_the_command_that_does_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run()
    for stage in world.stages():
        if stage.out is None or stage.command == "report":
            continue
        meta = read_meta(meta_file(stage.out))
        assert meta is not None
        assert meta.command_line == stage.line
        assert set(meta.paths) == set(meta.inputs)
        folder = meta_file(stage.out).parent
        assert all((folder / path).resolve() == stage.inputs[role].resolve() for role, path in meta.paths.items())


def test_a_command_that_was_run_by_hand_is_not_run_again(world: World) -> None:
    sample = world.stages()[0]
    sample.call(sample.settings)
    before = (world.out / "responses.jsonl").read_bytes()
    assert world.plan()["sample"] == ("continue", "made by hand: it sees itself what is left to do")
    world.run()
    assert (world.out / "responses.jsonl").read_bytes() == before
    assert world.plan()["sample"] == ("up to date", "")
    assert world.backups() == set()


# --- what changes ----------------------------------------------------------------------------------


def test_another_learning_rate_trains_anew_and_keeps_the_answers(world: World) -> None:
    world.run()
    weights = (world.out / "model" / "model.safetensors").read_bytes()
    world.spec["train"]["lr"] = 0.01
    planned = world.plan()
    assert planned["build-pairs"] == ("up to date", "")
    assert planned["train"] == ("changed", "lr: 0.001 -> 0.01")
    assert planned["sample-before"] == ("up to date", "")
    assert planned["sample-after"] == ("continue or anew", "after train")
    assert planned["annotate-after"] == ("continue or anew", "after sample-after")
    done = world.run()
    assert [done[name] for name in ALL[:3]] == ["up to date"] * 3
    assert (done["sample-before"], done["sample-after"], done["annotate-after"]) == ("up to date", "anew", "anew")
    assert (world.out / "model" / "model.safetensors").read_bytes() != weights
    assert (world.out / "model.bak" / "model.safetensors").read_bytes() == weights
    assert "responses.jsonl.bak" not in world.backups()
    assert "after.responses.jsonl.bak" in world.backups()
    assert {action for name, action in world.run().items() if name not in ("evaluate", "report")} == {"up to date"}


def test_an_option_that_decides_nothing_makes_nothing_anew(world: World) -> None:
    world.run()
    before = (world.out / "responses.jsonl").read_bytes()
    world.spec["sample"]["batch-size"] = 7
    assert world.plan()["sample"] == ("changed", "batch_size: default -> 7")
    done = world.run()
    assert (done["sample"], done["annotate"], done["train"]) == ("changed", "up to date", "up to date")
    assert (world.out / "responses.jsonl").read_bytes() == before
    assert world.backups() == set()
    assert world.plan()["sample"] == ("up to date", "")


def test_other_answers_make_all_that_follows_anew(world: World) -> None:
    world.run()
    world.spec["sample"]["max-tokens"] = 12
    world.spec["sample_before"] = {"max_tokens": 30}  # what was compared before stays
    done = world.run()
    assert (done["annotate"], done["build-pairs"], done["train"]) == ("anew", "anew", "anew")
    assert done["annotate-before"] == "up to date"
    assert {row["response"] for row in world.read("responses.jsonl")} == {
        row["response"] for row in world.read("annotations.jsonl")
    }
    assert {"responses.jsonl.bak", "annotations.jsonl.bak", "model.bak"} <= world.backups()


def test_a_stop_between_new_answers_and_their_labels_is_made_up_for(world: World) -> None:
    del world.spec["heldout"]
    world.run()
    world.spec["sample"]["max-tokens"] = 12
    sample = world.stages()[:1]
    run_stages(sample)
    assert world.plan()["annotate"] == ("anew", "responses made anew")
    assert world.run()["annotate"] == "anew"


def test_more_prompts_are_added_to_what_is_there(world: World) -> None:
    del world.spec["heldout"]
    world.run()
    answers = {row["id"]: row["response"] for row in world.read("responses.jsonl")}
    added = {"id": "Oslo", "prompt": "Which river crosses Oslo?", "reference": "It is not."}
    with (world.folder / "prompts.jsonl").open("a") as file:
        file.write(json.dumps(added) + "\n")
    planned = world.plan()
    assert planned["sample"] == ("continue", "prompts changed")
    assert planned["build-pairs"] == ("continue", "after annotate")
    assert planned["train"] == ("continue or anew", "after build-pairs")
    done = world.run()
    assert (done["sample"], done["annotate"], done["train"]) == ("continue", "continue", done["train"])
    now = {row["id"]: row["response"] for row in world.read("responses.jsonl")}
    assert now.items() > answers.items()
    assert len(world.read("annotations.jsonl")) == len(now) == len(answers) + 3
    assert not {"responses.jsonl.bak", "annotations.jsonl.bak"} & world.backups()


def test_an_output_that_is_lost_in_part_is_made_good(world: World) -> None:
    for name in ("heldout", "train", "evaluate", "report"):
        del world.spec[name]
    world.spec["build-pairs"] |= {"test_size": 0.5, "seed": 3}
    world.run()
    whole = world.contents()
    (world.out / "pairs.test.jsonl").unlink()
    assert world.plan()["build-pairs"] == ("continue", "pairs.test.jsonl missing since it was made")
    world.run()
    for name in ("pairs.jsonl", "annotations.jsonl", "responses.jsonl"):
        text = (world.out / name).read_text()
        (world.out / name).write_text(text[: len(text) // 2])
    assert world.plan()["sample"] == ("continue", "responses.jsonl changed since it was made")
    world.run()
    files = [name for name in whole if not name.endswith(".meta.json")]
    assert {name: world.contents()[name] for name in files} == {name: whole[name] for name in files}
    assert {action for action, _ in world.plan().values()} == {"up to date"}


def test_what_was_interrupted_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    del world.spec["heldout"]
    with monkeypatch.context() as patched, pytest.raises(Interrupted, match=r"^train: interrupted; ") as stop:
        patched.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", interrupt)
        world.run()
    assert stop.value.exit_code == 130
    assert world.plan()["train"] == ("continue", "interrupted")
    responses = (world.out / "responses.jsonl").read_text().splitlines(keepends=True)
    (world.out / "responses.jsonl").write_text("".join(responses[:-2]))  # the end got lost
    record = world.out / "responses.jsonl.meta.json"
    record.write_text(record.read_text().replace('"complete"', '"running"'))
    assert world.plan()["sample"] == ("continue", "interrupted")
    done = world.run()
    assert (done["sample"], done["annotate"], done["train"]) == ("continue", "up to date", "continue")
    assert (world.out / "responses.jsonl").read_text() == "".join(responses)
    assert (world.out / "model" / "model.safetensors").exists()
    assert world.plan()["train"] == ("up to date", "")


@pytest.mark.parametrize(
    ("stage", "counts", "options", "state"),
    [
        ("sample", {"failed": 2}, {}, ("continue", "2 prompts without an answer")),
        ("sample", {"failed": 0}, {}, ("up to date", "")),
        ("annotate", {"whole_file": {"failed": 3}}, {}, ("up to date", "")),
        (
            "annotate",
            {"whole_file": {"failed": 3}},
            {"retry-failed": True},
            ("continue", "3 sentences without a verdict"),
        ),
    ],
)
def test_what_failed_is_asked_again(
    world: World, stage: str, counts: dict[str, Any], options: dict[str, Any], state: tuple[str, str]
) -> None:
    for name in (*ALL[2:4], "heldout", "evaluate", "report"):
        del world.spec[name]
    world.spec[stage] |= options
    world.run()
    record = world.out / ("responses.jsonl.meta.json" if stage == "sample" else "annotations.jsonl.meta.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"counts": counts}))
    assert world.plan()[stage] == state


def test_from_a_stage(world: World) -> None:
    world.run()
    kept = (world.out / "annotations.jsonl").read_bytes()
    done = world.run("train")
    assert done == dict.fromkeys(ALL[3:], "anew")
    assert (world.out / "annotations.jsonl").read_bytes() == kept
    assert "model.bak" in world.backups()
    assert "annotations.jsonl.bak" not in world.backups()


def test_a_stage_that_is_not_named_does_not_run(world: World) -> None:
    for name in ("heldout", "train", "report"):
        del world.spec[name]
    assert list(world.run()) == ["sample", "annotate", "build-pairs", "evaluate"]
    assert not (world.out / "model").exists()


def test_an_output_that_is_lost_is_begun_again(world: World) -> None:
    """Its old record must not make the new answers look older than their labels."""
    del world.spec["heldout"]
    world.run()
    labelled = read_meta(meta_file(world.out / "annotations.jsonl"))
    (world.out / "responses.jsonl").unlink()
    planned = world.plan()
    assert planned["sample"] == ("run", "no output yet")
    assert planned["annotate"] == ("anew", "after sample")
    assert planned["train"] == ("anew", "after build-pairs")
    world.run()
    sampled = read_meta(meta_file(world.out / "responses.jsonl"))
    assert sampled is not None
    assert labelled is not None
    assert sampled.begun > labelled.begun


def test_a_stages_model_is_gone_before_the_next_one_begins(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedModel

    def models() -> list[PreTrainedModel]:
        return [thing for thing in gc.get_objects() if isinstance(thing, PreTrainedModel)]

    before = models()  # those that other tests keep; held, so that none of their places in memory is given anew
    known = {id(model) for model in before}
    left: list[int] = []
    for name, command in list(COMMANDS.items()):

        @functools.wraps(command)
        def counting(settings: Any, command: Any = command) -> None:
            left.append(sum(id(model) not in known for model in models()))
            command(settings)

        monkeypatch.setitem(COMMANDS, name, counting)
    world.run()
    assert left == [0] * len(ALL)


def test_passwords_are_neither_shown_nor_recorded(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*ALL[2:4], "heldout", "evaluate", "report"):
        del world.spec[name]
    judge = world.folder / "own.py"  # takes the settings of a server, and asks nobody
    judge.write_text(
        "from maskdpo.annotate.judges.lexical import LexicalJudge\ndef quiet(settings):\n    return LexicalJudge()\n"
    )
    server = {"backend": "openai", "api-base": "https://me:SEC@RET@judge/v1?api_key=SECRET"}
    world.spec["annotate"] |= {"judge": f"{judge}:quiet", **server}
    world.run()
    printed = capsys.readouterr()
    assert "--api-base 'https://judge/v1?api_key=***'" in (printed.out + printed.err).replace("\n", " ")
    assert "RET" not in printed.out + printed.err + (world.out / "annotations.jsonl.meta.json").read_text()
    assert world.plan()["annotate"] == ("up to date", "")


# --- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        (None, "promts", "x", "promts: unknown key; did you mean 'prompts'?"),
        (None, "build-pair", {}, "build-pair: unknown key; did you mean 'build-pairs'?"),
        ("build-pairs", "test-size", 0, "build-pairs.test-size: is there twice, with - and with _"),
        (None, "sample", 3, "sample: Input should be a valid dictionary"),
        ("sample", "temprature", 1, "sample.temprature: unknown key; did you mean 'temperature'?"),
        ("sample", "max_tokns", 1, "sample.max-tokns: unknown key; did you mean 'max-tokens'?"),
        ("sample", "n", 0, "sample.n: Input should be greater than or equal to 1"),
        ("sample", "n", "many", "sample.n: Input should be a valid integer, unable to parse string as an integer"),
        ("sample", "backend", "pigeon", "sample.backend: unknown backend 'pigeon'; known: transformers, vllm, openai"),
        ("sample", "out", "x", "sample.out: cannot be set here: the pipeline sets it"),
        ("train", "restart", True, "train.restart: cannot be set here: use `start`"),
        ("sample", "dry-run", True, "sample.dry-run: cannot be set here: use `maskdpo run --dry-run`"),
        ("annotate", "judge", None, "annotate.judge: is missing"),
        ("build-pairs", "test_size", 1, "build-pairs.test-size: Input should be less than or equal to 0.99"),
        (None, "also-train", {"a/b": None}, "also-train.a/b.[key]: 'a/b' becomes part of file names"),
        (None, "also-train", {"dpo": {"method": "ppo"}}, "train-dpo.method: unknown method 'ppo'"),
        (None, "also-train", {"dpo": {"metod": "dpo"}}, "train-dpo.metod: unknown key; did you mean 'method'?"),
        (None, "sample-general", {"n": 2}, "sample-general: goes with 'side-effects', whose answers it samples"),
        (None, "rounds", 0, "rounds: Input should be greater than or equal to 1"),
        (None, "sample-later", {"n": 2}, "sample-later: goes with 'rounds', two or more"),
        ("sample", "concurrency", 8, "sample: `concurrency` goes with `backend` openai, not with transformers"),
        ("annotate", "votes", 3, "annotate: `votes` goes with `judge` llm, not with lexical"),
        ("annotate", "judge", "llm", "annotate: `judge` llm needs `model`: the model that judges"),
        ("annotate", "judge", "no_module:x", "annotate: `judge` no_module:x: cannot be imported"),
    ],
)
def test_what_is_wrong_in_the_file(world: World, section: str | None, key: str, value: Any, message: str) -> None:
    (world.spec if section is None else world.spec[section])[key] = value
    if value is None:
        del world.spec["annotate"][key]
    with pytest.raises(UserError) as error:
        world.stages()
    assert str(error.value).startswith(f"{world.folder / 'pipeline.yaml'}: {message}")


ROUNDS = {"rounds": 3, "out": "o", "prompts": "p", "sample": None, "annotate": {"judge": "lexical"}}
ROUNDS |= {"build-pairs": None, "train": {"push": "me/model"}, "model": "m"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"train": ...},
            "rounds: every round samples, judges, pairs and trains, and these sections are missing: train",
        ),
        ({"also-train": {"dpo": {"method": "dpo"}}}, "also-train: trains several models on the same pairs, and in "),
        ({"push": {"repo": "a/b", "license": "mit"}}, "push: publishes the pairs of one round, and 'rounds' makes"),
        ({"sample": {"backend": "openai"}}, "sample-later: is missing: 'sample' asks a server, which does not know"),
        (
            {"sample": {"backend": "openai"}, "sample-later": {"n": 4}},
            "sample-later: names no backend: 'sample' asks a server, which does not know",
        ),
        ({"sample-later": {"model": "x"}}, "sample-2.model: cannot be set here: the pipeline sets it"),
        ({"sample-later": {"seed": "abc"}}, "sample-2.seed: Input should be a valid integer"),
        ({"sample-later": {"seed": 1.5}}, "sample-2.seed: Input should be a valid integer"),
        ({"heldout": "h", "evaluate": {"gold": "g"}}, "evaluate.gold: goes with one trained model, and several are "),
        ({"heldout": "h", "report": {"gold": "g"}}, "report.gold: goes with one trained model, and several are "),
        ({"train": {"lora-r": 8, "merge": False}}, "train.merge: writes the adapter alone, and the next round begins"),
    ],
)
def test_what_does_not_go_with_rounds(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        stages_of(tmp_path, values)
    assert str(error.value).startswith(f"{tmp_path}/pipeline.yaml: {message}")


def stages_of(folder: Path, values: dict[str, Any]) -> dict[str, Stage]:
    """Those of ``ROUNDS`` with other values; ``...`` leaves a section out."""
    file = folder / "pipeline.yaml"
    spec = {key: value for key, value in (ROUNDS | values).items() if value is not ...}
    file.write_text(yaml.safe_dump(spec))
    return {stage.name: stage for stage in load_pipeline(file, COMMANDS)}


def test_later_rounds_sample_in_their_own_way_and_the_last_model_is_pushed(tmp_path: Path) -> None:
    asks = {"backend": "openai", "api-base": "http://localhost:1/v1", "n": 4, "seed": 5}
    stages = stages_of(tmp_path, {"sample": asks, "sample-later": {"backend": "vllm", "n": 2}})
    sampling = [stages[name].plain for name in ("sample", "sample-2", "sample-3")]
    assert [one["model"] for one in sampling] == ["m", "o/model", "o/model-2"]
    assert [one["seed"] for one in sampling] == [5, 6, 7]
    assert [(one["backend"], one["n"]) for one in sampling] == [("openai", 4), ("vllm", 2), ("vllm", 2)]
    assert [stages[name].plain.get("push") for name in TRAININGS] == [None, None, "me/model"]
    stages = stages_of(tmp_path, {"sample": asks, "sample-later": {"api-base": "http://localhost:2/v1", "seed": 40}})
    assert [stages[name].plain["seed"] for name in ("sample", "sample-2", "sample-3")] == [5, 40, 41]
    assert stages["sample-2"].plain["api_base"] == ["http://localhost:2/v1"]


TRAININGS = ("train", "train-2", "train-3")


def test_files_of_options_name_the_first_model_and_where_the_last_goes(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("model: m\npush: me/model\nlr: 1e-5\n")
    (tmp_path / "sample.yaml").write_text("model: m\nn: 3\n")
    values = {"model": ..., "train": {"config": str(tmp_path / "train.yaml")}, "heldout": "h"}
    stages = stages_of(tmp_path, values | {"sample": {"config": str(tmp_path / "sample.yaml")}})
    assert [stages[name].plain["model"] for name in TRAININGS] == ["m", "o/model", "o/model-2"]
    assert [stages[name].plain["lr"] for name in TRAININGS] == [1e-5] * 3
    assert [stages[name].plain.get("push") for name in TRAININGS] == [None, None, "me/model"]
    sampling = {"sample": "m", "sample-2": "o/model", "sample-before": "m", "sample-after": "o/model"}
    assert {name: stages[name].plain["model"] for name in sampling} == sampling
    assert {stages[name].plain["n"] for name in sampling} == {3}
    assert stages["train"].line == "maskdpo train o/pairs.jsonl --model m --out o/model --lr 1e-05"


def test_references_labels_of_people_and_exports_in_rounds(tmp_path: Path) -> None:
    """References are looked up for the answers of every round; people have labelled answers of the first one."""
    values = {"ground": {"corpus": "docs"}, "gold": {"decisions": ["d"]}, "calibrate": None, "heldout": "h"}
    stages = stages_of(tmp_path, values | {"export": {"format": "trl"}, "train": None, "rounds": 2})
    assert [name for name in stages if name.endswith("-2")] == [
        "sample-2", "ground-2", "annotate-2", "relabel-2", "build-pairs-2", "train-2", "sample-after-2",
        "annotate-after-2", "export-2",
    ]  # fmt: skip
    assert stages["annotate-2"].inputs["prompts"] == stages["ground-2"].out == Path("o/prompts-2.jsonl")
    assert [stages[name].given.get("gold") for name in ("build-pairs", "build-pairs-2")] == [Path("o/gold.jsonl"), None]
    assert stages["relabel-2"].given["calibration"] == stages["calibrate"].out
    assert stages["build-pairs-2"].inputs["annotations"] == stages["relabel-2"].out == Path("o/relabelled-2.jsonl")
    assert stages["export-2"].inputs["file"] == stages["build-pairs-2"].out == Path("o/pairs-2.jsonl")
    names = list(stages)
    assert names.index("ground-heldout") > names.index("sample-after-2")
    answers = ["before", "after", "after-2"]
    assert list(stages["ground-heldout"].given["responses"]) == [Path(f"o/{name}.responses.jsonl") for name in answers]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample: {n: 1", "pipeline.yaml:1: not valid YAML: "),
        ("out: x\nsample: {seed: 1, seed: 2}", "pipeline.yaml:2: not valid YAML: key 'seed' is there twice"),
        ("out: x\nout: y", "pipeline.yaml:2: not valid YAML: key 'out' is there twice"),
        ("sample: &a {x: *a}", "pipeline.yaml: is nested too deeply, or an anchor contains itself"),
        (
            "out: 2026-13-45",
            "pipeline.yaml: not valid YAML: month must be in 1..12; put quotes around",
        ),
        ("out: 2026-11-28", "pipeline.yaml: out: a text is needed, and YAML reads this value as a date; put quotes"),
        ("out: 12:30", "pipeline.yaml: out: a text is needed, and YAML reads this value as a number; put quotes"),
        (
            "out: x\nprompts: y\nmodel: no",
            "pipeline.yaml: model: a text is needed, and YAML reads this value as yes",
        ),
        ("out: x\nprompts: y\nannotate: {judge: 1.10}", "pipeline.yaml: annotate.judge: a text is needed, and YAML"),
        ("- sample", "pipeline.yaml: must be a mapping"),
        ("", "pipeline.yaml: must be a mapping"),
        ("out: x\nprompts: y", "pipeline.yaml: names no stage"),
        ("prompts: y", "pipeline.yaml: out: is missing"),
        ("out: !!python/object/apply:os.getcwd []", "pipeline.yaml:1: not valid YAML: could not determine a constr"),
    ],
)
def test_no_pipeline(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        load_pipeline(file, COMMANDS)
    assert str(error.value).startswith(f"{tmp_path}/{message}")


def test_a_missing_input_is_found_before_anything_runs(world: World) -> None:
    (world.folder / "heldout.jsonl").unlink()
    with pytest.raises(UserError, match=r"^sample-before reads heldout.jsonl: no such file$"):
        world.run()
    assert not world.out.exists()


def test_missing_held_out_pairs_are_found_before_anything_runs(world: World) -> None:
    world.spec["train"]["eval"] = "nowhere.jsonl"
    for run in (world.run, world.plan):
        with pytest.raises(UserError, match=r"^train reads nowhere.jsonl: no such file$"):
            run()
    assert not world.out.exists()
    world.spec["train"]["eval"] = "out/pairs.test.jsonl"  # build-pairs will make it
    assert world.plan()["train"] == ("run", "no output yet")


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_reference_that_the_training_would_refuse_is_refused_before_anything_runs(
    world: World, tiny_model: str, dry_run: bool
) -> None:
    """A model with one more token is trained beside the tiny one, which lacks it."""
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.add_tokens(["<|more|>"])
    tokenizer.save_pretrained(shutil.copytree(tiny_model, world.folder / "more"))
    world.spec["train"]["reference"] = tiny_model
    world.spec["also-train"] = {"more": {"model": "more"}}
    world.stages()
    with pytest.raises(
        UserError, match=r"^train-more: .*has another vocabulary than `model` more, whose token '<\|more"
    ):
        run_command(RunSettings(file="pipeline.yaml", dry_run=dry_run))
    world.spec["also-train"] = {"more": {"reference": "nowhere/at/all"}}
    world.stages()
    with pytest.raises(UserError, match=r"^train-more: `reference` nowhere/at/all: .*no such model folder"):
        run_command(RunSettings(file="pipeline.yaml", dry_run=dry_run))
    assert not world.out.exists()


def test_a_reference_is_read_only_for_a_training_that_is_to_run_and_only_when_it_is_there(
    world: World, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.spec["train"]["reference"] = str(shutil.copytree(tiny_model, world.folder / "same"))
    world.run()
    monkeypatch.setattr("maskdpo.models.load_tokenizer", lambda name, **_: pytest.fail(f"{name} is read"))
    run_command(RunSettings(file="pipeline.yaml", dry_run=True))
    world.spec["also-train"] = {"more": {"reference": "./out/model"}}
    world.stages()
    run_command(RunSettings(file="pipeline.yaml", dry_run=True))


def test_merged_keys_may_be_overridden(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text("out: o\nprompts: p\nsample: &a {n: 2, model: m}\nsample-before: {<<: *a, n: 3}\n")
    assert load_pipeline(file, COMMANDS)[0].given["n"] == 2


def test_a_stage_that_fails_is_named_and_nothing_follows(world: World) -> None:
    world.spec["annotate"]["splitter"] = "no_module:cut"
    with pytest.raises(UserError, match=r"^annotate: `splitter` no_module:cut: cannot be imported"):
        world.run()
    assert (world.out / "responses.jsonl").exists()
    assert not (world.out / "pairs.jsonl").exists()


def test_labels_of_a_changed_judge_are_not_mixed(world: World) -> None:
    """Nothing changed in the file, so nobody has asked for new labels: the stage refuses, and says what to do."""
    del world.spec["heldout"]
    world.run()
    record = world.out / "annotations.jsonl.meta.json"
    record.write_text(record.read_text().replace('"name": "lexical"', '"name": "lexical-old"'))
    with (world.folder / "prompts.jsonl").open("a") as file:
        file.write('{"id": "Oslo", "prompt": "Oslo?", "reference": "It is not."}\n')
    with pytest.raises(UserError, match=r"^annotate: .*name: 'lexical-old' -> 'lexical'.* `start` annotate$"):
        world.run()
    assert world.run("annotate")["annotate"] == "anew"


def test_labels_of_another_text_of_an_answer_are_not_mixed(world: World) -> None:
    for name in (*ALL[2:4], "heldout", "evaluate", "report"):
        del world.spec[name]
    world.run()
    first, *rest = world.read("responses.jsonl")
    rows = [first | {"response": first["response"] + " So it is."}, *rest]
    (world.out / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert world.plan() == {
        "sample": ("continue", "responses.jsonl changed since it was made"),
        "annotate": (
            "refuses",
            f"{first['id']!r} is labelled with another text or prompt; `start` annotate begins it anew",
        ),
    }
    with pytest.raises(
        UserError, match=r"^annotate: .* another text of the answer; .* In a pipeline: `start` annotate$"
    ):
        world.run()
    assert world.run("annotate") == {"annotate": "anew"}


def test_the_plan_of_annotate_reads_what_annotate_would(world: World) -> None:
    for name in (*ALL[2:4], "heldout", "evaluate", "report"):
        del world.spec[name]
    world.spec["annotate"] |= {"limit": 5}
    world.run()
    file = world.out / "responses.jsonl"
    rows = world.read("responses.jsonl")
    rows[4] |= {"response": "Of no interest any more."}  # labelled, and beyond the limit for the new first one
    rows.insert(0, rows[0] | {"id": "first of all"})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"id": "torn')
    assert world.plan()["annotate"] == ("continue", "after sample")
    assert world.run()["annotate"] == "continue"


def test_a_training_does_not_go_on_with_edited_pairs(world: World) -> None:
    del world.spec["heldout"]
    world.run()
    held_out = world.folder / "mine.jsonl"
    shutil.copyfile(world.out / "pairs.jsonl", held_out)
    world.spec["train"]["eval"] = "mine.jsonl"
    assert world.run()["train"] == "changed"
    first, *_ = held_out.read_text().splitlines(keepends=True)
    held_out.write_text(first)
    planned = world.plan()
    assert planned["build-pairs"] == ("up to date", "")
    assert planned["train"] == ("refuses", "eval changed; `start` train begins it anew")
    assert planned["report"] == ("not reached", "train refuses")
    run_command(RunSettings(file="pipeline.yaml", dry_run=True))  # what it says is no error
    with pytest.raises(UserError, match=r"^train: .*the eval file has changed.* In a pipeline: `start` train$"):
        world.run()


def test_what_a_plan_says_is_refused_the_run_refuses(world: World, tiny_model: str) -> None:
    """Of every kind that the plan sees: the models and fixed inputs of each stage, and labelled answers."""
    for name in ("heldout", "evaluate", "report"):
        del world.spec[name]
    train = world.spec.pop("train")
    for name in ("base", "trained", "kept"):
        shutil.copytree(tiny_model, world.folder / name)
    world.spec |= {"model": "base", "ground": {"corpus": "docs"}}
    documents = world.folder / "docs"
    documents.mkdir()
    for prompt in read(world.folder / "prompts.jsonl"):
        (documents / f"{prompt['id']}.txt").write_text(f"{prompt['prompt']} {prompt['reference']}")
    world.run()
    shutil.copyfile(world.out / "pairs.jsonl", world.folder / "mine.jsonl")
    world.spec["train"] = train | {"model": "trained", "reference": "kept", "eval": "mine.jsonl"}
    world.run()
    labelled = world.read("annotations.jsonl")[0]["id"]
    for stage, edited, old, why in [
        ("sample", "base/config.json", "{", "model changed"),
        ("ground", "docs/Paris.txt", "Paris", "corpus changed"),
        ("annotate", "out/annotations.jsonl", '"response":"', f"{labelled!r} is labelled with another text or prompt"),
        ("train", "trained/config.json", "{", "model changed"),
        ("train", "kept/config.json", "{", "reference changed"),
        ("train", "mine.jsonl", "{", "eval changed"),
    ]:
        text = (world.folder / edited).read_text()
        (world.folder / edited).write_text(text.replace(old, f"{old} ", 1))
        assert world.plan()[stage] == ("refuses", f"{why}; `start` {stage} begins it anew")
        with pytest.raises(UserError, match=rf"^{stage}: .* In a pipeline: `start` {stage}$"):
            world.run()
        (world.folder / edited).write_text(text)
        assert {action for action, _ in world.plan().values()} == {"up to date"}


@pytest.mark.parametrize("absolute", [False, True])
def test_held_out_pairs_that_come_back_are_no_reason_to_refuse(world: World, absolute: bool) -> None:
    for name in ("heldout", "evaluate", "report"):
        del world.spec[name]
    world.spec["build-pairs"] |= {"test_size": 0.5, "seed": 3}
    world.spec["train"]["eval"] = f"{world.folder if absolute else '.'}/out/pairs.test.jsonl"
    world.run()
    (world.out / "pairs.test.jsonl").write_text("")
    planned = world.plan()
    assert planned["build-pairs"] == ("continue", "pairs.test.jsonl changed since it was made")
    assert planned["train"] == ("continue or anew", "after build-pairs")
    assert world.run()["train"] == "up to date"


def test_only_what_a_stage_cannot_continue_is_begun_anew(world: World) -> None:
    with (world.folder / "prompts.jsonl").open("a") as file:
        file.write(2 * '{"id": "`restart`", "prompt": "Oslo?", "reference": "It is not."}\n')
    with pytest.raises(UserError, match=r"^sample: .*'`restart`'") as error:
        world.run()
    assert "In a pipeline" not in str(error.value)


def test_a_judge_whose_files_changed_is_not_up_to_date(world: World) -> None:
    for name in (*ALL[2:4], "heldout", "evaluate", "report"):
        del world.spec[name]
    world.run()
    judge = world.folder / "judge"
    judge.mkdir()
    (judge / "config.json").write_text("{}")
    world.spec["annotate"] |= {"judge": "llm", "model": "judge"}
    record = world.out / "annotations.jsonl.meta.json"
    meta = json.loads(record.read_text())
    meta["options"] |= {"name": "llm", "model": "judge", "revision": fingerprint("judge")}
    meta["arguments"] |= {"judge": "llm", "model": "judge"}
    record.write_text(json.dumps(meta))
    assert world.plan()["annotate"] == ("up to date", "")
    (judge / "config.json").write_text('{"changed": true}')
    assert world.plan()["annotate"] == ("refuses", "model changed; `start` annotate begins it anew")


def test_edited_settings_train_anew(world: World) -> None:
    del world.spec["heldout"]
    settings = world.folder / "train.yaml"
    settings.write_text("lr: 0.001\n")
    world.spec["train"] = {"config": "train.yaml", "max-steps": 2, "batch-size": 2}
    world.run()
    assert world.plan()["train"] == ("up to date", "")
    settings.write_text("lr: 0.01\n")
    assert world.plan()["train"][0] == "changed"
    world.run()
    assert "model.bak" in world.backups()
    assert world.plan()["train"] == ("up to date", "")


def test_no_such_stage(world: World) -> None:
    with pytest.raises(UserError, match=r"^`start` sampel: no such stage; the file has: sample, annotate, "):
        world.run("sampel")


# --- options ---------------------------------------------------------------------------------------


def recorder(model: type[Settings], found: list[Settings]) -> Callable[[Any], None]:
    """A command that only notes its settings."""

    def note(settings: Settings) -> None:
        found.append(settings)

    note.__annotations__["settings"] = model
    return note


def test_the_command_line_of_a_stage_means_the_same(world: World) -> None:
    world.spec["sample"] |= {
        "stop": ["\n\n", "a b"],
        "raw": True,
        "temperature": 0.5,
        "template-option": ["a=b c", "d=1"],
    }
    world.spec["train"] |= {"cache": False, "gradient-checkpointing": True}
    for stage in world.stages():
        words = shlex.split(stage.line)
        assert words[:2] == ["maskdpo", stage.command]
        found: list[Settings] = []
        alone = typer.Typer()
        register(alone, stage.command, recorder(settings_model(stage.call), found))
        typer.main.get_command(alone).main(words[2:], standalone_mode=False)
        assert found == [stage.settings]


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_examples_are_pipelines(file: Path) -> None:
    if file.stem in ("countries", "judge_rounds"):
        pytest.skip("facts, and settings of train-judge: no pipeline")
    assert [stage.name for stage in load_pipeline(file, COMMANDS)] == list(ALL)


def test_dry_run_prints_a_table(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.stages()
    run_command(RunSettings(file="pipeline.yaml", dry_run=True))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if "│" in line][-len(ALL) :] == list(ALL)
    assert not world.out.exists()


def test_results_without_held_out_prompts_are_said_to_be_of_the_model_before(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.stages()
    run_command(RunSettings(file="pipeline.yaml", dry_run=True))
    assert "of the model before training" not in " ".join(capsys.readouterr().err.split())
    del world.spec["heldout"]
    world.stages()
    run_command(RunSettings(file="pipeline.yaml", dry_run=True))
    assert "answers of the model before training" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("where", ["section", "config"])
def test_the_least_confidence_of_annotate_is_that_of_relabel(tmp_path: Path, where: str) -> None:
    """Pairs and held-out answers are labelled by one rule."""
    annotate: dict[str, Any] = {"min-confidence": 0.8}
    if where == "config":
        (tmp_path / "annotate.yaml").write_text(yaml.safe_dump(annotate))
        annotate = {"config": str(tmp_path / "annotate.yaml")}
    spec: dict[str, Any] = {"out": "o", "prompts": "p", "heldout": "h", "model": "m", "sample": {}}
    spec |= {"annotate": annotate | {"judge": "lexical"}, "calibrate": {"gold": "g"}, "build-pairs": {}}
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(spec))
    stages = {stage.name: stage for stage in load_pipeline(file, COMMANDS)}
    rules = [
        {key: stages[name].plain.get(key) for key in ("min_confidence", "calibration")}
        for name in ("relabel", "annotate-before")
    ]
    assert rules == [{"min_confidence": 0.8, "calibration": "o/calibration.json"}] * 2
    del spec["annotate"]["min-confidence" if where == "section" else "config"]
    file.write_text(yaml.safe_dump(spec))
    stages = {stage.name: stage for stage in load_pipeline(file, COMMANDS)}
    assert "min_confidence" not in stages["relabel"].given
