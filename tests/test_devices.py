"""Which device is taken, and in which type it computes."""

import pytest
import torch

from maskdpo.devices import compute_type, pick_device
from maskdpo.errors import UserError


@pytest.mark.parametrize(("cuda", "mps", "best"), [(2, True, "cuda"), (0, True, "mps"), (0, False, "cpu")])
def test_the_best_device_is_taken_unless_one_is_named(
    cuda: int, mps: bool, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device(None) == best
    there = ["cpu", *["cuda", "cuda:1"][:cuda], *["mps"] * mps]
    assert [pick_device(name) for name in there] == there


def test_on_mps_the_type_is_float32_unless_bfloat16_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compute_type("auto", "mps") == "float32"
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: True)
    assert compute_type("bfloat16", "mps:0") == "bfloat16"
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: False)
    with pytest.raises(UserError, match="`dtype` bfloat16: on mps torch computes in it from macOS 14 on"):
        compute_type("bfloat16", "mps:0")
