"""Settings from flags and YAML."""

from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from typer.testing import CliRunner

from maskdpo.cli import app
from maskdpo.cli.train_flags import IN_AND_OUT, LOGGING, LOSS, METHOD, OPTIMISER, SPEED, TrainFlags
from maskdpo.errors import UserError
from maskdpo.train.config import LOSS_PARAMETERS, LossName, TrainConfig, make_config


def from_yaml(folder: Path, text: str, **flags: Any) -> Any:
    file = folder / "train.yaml"
    file.write_text(text)
    return make_config(flags, file)


def test_flags_override_the_file(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, "model: a\nbeta: 0.3\nlr: 1e-5\n", beta=0.2, seed=None)
    assert (config.model, config.beta, config.lr, config.seed) == ("a", 0.2, 1e-5, 0)


def test_an_unknown_key_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.yaml: batchsize: unknown setting; did you mean 'batch_size'\?"):
        from_yaml(tmp_path, "model: a\nbatchsize: 3\n")


def test_bad_yaml_gives_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.yaml:2: not valid YAML"):
        from_yaml(tmp_path, "model: a\nbeta: 0.1: 2\nlr: 1\n")


@pytest.mark.parametrize("text", ["- a\n", "just text\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="must be a mapping"):
        from_yaml(tmp_path, text)


@pytest.mark.parametrize("key", ["on", "1", "null"])
def test_a_key_that_is_no_text_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=r"train\.yaml"):
        from_yaml(tmp_path, f"model: a\n{key}: 1\n")


@pytest.mark.parametrize(
    ("key", "value"), [("beta", "0"), ("lr", ".nan"), ("epochs", "0"), ("method", "ppo"), ("warmup_ratio", "2")]
)
def test_values_out_of_range_name_their_key(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"train\.yaml: {key}: "):
        from_yaml(tmp_path, f"model: a\n{key}: {value}\n")


def test_an_empty_file_lacks_the_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--model is missing"):
        from_yaml(tmp_path, "")


def test_a_missing_file_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        make_config({}, tmp_path / "none.yaml")


@pytest.mark.parametrize(("name", "loss"), [(n, loss) for n, (_, losses) in LOSS_PARAMETERS.items() for loss in losses])
def test_parameters_of_a_loss_have_a_default_where_it_uses_them(name: str, loss: str) -> None:
    default = LOSS_PARAMETERS[name][0]
    assert make_config({"model": "a", "loss": loss}, None).value(name) == default
    assert make_config({"model": "a", "loss": loss, name: 0.25}, None).value(name) == 0.25


@pytest.mark.parametrize("name", LOSS_PARAMETERS)
@pytest.mark.parametrize("loss", get_args(LossName))
def test_a_parameter_of_another_loss_is_refused_in_one_line(name: str, loss: str) -> None:
    default, losses = LOSS_PARAMETERS[name]
    if loss in losses:
        return
    with pytest.raises(UserError) as caught:  # the default, too: who gives it believes that it counts
        make_config({"model": "a", "loss": loss, name: default}, None)
    line = f"command line: {name}: only for --loss {' or '.join(losses)}; --loss {loss} does not use it"
    assert str(caught.value) == line
    assert getattr(make_config({"model": "a", "loss": loss}, None), name) is None


@pytest.mark.parametrize("loss", get_args(LossName))
def test_a_recorded_configuration_can_be_read_again(loss: str) -> None:
    config = make_config({"model": "a", "loss": loss}, None)
    assert make_config(config.model_dump(), None) == config


@pytest.mark.parametrize(("key", "value"), [("label_smoothing", "0.5"), ("label_smoothing", "-0.1"), ("beta", "0")])
def test_half_of_the_pairs_cannot_be_the_wrong_way_round(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"train\.yaml: {key}: "):
        from_yaml(tmp_path, f"model: a\nloss: robust\n{key}: {value}\n")


def test_every_setting_is_a_flag_with_its_default_and_its_values() -> None:
    flags = {field.name: field.type for field in fields(TrainFlags)}
    flags["template_options"] = flags.pop("template_option")
    assert set(flags) == set(TrainConfig.model_fields)
    for name, field in TrainConfig.model_fields.items():
        annotation, option = get_args(flags[name])
        default = LOSS_PARAMETERS[name][0] if name in LOSS_PARAMETERS else field.default
        if name not in ("model", "max_steps", "gradient_checkpointing", "template_options"):
            assert f"[default: {default}]" in option.help
        for choices in (get_args(part) for part in get_args(annotation) if get_origin(part) is Literal):
            assert choices == get_args(field.annotation)


def test_the_help_of_train_stands_in_panels() -> None:
    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "120"}).output
    places = [shown.index(f"─ {title} ─") for title in (IN_AND_OUT, METHOD, LOSS, OPTIMISER, SPEED, LOGGING)]
    assert places == sorted(places)
