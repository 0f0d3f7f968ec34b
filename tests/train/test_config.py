"""The settings of a training, and the parameters of losses among them."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from maskdpo.application import app
from maskdpo.errors import UserError
from maskdpo.settings_reading import load_settings
from maskdpo.train.config import LOGGING, LOSS, OPTIMISER, SPEED, TrainConfig
from maskdpo.train.data.settings import IN_AND_OUT, METHOD
from maskdpo.train.loss_registry import LOSS_PARAMETERS, LOSSES

WITH = {name: losses for name, (_, losses) in LOSS_PARAMETERS.items()}


def make(**given: Any) -> TrainConfig:
    return load_settings(TrainConfig, {"model": "a", **given})


def from_yaml(folder: Path, text: str, **options: Any) -> TrainConfig:
    file = folder / "train.yaml"
    file.write_text(text)
    return load_settings(TrainConfig, options, file)


@pytest.mark.parametrize(
    ("key", "value"), [("beta", "0"), ("lr", ".nan"), ("epochs", "0"), ("warmup_ratio", "2"), ("eos", "never")]
)
def test_values_out_of_range_name_their_key(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"train\.yaml: {key}: "):
        from_yaml(tmp_path, f"model: a\n{key}: {value}\n")


@pytest.mark.parametrize(("key", "name"), [("method", "ppo"), ("loss", "ppo")])
def test_names_that_nobody_knows(tmp_path: Path, key: str, name: str) -> None:
    with pytest.raises(UserError, match=f"unknown {key} '{name}'; known: "):
        from_yaml(tmp_path, f"model: a\n{key}: {name}\n")


@pytest.mark.parametrize(("name", "loss"), [(name, loss) for name, losses in WITH.items() for loss in losses])
def test_parameters_of_a_loss_have_a_default_where_it_uses_them(name: str, loss: str) -> None:
    default = LOSS_PARAMETERS[name][0]
    assert getattr(make(loss=loss), name) == getattr(make(loss=loss).loss_parameters(), name) == default
    assert getattr(make(loss=loss, **{name: 0.25}).loss_parameters(), name) == 0.25


@pytest.mark.parametrize("name", LOSS_PARAMETERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_parameter_of_another_loss_is_refused_in_one_line(name: str, loss: str) -> None:
    if loss in WITH[name]:
        return
    default = LOSS_PARAMETERS[name][0]
    with pytest.raises(UserError) as caught:  # the default, too: who gives it believes that it counts
        make(loss=loss, **{name: default})
    line = f"`{name}` is only for `loss` {' or '.join(WITH[name])}; `loss` {loss} does not use it"
    assert str(caught.value) == line
    assert getattr(make(loss=loss), name) is None


@pytest.mark.parametrize("loss", LOSSES)
def test_a_recorded_configuration_can_be_read_again(loss: str) -> None:
    config = make(loss=loss)
    assert load_settings(TrainConfig, config.model_dump()) == config


@pytest.mark.parametrize(("key", "value"), [("label_smoothing", "0.5"), ("label_smoothing", "-0.1"), ("beta", "0")])
def test_half_of_the_pairs_cannot_be_the_wrong_way_round(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"train\.yaml: {key}: "):
        from_yaml(tmp_path, f"model: a\nloss: robust\n{key}: {value}\n")


def test_the_help_of_train_stands_in_panels() -> None:
    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "120"}).output
    places = [shown.index(f"─ {title} ─") for title in (IN_AND_OUT, METHOD, LOSS, OPTIMISER, SPEED, LOGGING)]
    assert places == sorted(places)


@pytest.mark.parametrize(("loss", "option"), [("robust", {"label_smoothing": 0.5}), ("ld-dpo", {"ld_alpha": 0.1})])
def test_parameters_of_our_losses_are_no_loss_options(loss: str, option: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"`loss` {loss} takes no `loss_options`"):
        make(loss=loss, loss_options=option)


@pytest.mark.parametrize("value", ["5", "null", "[sigmoid]"])
def test_a_loss_that_is_no_text(tmp_path: Path, value: str) -> None:
    with pytest.raises(UserError, match=r"train\.yaml: loss: "):
        from_yaml(tmp_path, f"model: a\nloss: {value}\n")
