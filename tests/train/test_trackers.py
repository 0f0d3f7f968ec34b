"""``--track``: TensorBoard for real; the others through stand-ins that take what their ``init`` and ``log`` take."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from test_run import cache_folder, config_for, metrics_of, pairs_file
from train_helpers import killed_in_step

from maskdpo.errors import UserError
from maskdpo.train.run.train import train
from maskdpo.train.settings import RunOptions

__all__ = ["cache_folder", "pairs_file"]  # fixtures


def test_tensorboard_has_every_figure_of_every_step_once(
    tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = config_for(tiny_model, max_steps=5)
    options = RunOptions(eval_file=pairs_file, track="tensorboard", save_every=2)
    with killed_in_step(5, monkeypatch):
        train(pairs_file, tmp_path / "out", config, options)
    train(pairs_file, tmp_path / "out", config, options)
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"), purge_orphaned_data=True)
    events.Reload()
    for name in ("loss", "margin", "lr"):
        logged = [(scalar.step, scalar.value) for scalar in events.Scalars(f"train/{name}")]
        rows = [(row["step"], row[name]) for row in metrics_of(tmp_path / "out")]
        assert [step for step, _ in logged] == [step for step, _ in rows]
        assert [value for _, value in logged] == pytest.approx([value for _, value in rows], rel=1e-5)
    assert [scalar.step for scalar in events.Scalars("eval/loss")] == [0, 5]


class Wandb(ModuleType):
    """``wandb.init(...)`` gives a run, a context manager with ``log(data, step=...)``."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.inits: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []

    def init(self, *, project: str, name: str, id: str, resume: str, dir: str, config: dict[str, Any]) -> "Wandb":
        self.inits.append({"id": id, "resume": resume, "config": config, "name": name})
        return self

    def log(self, data: dict[str, float], *, step: int) -> None:
        self.logged.append((step, data))

    def __enter__(self) -> "Wandb":
        return self

    def __exit__(self, *_: object) -> None:
        self.logged.append((-1, {}))


class Trackio(ModuleType):
    def __init__(self) -> None:
        super().__init__("trackio")
        self.inits: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []

    def init(self, *, project: str, name: str, resume: str, config: dict[str, Any]) -> None:
        self.inits.append({"resume": resume, "config": config, "name": name})

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.logged.append((step, metrics))

    def finish(self) -> None:
        self.logged.append((-1, {}))


@pytest.mark.parametrize("stand_in", [Wandb, Trackio])
def test_the_others_get_every_step_and_are_closed(
    stand_in: type[Any], tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = stand_in()
    name = module.__name__
    monkeypatch.setitem(sys.modules, name, module)
    train(pairs_file, tmp_path / "out", config_for(tiny_model, max_steps=3), RunOptions(track=name))
    assert [step for step, _ in module.logged] == [1, 2, 3, -1]
    rows = metrics_of(tmp_path / "out")
    assert [figures["train/loss"] for _, figures in module.logged[:-1]] == [row["loss"] for row in rows]
    assert None not in module.logged[0][1].values()
    (opened,) = module.inits
    assert opened["name"] == "out"
    assert opened["config"]["lr"] == 1e-3
    assert opened["config"]["model"] == Path(tiny_model).name, "not where it lies on this machine"


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_named_before_anything_is_loaded(
    name: Any, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError) as error:
        train(pairs_file, tmp_path / "out", config_for("no-such-model"), RunOptions(track=name))
    assert str(error.value) == (
        f"`track` {name} needs the package {name}. Install it with: pip install 'maskdpo[{name}]'"
    )
    assert not (tmp_path / "out").exists()
