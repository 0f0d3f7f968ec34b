"""Errors for people, on their way out of another process."""

import pickle
from pathlib import Path

import pytest

from maskdpo.backends.price import OutOfMoney
from maskdpo.errors import InputError, Interrupted, NoPairs, UserError
from maskdpo.settings import settings_of
from maskdpo.settings_reading import MissingSetting
from maskdpo.stage_run import OtherSettings
from maskdpo.train.settings import TrainSettings


@pytest.mark.parametrize(
    "error",
    [
        UserError("no such device"),
        Interrupted("stopped; nothing is lost", 15),
        InputError("must be a string", path=Path("pairs.jsonl"), line=3, field="prompt"),
        InputError("no such file", path="pairs.jsonl"),
        NoPairs("no pair can be built", path="annotations.jsonl"),
        OtherSettings("an earlier run with other settings", path="pairs.jsonl.meta.json"),
        OutOfMoney("the next call may cost more than is left"),
        MissingSetting(settings_of(TrainSettings)[0]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_a_worker_process_arrives_as_it_was_raised(error: UserError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived), vars(arrived)) == (type(error), str(error), vars(error))
