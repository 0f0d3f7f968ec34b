"""Settings from flags and YAML."""

from pathlib import Path
from typing import Any

import pytest

from maskdpo.errors import UserError
from maskdpo.train.config import make_config


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
