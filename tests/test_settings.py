"""One model per command: its options, files of settings and recorded command lines say the same."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from maskdpo.backends.settings import BackendSettings
from maskdpo.commands import COMMANDS
from maskdpo.commands.signature import register
from maskdpo.errors import Interrupted, UserError
from maskdpo.settings import (
    KeyValues,
    Option,
    Settings,
    command_line,
    command_words,
    interrupted,
    settings_model,
    settings_of,
)
from maskdpo.settings_reading import MissingSetting, load_settings


class Cut(Settings):
    """One field of every type that commands have."""

    file: Annotated[Path, Option("File to cut.", argument=True)]
    out: Annotated[Path, Option("File to write.")]
    width: Annotated[int, Field(ge=1, le=200), Option("Characters per line.", panel="Layout")] = 80
    seed: Annotated[int, Option("Of the draws.")] = 0
    ratio: Annotated[float | None, Field(gt=0), Option("Share to keep.")] = None
    side: Annotated[Literal["left", "right"], Option("Which side.")] = "left"
    quick: Annotated[bool, Option("Quickly.")] = False
    clean: Annotated[bool, Option("Clean up.")] = True
    public: Annotated[bool | None, Option("Who sees it.", flags="--public/--private")] = None
    start: Annotated[str | None, Field(alias="from"), Option("Where to begin.")] = None
    stop: Annotated[tuple[str, ...], Option("Where to end.")] = ()
    options: Annotated[KeyValues, Field(alias="option"), Option("More.")] = {}


GIVEN: dict[str, Any] = {
    "file": Path("a b"), "out": Path("o"), "width": 7, "ratio": 0.5, "side": "right", "quick": True, "clean": False,
    "public": False, "start": "x", "stop": ("p q", "r"), "options": {"a": 1, "b": "true", "c": [1, "é"], "d": True},
}  # fmt: skip


def called(words: list[str]) -> Cut:
    found: list[Cut] = []

    def note(settings: Cut) -> None:
        found.append(settings)

    app = typer.Typer()
    register(app, "cut", note)
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert not result.exit_code, result.output
    return found[0]


def yaml(folder: Path, text: str) -> Path:
    file = folder / "cut.yaml"
    file.write_text(text)
    return file


def test_a_command_line_gives_the_settings_that_it_was_written_from() -> None:
    settings = Cut(**GIVEN)
    assert called(command_words("cut", settings)[1:]) == settings
    assert called(shlex.split(command_line("cut", settings))[2:]) == settings
    least = Cut(file=Path("-f"), out=Path("o"))
    assert command_words("cut", least) == ["cut", "--out", "o", "--", "-f"]
    assert called(command_words("cut", least)[1:]) == least


@pytest.mark.parametrize("name", GIVEN)
def test_every_setting_alone(name: str) -> None:
    settings = Cut(**{"file": "f", "out": "o", name: GIVEN[name]})
    assert called(command_words("cut", settings)[1:]) == settings


def test_a_file_of_settings_is_overridden_by_options(tmp_path: Path) -> None:
    file = yaml(tmp_path, "out: o\nwidth: 5\nfrom: x\noption: {a: 1}\nstop: [a, b]\nclean: false\n")
    settings = called(["f", "--config", str(file), "--width", "80"])
    assert settings == Cut(
        file=Path("f"), out=Path("o"), width=80, start="x", options={"a": 1}, stop=("a", "b"), clean=False
    )
    assert load_settings(Cut, {"file": "f"}, yaml(tmp_path, "out: o\noptions: [a=1]\n")).options == {"a": 1}


@pytest.mark.parametrize("words", ["--width 3 --width 3", "--clean --no-clean", "--from x --width 3 --from y"])
def test_an_option_is_given_once(words: str) -> None:
    first = words.split()[0]
    with pytest.raises(UserError, match=f"^{first} is given 2 times, and one value counts$"):
        called(["f", "--out", "o", *words.split()])


def test_values_of_a_mapping_are_json(tmp_path: Path) -> None:
    settings = called(["f", "--config", str(yaml(tmp_path, "out: o\noption: {day: 2024-07-26, n: [1]}\n"))])
    assert settings.options == {"day": "2024-07-26", "n": [1]}
    assert called(command_words("cut", settings)[1:]) == settings


def test_help_shows_types_bounds_defaults_and_panels() -> None:
    app = typer.Typer()

    def cut(settings: Cut) -> None:
        """Cut a file."""

    register(app, "cut", cut)
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "140"}).output
    for part in (
        "Cut a file.",
        "Characters per line.",
        "1<=x<=200",
        "[default: 80]",
        "[default: 0]",
        "─ Layout ─",
        "[required]",
    ):
        assert part in shown, part
    for flag in ("--no-clean", "--private", "--from", "--config"):
        assert flag in shown
    assert "--no-quick" not in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width: 0", r"cut.yaml: width: Input should be greater than or equal to 1"),
        ("wdth: 1", r"cut.yaml: wdth: unknown setting; did you mean 'width'\?"),
        ("a: 1: 2", r"cut.yaml:1: not valid YAML"),
        ("- a", r"cut.yaml: must be a mapping"),
        ("just text", r"cut.yaml: must be a mapping"),
        ("side: up", r"cut.yaml: side: Input should be 'left' or 'right'"),
        ("width: 1\nwidth: 2", r"cut.yaml:2: not valid YAML: key 'width' is there twice"),
        ("no-such: 1\nno_such: 2", r"cut.yaml: no-such: is there twice, with - and with _"),
        ("side: off", r"cut.yaml: side: a text is needed, and YAML reads this value as yes or no; put quotes"),
        ("on: 1", r"cut.yaml: "),
        ("null: 1", r"cut.yaml: "),
        ("option: [a]", r"cut.yaml: option: 'a' is not of the form KEY=VALUE"),
        ("option: {a-b: 1}", r"cut.yaml: option: 'a-b' is no name of an option"),
        ("option: {a: 1}\noptions: {b: 2}", r"cut.yaml: options: is there twice, the other time as options"),
        ("file: f", r"cut.yaml: file: is given on the command line, not in a file of settings"),
    ],
)
def test_bad_files_of_settings(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_settings(Cut, {"file": "f", "out": "o"}, yaml(tmp_path, text + "\n"))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingSetting, match="`out` is missing"):
        load_settings(Cut, {"file": "f"}, yaml(tmp_path, ""))
    with pytest.raises(UserError, match="no such file"):
        load_settings(Cut, {}, tmp_path / "none.yaml")


def test_an_unknown_key_is_named_before_what_it_seems_to_lack(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cut.yaml: ouut: unknown setting; did you mean 'out'\?"):
        load_settings(Cut, {"file": "f"}, yaml(tmp_path, "ouut: o\n"))


def test_an_interrupted_command_says_how_to_go_on() -> None:
    def stop(settings: Cut) -> None:
        raise KeyboardInterrupt

    app = typer.Typer()
    register(app, "cut", stop)
    result = CliRunner().invoke(app, ["f", "--out", "o"])
    assert isinstance(result.exception, Interrupted)
    said = "interrupted; nothing was written. Repeat the same command to go on"
    assert (str(result.exception), result.exception.exit_code) == (said, 130)


def test_an_interrupted_command_says_what_it_keeps(tmp_path: Path) -> None:
    class Grow(Settings):
        out: Path
        restart: bool = False

    file = tmp_path / "rows.jsonl"
    assert "; nothing was written." in str(interrupted(Grow(out=file)))
    file.write_text("{}\n{}\n")
    assert f"; 2 records are kept in {file}." in str(interrupted(Grow(out=file)))
    assert f"; the steps up to the last checkpoint are kept in {tmp_path}." in str(interrupted(Grow(out=tmp_path)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_of_every_command_is_explained_and_has_a_flag_of_its_own(name: str) -> None:
    settings = settings_of(settings_model(COMMANDS[name]))
    flags = [flag for setting in settings if not setting.option.argument for flag in setting.flags]
    assert len(flags) == len(set(flags))
    assert all(setting.option.help for setting in settings)
    assert all(not setting.option.argument or setting.required for setting in settings)


def test_tables_of_options_in_the_docs_are_those_of_the_models() -> None:
    root = Path(__file__).resolve().parents[1]
    run = subprocess.run(
        [sys.executable, "scripts/option_tables.py", "--check"], cwd=root, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, f"{run.stdout}{run.stderr}: run scripts/option_tables.py"


# --- settings that the chosen backend or judge does not use ----------------------------------------------


def test_settings_of_other_backends_are_refused_and_one_of_somebody_else_may_use_all() -> None:
    everything = {"concurrency": 3, "tensor_parallel_size": 2, "batch_size": 8}
    for backend, refused in {"openai": 2, "vllm": 2, "transformers": 2, "package.module:Own": 0}.items():
        caught = 0
        for name, value in everything.items():
            try:
                load_settings(BackendSettings, {"backend": backend, name: value})
            except UserError as error:
                assert re.fullmatch(rf"`{name}` goes with `backend` \w+, not with {backend}", str(error))
                caught += 1
        assert caught == refused, backend
    assert load_settings(BackendSettings, {"backend": "vllm", "api_base": None, "concurrency": 32}).backend == "vllm"


def test_who_uses_a_setting_is_data_and_help_begins_with_it() -> None:
    for setting in settings_of(BackendSettings):
        assert not re.match(r"(`[\w-]+`(, )?)+: ", setting.option.help), setting.name
    (length,) = (setting for setting in settings_of(BackendSettings) if setting.name == "max_model_len")
    assert length.help.startswith("`vllm`, `openai`: longest prompt")
