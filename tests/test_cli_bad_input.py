"""Bad input to every command: one clear line, exit code 2, no traceback, and no file created or changed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from command_line import exit_code

from maskdpo.backends.settings import BackendSettings

SPANS = [{"start": 0, "end": 10, "label": "no_hallucination"}]
WRONG = [{"start": 0, "end": 10, "label": "contradictory"}]
ROWS: dict[str, list[dict[str, Any]]] = {
    "prompts": [{"id": f"q{i}", "prompt": "Where?", "reference": "One is so."} for i in range(2)],
    "responses": [{"id": f"r{i}", "prompt_id": "q0", "response": "One is so."} for i in range(2)],
    "annotations": [
        {"id": f"r{i}", "prompt_id": "q0", "response": f"Ans {i}, so.", "sentences": s}
        for i, s in enumerate((SPANS, WRONG))
    ],
    "pairs": [
        {
            "id": f"p{i}",
            "prompt_id": "q0",
            "topic": "q0",
            "prompt": "Where?",
            "chosen": "One is so.",
            "rejected": "Two is so.",
            "chosen_sentences": SPANS,
            "rejected_sentences": WRONG,
        }
        for i in range(2)
    ],
}
ROWS["gold"] = ROWS["compare"] = ROWS["annotations"]

COMMANDS = {
    "sample": "sample {prompts} --model {model} --out {out} --max-tokens 2",
    "annotate": "annotate {prompts} {responses} --out {out} --judge lexical",
    "build-pairs": "build-pairs {prompts} {annotations} --out {out} --test-size 0",
    "train": "train {pairs} --model {model} --out {out} --max-steps 1 --no-cache",
    "inspect": "inspect {pairs} --model {model} --json {out}",
    "evaluate": "evaluate {annotations} --prompts {prompts} --gold {gold}",
    "evaluate --compare": "evaluate {annotations} --prompts {prompts} --compare {compare}",
    "report": "report {annotations} --out {out} --prompts {prompts} --gold {gold}",
    "report --compare": "report {annotations} --out {out} --compare {compare}",
    "report pairs": "report {pairs} --out {out} --prompts {prompts}",
    "validate": "validate {annotations} --prompts {prompts}",
    "validate pairs": "validate {pairs}",
}
ROLES = [
    (command, role) for command, line in COMMANDS.items() for role in ROWS if f"{{{role}}}" in line
]  # every command with every file that it reads


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if not line.startswith("warning: ")]


class World:
    """A folder with good files, and the command line on them."""

    def __init__(self, folder: Path, model: str, call: Callable[[list[str]], Result]) -> None:
        self.folder, self._call = folder, call
        self.files = {role: folder / f"{role}.jsonl" for role in ROWS}
        self.values = {role: str(file) for role, file in self.files.items()}
        self.values |= {"model": model, "out": str(folder / "result"), "yaml": str(folder / "settings.yaml")}
        (folder / "settings.yaml").write_text("{}\n")
        for role, rows in ROWS.items():
            self.write(role, [json.dumps(row) for row in rows])

    def write(self, role: str, lines: list[str]) -> None:
        self.files[role].write_text("".join(line + "\n" for line in lines))

    def run(self, line: str) -> Result:
        return self._call([part.format(**self.values) for part in line.split()])

    def state(self) -> dict[str, bytes | None]:
        return {str(f): f.read_bytes() if f.is_file() else None for f in self.folder.rglob("*")}

    def fails(self, line: str) -> str:
        """Run the command: it must fail as agreed. The one line of its error, without the folder."""
        before = self.state()
        result = self.run(line)
        assert result.code == 2, result
        assert "Traceback" not in result.err + result.out
        assert len(result.errors) == 1, result.err
        assert result.errors[0].startswith("error: ")
        assert self.state() == before
        return result.errors[0].removeprefix("error: ").replace(f"{self.folder}/", "")


@pytest.fixture
def world(tmp_path: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]) -> World:
    def call(arguments: list[str]) -> Result:
        capsys.readouterr()
        code = exit_code(*arguments)
        return Result(code, *capsys.readouterr())

    (tmp_path / "world").mkdir()
    return World(tmp_path / "world", tiny_model, call)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_the_good_files_are_good(world: World, command: str) -> None:
    result = world.run(COMMANDS[command])
    assert (result.code, result.errors) == (0, []), result


# --- files -----------------------------------------------------------------------------------------


def spoil(world: World, role: str, kind: str) -> str:
    """Spoil one file; what the error must begin with."""
    file, rows = world.files[role], ROWS[role]
    lines = [json.dumps(row) for row in rows]
    name = file.name
    if kind == "missing":
        file.unlink()
        return f"{name}: no such file"
    if kind == "folder":
        file.unlink()
        file.mkdir()
        return f"{name}: is a folder, a file is needed"
    if kind == "empty":
        world.write(role, [])
        return f"{name}: the file holds no "
    if kind == "torn":
        world.write(role, [lines[0], lines[1][:-5], *lines[1:]])
        return f"{name}:2: not a JSON object (EOF"
    if kind == "array":
        world.write(role, [lines[0], "[1, 2]"])
        return f"{name}:2: Input should be an object"
    if kind == "duplicate":
        world.write(role, [*lines, lines[0]])
        return f"{name}:3: id: duplicate id '{rows[0]['id']}', first on line 1"
    if kind == "unknown field":
        world.write(role, [lines[0], json.dumps(rows[1] | {"colour": "red"})])
        return f"{name}:2: colour: unknown field; put what is your own under 'meta'"
    assert kind == "wrong type"
    world.write(role, [lines[0], json.dumps(rows[1] | {"id": 7})])
    return f"{name}:2: id: Input should be a valid string"


KINDS = ("missing", "folder", "empty", "torn", "array", "duplicate", "unknown field", "wrong type")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("command", "role"), ROLES)
def test_every_bad_file_of_every_command(world: World, command: str, role: str, kind: str) -> None:
    expected = spoil(world, role, kind)
    assert world.fails(COMMANDS[command]).startswith(expected)


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("annotate", "responses"),
        ("build-pairs", "annotations"),
        ("evaluate", "annotations"),
        ("evaluate --compare", "compare"),
        ("report", "annotations"),
        ("validate", "annotations"),
    ],
)
def test_a_dangling_prompt_id(world: World, command: str, role: str) -> None:
    world.write(role, [json.dumps(row | {"prompt_id": q}) for row, q in zip(ROWS[role], ("q0", "zz"), strict=True)])
    assert world.fails(COMMANDS[command]) == f"{role}.jsonl:2: prompt_id: no prompt has the id 'zz'"


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 99)], "sentence 0: span 0:99 ends after the response (10 characters)"),
        ([(0, 5), (4, 9)], "sentence 1: span 4:9 overlaps or precedes the one before it"),
        ([(5, 5)], "sentences.0: the span 5:5 is empty"),
        ([(-3, 5)], "sentences.0.start: Input should be greater than or equal to 0"),
    ],
)
@pytest.mark.parametrize(
    ("command", "role"),
    [(c, r) for c, r in ROLES if r in ("annotations", "gold", "compare", "pairs")],
)
def test_bad_spans(world: World, command: str, role: str, spans: list[tuple[int, int]], message: str) -> None:
    sentences = [{"start": start, "end": end, "label": "no_fact"} for start, end in spans]
    field = "chosen_sentences" if role == "pairs" else "sentences"
    bad = ROWS[role][1] | {field: sentences}
    if role != "pairs":
        bad["response"] = "One is so."
    world.write(role, [json.dumps(ROWS[role][0]), json.dumps(bad)])
    found = world.fails(COMMANDS[command])
    assert found.startswith(f"{role}.jsonl:2: ")
    assert message.removeprefix("sentences.") in found


def test_a_label_without_a_verdict(world: World) -> None:
    bad = ROWS["annotations"][1] | {"sentences": [SPANS[0] | {"status": "refused"}]}
    world.write("annotations", [json.dumps(ROWS["annotations"][0]), json.dumps(bad)])
    assert "annotations.jsonl:2: sentences.0: status is 'refused' but label is" in world.fails(COMMANDS["build-pairs"])


def test_files_in_each_others_place(world: World) -> None:
    assert world.fails("annotate {responses} {prompts} --out {out} --judge lexical").startswith("responses.jsonl:1: ")
    assert world.fails("build-pairs {prompts} {responses} --out {out}") == (
        "responses.jsonl:1: sentences: is missing: the line is a response"
    )
    assert world.fails("evaluate {responses}") == "responses.jsonl:1: sentences: is missing: the line is a response"
    assert world.fails("train {annotations} --model {model} --out {out}").startswith("annotations.jsonl:1: ")
    assert world.fails("report {prompts} --out {out}") == (
        "prompts.jsonl: holds prompt records; report takes annotations, pairs or a training"
    )


def test_validate_shows_all_errors_up_to_the_limit(world: World) -> None:
    good = json.dumps(ROWS["prompts"][0])
    world.write("prompts", [good, *(f'{{"id": "x{i}"}}' for i in range(30)), "{"])
    for option, shown in (("", 20), (" --max-errors 3", 3), (" --max-errors 99", 31)):
        result = world.run("validate {prompts}" + option)
        assert result.code == 2
        assert len(result.errors) == shown
        assert result.errors[1].endswith("prompts.jsonl:3: prompt: is missing")
        assert ("(stopped after" in result.out) == (shown < 31)
    assert result.errors[30].startswith(f"error: {world.files['prompts']}:32: not a JSON object")
    assert "valid prompt records" in result.out


# --- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "annotate {prompts} {responses} --out {out} --judge oracle",
            "--judge: unknown judge 'oracle'; known: lexical, llm",
        ),
        ("annotate {prompts} {responses} --out {out} --judge no_module:f", "--judge no_module:f: cannot be imported"),
        (
            "annotate {prompts} {responses} --out {out} --judge collections:Counter",
            "--judge collections:Counter: Counter is no",
        ),
        ("annotate {prompts} {responses} --out {out} --judge llm", "--judge llm needs --model"),
        (
            "annotate {prompts} {responses} --out {out} --judge llm --model {model} --protocol nonsense",
            "--protocol nonsense: neither a built-in protocol (",
        ),
        (
            "annotate {prompts} {responses} --out {out} --judge lexical --splitter pysbd",
            "--splitter: unknown splitter 'pysbd'; known: markdown",
        ),
        ("annotate {prompts} {responses} --out {out} --judge llm --model ./nowhere", "./nowhere: no such model folder"),
        ("sample {prompts} --model ./nowhere --out {out}", "./nowhere: no such model folder"),
        ("sample {prompts} --model no/such/model --out {out}", "no/such/model: no such model folder"),
        ("sample {prompts} --model no-such-org/no-such --out {out}", "cannot load the tokenizer of 'no-such-org/no-"),
        ("sample {prompts} --model {prompts} --out {out}", "prompts.jsonl: no such model folder"),
        ("sample {prompts} --model {model} --out {out} --api-base http://x", "--api-base goes with --backend openai"),
        (
            "sample {prompts} --model {model} --out {out} --backend vllm --device cpu",
            "--device goes with --backend transformers, not with vllm",
        ),
        (
            "sample {prompts} --model {model} --out {out} --backend openai --device cpu",
            "--device goes with --backend transformers, not with openai",
        ),
        (
            "sample {prompts} --model {model} --out {out} --max-model-len 99",
            "--max-model-len goes with --backend vllm or openai, not with transformers",
        ),
        (
            "sample {prompts} --model {model} --out {out} --backend vllm --concurrency 8",
            "--concurrency goes with --backend openai, not with vllm",
        ),
        (
            "annotate {prompts} {responses} --out {out} --judge llm --model {model} --votes 3 --judge-option votes=5",
            "--votes is given twice, the other time in --judge-option",
        ),
        ("sample {prompts} --model {model} --out {out} --n 2 --n 3", "--n is given 2 times, and one value counts"),
        ("inspect {pairs} --model ./nowhere", "./nowhere: no such model folder"),
        ("train {pairs} --model ./nowhere --out {out}", "./nowhere: no such model folder"),
        (
            "train {pairs} --out {out} --config {yaml}",
            "--model is missing: give it as an option or in ",
        ),
        ("train {pairs} --model {model} --out {out} --beta -1", "--beta: Input should be greater than 0"),
        ("train {pairs} --model {model} --out {out} --config {prompts}", "prompts.jsonl:"),
        (
            "train {pairs} --model {model} --out {out} --method ppo",
            "--method: unknown method 'ppo'; known: mask-dpo, dpo",
        ),
        (
            "sample {prompts} --model {model} --out {out} --backend pigeon",
            "--backend: unknown backend 'pigeon'; known: transformers",
        ),
        (
            "build-pairs {prompts} {annotations} --out {out} --strategy best",
            "--strategy: unknown strategy 'best'; known: best-worst",
        ),
        ("report {pairs} --out {out} --gold {gold}", "pairs.jsonl: is a pairs file: --compare and --gold take"),
    ],
)
def test_names_that_nobody_knows(world: World, line: str, message: str) -> None:
    assert world.fails(line).startswith(message)


LOADERS = (
    "sample {prompts} --model {model} --out {out}",
    "annotate {prompts} {responses} --out {out} --judge llm --model {model}",
    "train {pairs} --model {model} --out {out}",
    "train {pairs} --model {model} --out {out} --dry-run",
)


@pytest.mark.parametrize("line", LOADERS)
def test_a_device_that_is_not_there(world: World, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    instead = "without --device it would be cuda"
    assert world.fails(f"{line} --device mps") == f"--device mps: torch sees none here; {instead}"
    assert world.fails(f"{line} --device cuda:2") == f"--device cuda:2: torch sees 2 of them here; {instead}"
    for name in ("gpu", "cpu:0", "mps:1", "cuda:", "cuda:one", "cuda:-1"):
        known = "no such device; there are cpu, cuda, cuda:N and mps"
        assert world.fails(f"{line} --device {name}") == f"--device {name}: {known}"


@pytest.mark.parametrize(
    "line",
    [
        "sample {prompts} --model {model}",
        "sample {prompts} --model {model} --out {out} --n 0",
        "sample {prompts} --model {model} --out {out} --temperature hot",
        "sample {prompts} --model {model} --out {out} --colour red",
        "build-pairs {prompts} {annotations} --out {out} --test-size 1",
        "train {pairs} --out {out}",
        "validate",
        "no-such-command",
    ],
)
def test_options_that_do_not_parse(world: World, line: str) -> None:
    before = world.state()
    result = world.run(line)
    assert result.code == 2
    assert "Usage:" in result.err
    assert "Traceback" not in result.err
    assert world.state() == before


def test_a_prompt_without_a_reference(world: World) -> None:
    world.write("prompts", [json.dumps({"id": "q0", "prompt": "Where?"})])
    for judge in ("lexical", "llm --model {model}"):
        message = world.fails("annotate {prompts} {responses} --out {out} --judge " + judge)
        assert message.startswith("prompts.jsonl:1: reference: prompt 'q0' has no reference")


# --- outputs ---------------------------------------------------------------------------------------

WRITERS = ("sample", "annotate", "build-pairs", "train", "inspect", "report", "report pairs")


@pytest.mark.parametrize("command", [name for name in WRITERS if name != "train"])
def test_an_output_that_is_a_folder(world: World, command: str) -> None:
    (world.folder / "result").mkdir()
    assert world.fails(COMMANDS[command]) == "result: is a folder, a file is needed"


@pytest.mark.parametrize("command", [name for name in WRITERS if name != "train"])
def test_an_output_below_a_file(world: World, command: str) -> None:
    world.values["out"] = str(world.folder / "prompts.jsonl" / "result")
    assert "cannot be written" in world.fails(COMMANDS[command])


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("sample", "prompts"),
        ("annotate", "responses"),
        ("build-pairs", "annotations"),
        ("inspect", "pairs"),
        ("report", "annotations"),
    ],
)
def test_an_output_that_is_an_input(world: World, command: str, role: str) -> None:
    world.values["out"] = str(world.files[role])
    assert world.fails(COMMANDS[command]) == f"{role}.jsonl: is an input of this command; name another output"


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        ("{prompts}", "prompts.jsonl: is an input of this command; name another output"),
        ("{out}", "result: is a file that this command writes already; give --summary another name"),
        (
            "{out}.meta.json",
            "result.meta.json: is a file that this command writes already; give --summary another name",
        ),
        ("{prompts}/summary", "prompts.jsonl/summary: cannot be written: prompts.jsonl is no folder"),
        ("{folder}/sub", "sub: is a folder, a file is needed"),
    ],
)
def test_a_summary_that_cannot_be_written(world: World, summary: str, message: str) -> None:
    (world.folder / "sub").mkdir()
    world.values["folder"] = str(world.folder)
    assert world.fails(COMMANDS["annotate"] + " --summary " + summary) == message


@pytest.mark.parametrize("command", ["sample", "annotate"])
def test_an_output_that_is_something_else(world: World, command: str) -> None:
    (world.folder / "result").write_text("my notes")
    assert world.fails(COMMANDS[command]).startswith("result: is no record file of an earlier run")
    (world.folder / "result").write_text("my notes\n")
    assert world.fails(COMMANDS[command]).startswith("result:1: not a JSON object")


def test_an_output_of_other_settings(world: World) -> None:
    assert world.run(COMMANDS["sample"]).code == 0
    message = world.fails(COMMANDS["sample"] + " --n 3")
    assert message.startswith("result.meta.json: an earlier run with other settings is recorded here (n: 8 -> 3). ")
    assert "--restart" in message
    (world.folder / "result.meta.json").write_text("{}")
    assert world.fails(COMMANDS["sample"]) == "result.meta.json: is not a record of a maskdpo run; move it away"


def test_a_file_of_the_wrong_judge(world: World) -> None:
    assert world.run(COMMANDS["annotate"]).code == 0
    message = world.fails("annotate {prompts} {responses} --out {out} --judge llm --model {model}")
    assert "name: 'lexical' -> 'llm'" in message
    assert "Labels of different judges are not mixed" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--template-option thinking", "--template-option: 'thinking' is not of the form KEY=VALUE"),
        ("--template-option =1", "--template-option: '=1' is not of the form KEY=VALUE"),
        ("--template-option a=1 --template-option a=2", "--template-option: a is given twice"),
        ("--template-option tokenize=false", "'tokenize' cannot be an option of the chat template"),
        ("--template-option messages=[]", "'messages' cannot be an option of the chat template"),
        ("--template-option a=1 --raw", "--template-option is for a chat template, and --raw uses none"),
    ],
)
def test_template_options_that_cannot_be(world: World, options: str, message: str) -> None:
    assert world.fails(f"{COMMANDS['sample']} {options}").startswith(message)


def test_template_options_are_json_else_texts_and_go_with_a_judge_that_has_a_template(world: World) -> None:
    given = ["a=false", "b=low", 'c={"d": [1]}', "e=x=y", "f="]
    assert BackendSettings(template_options=given).template_options == {  # type: ignore[arg-type]
        "a": False, "b": "low", "c": {"d": [1]}, "e": "x=y", "f": "",
    }  # fmt: skip
    message = world.fails(f"{COMMANDS['annotate']} --template-option enable_thinking=false")
    assert message == "--template-option goes with --judge llm, not with lexical"
    given = "--template-option enable_thinking=false --template-option effort=low"
    assert world.run(f"{COMMANDS['sample']} --n 1 {given}").code == 0
    record = json.loads((world.folder / "result").read_text().splitlines()[0])
    assert record["sampling"]["template_options"] == {"enable_thinking": False, "effort": "low"}


def test_train_keeps_out_of_other_folders(world: World) -> None:
    (world.folder / "result").mkdir()
    (world.folder / "result" / "thesis.tex").write_text("x")
    assert world.fails(COMMANDS["train"]) == ("result: the folder exists and holds no maskdpo run; name another --out")
    world.values["out"] = world.values["prompts"]
    assert world.fails(COMMANDS["train"]) == "prompts.jsonl: is a file; --out must name a folder"


# --- as a process ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["validate", "nowhere.jsonl"], 2, "error: nowhere.jsonl: no such file\n"),
        (["evaluate", "bad.jsonl"], 2, "error: bad.jsonl:1: not a JSON object (EOF while parsing"),
        (["--version"], 0, ""),
    ],
)
def test_as_a_process(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id":"a","sentences":[')
    process = subprocess.run(
        [sys.executable, "-m", "maskdpo", *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert process.returncode == code
    assert process.stderr.startswith(message)
    assert process.stderr.count("\n") == (1 if message else 0)
    assert [file.name for file in tmp_path.iterdir()] == ["bad.jsonl"]


@pytest.mark.parametrize(
    "command",
    [
        COMMANDS["build-pairs"],
        COMMANDS["report"],
        COMMANDS["evaluate"] + " --json {out}",
        COMMANDS["inspect"],
        COMMANDS["annotate"],
        "export {annotations} --prompts {prompts} --format argilla --out {out}",
    ],
)
def test_an_output_never_replaces_that_of_another_command(world: World, command: str) -> None:
    assert world.run(COMMANDS["sample"]).code == 0
    before = (world.folder / "result").read_bytes()
    message = world.fails(command)
    assert "an output of `maskdpo sample`" in message
    assert message.startswith(("result: ", "result.meta.json: "))
    assert (world.folder / "result").read_bytes() == before


INTERRUPTED = """
import signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from maskdpo.cli import main
main()
"""


@pytest.mark.parametrize("module", ["maskdpo.application", "pydantic", "rich.table", "maskdpo.pipeline.settings"])
def test_ctrl_c_while_a_command_is_loaded_ends_it_without_a_word(module: str) -> None:
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED, module], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
