"""The formula of the share of the device's peak, counted out by hand and against torch's own counter."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from train_helpers import random_model

from maskdpo.train.data.batch import Layout, collate
from maskdpo.train.data.encoded_pair import EncodedPair, EncodedSide
from maskdpo.train.model import flops, logps
from maskdpo.train.model.flops import KNOWN_PEAKS, ModelShape, device_peak, model_shape, step_flops
from maskdpo.train.model.logps import token_logps


def make_pair(prompt: int, chosen: list[float], rejected: list[float]) -> EncodedPair:
    sides = [EncodedSide(np.full(len(w), 5), np.array(w, dtype=np.float32)) for w in (chosen, rejected)]
    return EncodedPair("p", np.full(prompt, 4), sides[0], sides[1])


def test_a_step_by_hand() -> None:
    """2 + 3 + 1 tokens, 2 with weight. Seen: prompt 1 + 2, chosen 3 * 2 + (1 + 2 + 3), rejected 2 + 1: 18."""
    pair = make_pair(2, [1, 0, 0], [0.5])
    shape = ModelShape(body=100, head=10, attention=1)
    assert step_flops(shape, [pair], "shared") == 6 * 100 * 6 + 12 * 1 * 18 + 6 * 10 * 2
    assert step_flops(shape, [pair, pair], "padded") == 2 * (6 * 100 * 8 + 12 * 1 * 21 + 6 * 10 * 2)


@pytest.mark.parametrize("tied", [False, True])
def test_the_shape_of_a_model_leaves_the_embedding_out(tied: bool) -> None:
    model = random_model(tie_word_embeddings=tied)
    shape = model_shape(model)
    assert shape.attention == 2 * 4 * 8
    assert shape.head == 200 * 32
    body = sum(p.numel() for name, p in model.named_parameters() if "embed" not in name and "lm_head" not in name)
    assert shape.body == body


@pytest.mark.parametrize("layout", ["shared", "padded"])
@pytest.mark.parametrize(("chunk", "again"), [(40, 0), (10, 30)])
def test_the_formula_agrees_with_a_count_of_the_products(
    layout: Layout, chunk: int, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch counts beyond it: whole squares of attention, not the visible half, and ``lm_head`` computed again for
    the tokens of all chunks but the last. What it does not count: the norms' vectors, which are parameters but no
    matrix products."""
    monkeypatch.setattr(logps, "LOGITS", chunk * 200)
    model, pair = random_model(), make_pair(8, [1.0] * 20, [1.0] * 20)
    model.set_attn_implementation("eager")  # the counter does not know every fused attention
    shape = model_shape(model)
    with FlopCounterMode(display=False) as counter:
        token_logps(model, collate([pair], layout)).sum().backward()
    rows, length = (1, 48) if layout == "shared" else (2, 28)
    visible = step_flops(ModelShape(0, 0, 1), [pair], layout) / 12
    beyond = 12 * shape.attention * (rows * length * length - visible) + 2 * shape.head * again
    norms = 6 * sum(p.numel() for p in model.parameters() if p.ndim == 1) * rows * length
    assert counter.get_total_flops() == step_flops(shape, [pair], layout) + beyond - norms


def test_the_peak_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.dtype] = []
    measure = flops._measured_peak
    monkeypatch.setattr(flops, "SIZE", 64)
    monkeypatch.setattr(flops, "_measured_peak", lambda device, dtype: (calls.append(dtype), measure(device, dtype))[1])
    device_peak.cache_clear()
    before = torch.get_rng_state()
    try:
        peaks = {device_peak("cpu", "float32") for _ in range(3)}
    finally:
        device_peak.cache_clear()
    assert torch.equal(torch.get_rng_state(), before), "measuring would change a seeded run"
    assert calls == [torch.float32]
    assert len(peaks) == 1
    assert peaks.pop() > 0


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-40GB", 312e12)],
)
def test_known_cards_have_their_data_sheet(name: str, peak: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    device_peak.cache_clear()
    try:
        assert device_peak("cuda:0", "bfloat16") == peak
    finally:
        device_peak.cache_clear()
    assert peak in KNOWN_PEAKS.values()
