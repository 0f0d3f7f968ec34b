"""The CPU's own attention against PyTorch's, and layers that are compiled against those that are not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from train_helpers import random_model, random_pair
from transformers import PreTrainedModel

from maskdpo.errors import UserError
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import collate
from maskdpo.train.model import attention
from maskdpo.train.model.attention import NAME, use_cpu_attention
from maskdpo.train.model.load import load_policy
from maskdpo.train.model.logps import token_logps

PAIRS = [random_pair(np.random.default_rng(i), str(i)) for i in range(6)]


def logps_and_gradients(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    logps_N = token_logps(model, collate(PAIRS, "shared"))
    logps_N.square().sum().backward()  # type: ignore[no-untyped-call]
    return logps_N.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of the queries that our own attention worked on."""
    shapes: list[torch.Size] = []
    apply = attention._BlockAttention.apply
    monkeypatch.setattr(
        attention._BlockAttention, "apply", lambda *args: (shapes.append(args[0].shape), apply(*args))[1]
    )
    return shapes


@pytest.mark.parametrize("kind", ["llama", "cohere", "granite"])
def test_it_equals_the_attention_of_pytorch(kind: str, seen: list[torch.Size]) -> None:
    expected = logps_and_gradients(random_model(kind))
    assert not seen
    model = random_model(kind)
    use_cpu_attention(model)
    found = logps_and_gradients(model)
    assert len(seen) == model.config.num_hidden_layers
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], expected[1], atol=1e-5 * float(expected[1].abs().max()), rtol=0)


def test_in_bfloat16_it_is_no_further_from_the_truth_than_the_attention_of_pytorch() -> None:
    _, exact = logps_and_gradients(random_model())
    errors = []
    for prepare in (lambda model: None, use_cpu_attention):
        model = random_model()
        prepare(model)
        with torch.autocast("cpu", torch.bfloat16):
            _, found = logps_and_gradients(model)
        errors.append(float((found - exact).norm() / exact.norm()))
    assert 0 < errors[1] < 1.2 * errors[0] < 0.1


def test_large_scores_are_as_exact_as_those_of_pytorch() -> None:
    """Keys and queries with a common bias, as some models have: raw scores of hundreds that differ by little."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, 40, 16) for heads in (4, 2, 2))
    for x in (q, k):
        x[..., :2] += 12
    q, k, v = (x.bfloat16() for x in (q, k, v))
    mask = torch.ones(2, 1, 40, 40, dtype=torch.bool).tril()
    module = torch.nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]
    exact, _ = attention.sdpa_attention_forward(module, q.double(), k.double(), v.double(), mask, scaling=0.25)
    errors = [
        float((f(module, q, k, v, mask, scaling=0.25)[0].double() - exact).norm() / exact.norm())
        for f in (attention.cpu_attention, attention.sdpa_attention_forward)
    ]
    assert float((q.float() @ k.float().repeat_interleave(2, 1).transpose(2, 3)).max()) > 300
    assert errors[0] < 1.5 * errors[1] < 0.01


def test_padding_on_the_left_which_sees_no_key_leaves_real_tokens_as_they_are(seen: list[torch.Size]) -> None:
    ids = torch.tensor([[7, 7, 5, 6, 7], [8, 9, 5, 6, 7]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    model = random_model()
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        use_cpu_attention(model)
        found = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    assert len(seen) == model.config.num_hidden_layers
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)


@pytest.mark.parametrize("change", ["value size", "float mask", "one mask for all", "softcap"])
def test_what_is_not_plain_is_left_to_pytorch(change: str, seen: list[torch.Size]) -> None:
    q, k, v = (torch.randn(2, 2, 6, 8) for _ in range(3))
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    extras = {}
    if change == "value size":
        v = torch.randn(2, 2, 6, 4)
    elif change == "float mask":
        mask = torch.zeros(2, 1, 6, 6).masked_fill(~mask, float("-inf"))
    elif change == "one mask for all":
        mask = mask[:1]
    else:
        extras = {"softcap": 5.0}
    module = torch.nn.Module()
    if extras:
        with pytest.raises(ValueError, match="softcap"):
            attention.cpu_attention(module, q, k, v, mask, 0.3, **extras)
    else:
        found, _ = attention.cpu_attention(module, q, k, v, mask, 0.3)
        torch.testing.assert_close(found, attention.sdpa_attention_forward(module, q, k, v, mask, scaling=0.3)[0])
    assert not seen


def test_a_block_of_queries_gets_only_the_keys_that_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks change no log-prob and no gradient, and the rejected answer meets no key of the chosen one."""
    expected, keys = logps_and_gradients(random_model()), []
    probabilities = attention._probabilities
    monkeypatch.setattr(
        attention, "_probabilities", lambda *args: (keys.append(args[1].shape[1]), probabilities(*args))[1]
    )
    for size in (1, 3, 1000):
        monkeypatch.setattr(attention, "BLOCK", size)
        model = random_model()
        use_cpu_attention(model)
        found = logps_and_gradients(model)
        torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(found[1], expected[1], atol=1e-5 * float(expected[1].abs().max()), rtol=0)
        mask = collate(PAIRS, "shared").attention_mask()
        if size == 1:
            assert sum(keys) == 2 * model.config.num_hidden_layers * int(mask.sum()), "forward and backward"
        keys.clear()


def test_a_policy_on_the_cpu_has_it_and_does_not_write_it_down(tiny_model: str, tmp_path: Path) -> None:
    policy = load_policy(TrainConfig(model=tiny_model), PAIRS[:1], "cpu")
    assert policy.model.config._attn_implementation == NAME
    policy.model.save_pretrained(tmp_path)
    assert NAME not in json.dumps(json.loads((tmp_path / "config.json").read_text()))


@pytest.mark.slow
def test_compiled_layers_compute_the_same(tiny_model: str) -> None:
    found = []
    for compiled in (False, True):
        policy = load_policy(TrainConfig(model=tiny_model, compile=compiled), PAIRS[:1], "cpu")
        names = set(policy.model.state_dict())
        found.append((names, *logps_and_gradients(policy.model)))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], atol=3e-5, rtol=0)
    torch.testing.assert_close(found[0][2], found[1][2], atol=1e-4 * float(found[0][2].abs().max()), rtol=0)


def test_without_a_compiler_one_line_says_so(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"`compile`: no C\+\+ compiler 'no-such-compiler' is installed"):
        load_policy(TrainConfig(model=tiny_model, compile=True), PAIRS[:1], "cpu")
