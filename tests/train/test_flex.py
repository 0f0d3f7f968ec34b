"""FlexAttention against PyTorch's: its blocks, log-probs, gradients, kernels, and when it is used.

PyTorch computes no gradients of FlexAttention on a CPU: it refuses, although it has the formula. Where gradients are
compared here, the refusal is switched off (``with_gradients``). The compiled kernels of a GPU are not tried here.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from torch.nn.attention.flex_attention import create_mask
from train_helpers import random_model, random_pair
from transformers import PreTrainedModel

from maskdpo.errors import UserError
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import CHOSEN, PAD, PROMPT, REJECTED, collate
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.model import faster, flex
from maskdpo.train.model.attention import NAME as CPU_NAME
from maskdpo.train.model.decoder import checkpoint_layers
from maskdpo.train.model.flex import BLOCK, Heads, block_mask, kernel_problem, use_flex_attention
from maskdpo.train.model.load import load_policy
from maskdpo.train.model.logps import token_logps

PAIRS = [random_pair(np.random.default_rng(i), str(i)) for i in range(5)]
SPREAD = [random_pair(np.random.default_rng(i), str(i), longest=longest) for i, longest in enumerate((6, 90, 140))]
"""Rows of 10 to some 300 tokens, so that much of them is padding, and segments end within blocks."""


@pytest.fixture
def with_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_flex, "_validate_device", lambda query, key, value: None)


def segments(*lengths: int, padding: int = 0) -> Tensor:
    parts = (*zip(lengths, (PROMPT, CHOSEN, REJECTED), strict=True), (padding, PAD))
    return torch.cat([torch.full((count,), segment) for count, segment in parts])


def seen_by(segments_RL: Tensor) -> Tensor:
    """[R, L, L] by the definition, token by token."""
    found = [
        [[k <= q and (key == PROMPT or key == row[q]) for k, key in enumerate(row)] for q in range(len(row))]
        for row in segments_RL.tolist()
    ]
    return torch.tensor(found)


@pytest.mark.parametrize(
    "lengths",
    [((1, 1, 1),), ((5, 3, 2), (1, 4, 9)), ((130, 140, 60), (64, 64, 64)), ((128, 128, 128), (1, 250, 1), (300, 5, 5))],
)
def test_blocks_and_rule_are_the_mask_of_the_batch(lengths: tuple[tuple[int, int, int], ...]) -> None:
    longest = max(map(sum, lengths))
    segments_RL = torch.stack([segments(*row, padding=longest - sum(row)) for row in lengths])
    mask = block_mask(segments_RL)
    whole, other = mask.seq_lengths
    assert whole == other and whole % BLOCK == 0 and whole >= longest
    seen_RLL = create_mask(mask.mask_mod, len(lengths), 1, whole, whole, device="cpu")[:, 0]
    assert torch.equal(seen_RLL[:, :longest, :longest], seen_by(segments_RL))
    per_block = seen_RLL.view(len(lengths), whole // BLOCK, BLOCK, whole // BLOCK, BLOCK).sum((2, 4))
    assert torch.equal(mask.to_dense()[:, 0].bool(), per_block > 0), "a block is computed where something is to be seen"
    for row, query in itertools.product(range(len(lengths)), range(whole // BLOCK)):
        assert mask.full_kv_num_blocks is not None and mask.full_kv_indices is not None
        full = mask.full_kv_indices[row, 0, query, : mask.full_kv_num_blocks[row, 0, query]]
        assert (per_block[row, query, full] == BLOCK * BLOCK).all(), "the rule is not asked in these blocks"


def test_a_wide_prompt_is_not_looked_at_token_by_token() -> None:
    """400 tokens of prompt and two answers of 300: most blocks are all or nothing."""
    mask = block_mask(segments(400, 300, 300)[None])
    assert mask.full_kv_num_blocks is not None
    assert int(mask.full_kv_num_blocks.sum()) == 18 and int(mask.kv_num_blocks.sum()) == 16
    assert mask.numel() == 1024 * 1024 and mask.sparsity() > 46


def logps_and_gradients(model: PreTrainedModel, pairs: list[EncodedPair]) -> tuple[Tensor, Tensor]:
    logps_N = token_logps(model, collate(pairs, "shared"))
    logps_N.square().sum().backward()  # type: ignore[no-untyped-call]
    return logps_N.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.usefixtures("with_gradients")
@pytest.mark.parametrize(
    ("settings", "pairs", "checkpointed"),
    [
        ({"kind": "llama"}, PAIRS, False),
        ({"kind": "llama", "num_key_value_heads": 4, "num_hidden_layers": 1}, SPREAD, False),
        ({"kind": "llama", "hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2}, PAIRS, True),
        ({"kind": "cohere", "num_key_value_heads": 1, "num_hidden_layers": 1}, SPREAD, False),
        ({"kind": "granite"}, PAIRS, False),
    ],
    ids=["llama", "no shared heads", "3 queries to a key, checkpoints", "one key", "another factor"],
)
def test_it_equals_the_attention_of_pytorch(
    settings: dict[str, Any], pairs: list[EncodedPair], checkpointed: bool
) -> None:
    settings |= {"max_position_embeddings": 1024}
    exact = logps_and_gradients(random_model(**settings).double(), pairs)
    model = random_model(**settings)
    use_flex_attention(model)
    if checkpointed:
        checkpoint_layers(model)
    found = logps_and_gradients(model, pairs)
    torch.testing.assert_close(found[0].double(), exact[0].double(), atol=2e-5, rtol=0)
    torch.testing.assert_close(found[1].double(), exact[1], atol=2e-5 * float(exact[1].abs().max()), rtol=0)


@pytest.mark.usefixtures("with_gradients")
def test_in_bfloat16_it_is_no_further_from_the_truth_than_the_attention_of_pytorch() -> None:
    _, exact = logps_and_gradients(random_model(), PAIRS)
    errors = []
    for prepare in (lambda model: None, use_flex_attention):
        model = random_model()
        prepare(model)
        with torch.autocast("cpu", torch.bfloat16):
            _, found = logps_and_gradients(model, PAIRS)
        errors.append(float((found - exact).norm() / exact.norm()))
    assert 0 < errors[1] < 1.2 * errors[0] < 0.1


def test_other_passes_keep_the_attention_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model answers prompts and computes rows of the padded layout with the same implementation set."""
    monkeypatch.setattr(flex, "_kernel", lambda device: pytest.fail("not for these"))
    expected, model = random_model(), random_model()
    use_flex_attention(model)
    ids = torch.tensor([[7, 7, 5, 6, 7], [8, 9, 5, 6, 7]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    batch = collate(PAIRS, "padded")
    with torch.no_grad():
        assert torch.equal(model(ids, attention_mask=mask).logits, expected(ids, attention_mask=mask).logits)
        assert torch.equal(token_logps(model, batch), token_logps(expected, batch))


@pytest.mark.parametrize("more", [{"softcap": 5.0}, {"s_aux": torch.zeros(2)}, {"dropout": 0.1}])
def test_what_is_more_than_a_softmax_is_refused(more: dict[str, Any]) -> None:
    q, k, v = (torch.randn(1, 2, 6, 16) for _ in range(3))
    with pytest.raises(NotImplementedError, match="soft cap"):
        flex.flex_attention(torch.nn.Module(), q, k, v, block_mask(segments(2, 2, 2)[None]), 0.3, **more)


def test_one_kernel_serves_rows_of_every_length() -> None:
    """Compiled by a backend that only counts; a GPU takes seconds for each kernel."""
    kernels = []

    def count(graph: Any, inputs: Any) -> Any:
        kernels.append(graph)
        return graph.forward

    attend = torch.compile(torch_flex.flex_attention, fullgraph=True, backend=count)
    counts = []
    with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=flex.RECOMPILES, specialize_float=True):
        for lengths in ((40, 60, 60), (90, 100, 200), (300, 90, 130), (10, 3, 3), (129, 128, 128), (3, 700, 700)):
            rows = len(counts) % 3 + 2
            mask = block_mask(segments(*lengths).expand(rows, -1))
            q, k, v = (torch.randn(rows, heads, mask.seq_lengths[0], 16) for heads in (4, 2, 2))
            attend(q, k, v, block_mask=mask, scale=0.25, enable_gqa=True)
            counts.append(len(kernels))
    assert counts[1:] == [counts[1]] * 5 and counts[1] <= 2


@pytest.mark.usefixtures("with_gradients")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_are_tried_with_their_gradients(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = Heads(query=4, key=2, size=16, value_size=8)
    assert kernel_problem(heads, "cpu", dtype) == ""
    right = flex._kernel("cpu")

    def wrong_gradient(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """The values of half the tokens get no gradient."""
        half = torch.arange(value.shape[2])[:, None] % 2 == 0
        return right(query, key, torch.where(half, value, value.detach()), **options)

    monkeypatch.setattr(flex, "_kernel", lambda device: wrong_gradient)
    assert "differs from PyTorch's attention by 0." in kernel_problem(heads, "cpu", dtype)


@pytest.mark.usefixtures("with_gradients")
@pytest.mark.parametrize("fails", [lambda rows, length: rows == 1, lambda rows, length: length > 3 * BLOCK])
def test_every_kernel_of_a_training_is_tried(fails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """That for rows of any length and that for a single row are compiled only when such rows come."""
    right = flex._kernel("cpu")

    def failing(query: Tensor, *args: Tensor, **options: Any) -> Tensor:
        if fails(query.shape[0], query.shape[2]):
            raise RuntimeError("out of resource: shared memory")
        return right(query, *args, **options)

    monkeypatch.setattr(flex, "_kernel", lambda device: failing)
    found = kernel_problem(Heads(query=2, key=1, size=16, value_size=16), "cpu", torch.float32)
    assert found == "FlexAttention fails (out of resource: shared memory)"


@pytest.mark.usefixtures("with_gradients")
def test_why_a_kernel_fails_in_a_pass_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass is in float32, in which a head may be too large for a kernel."""

    def failing(*args: Any, **options: Any) -> Tensor:
        raise RuntimeError("out of resource: shared memory")

    model = random_model()
    monkeypatch.setattr(flex, "_kernel", lambda device: failing)
    monkeypatch.setattr(faster, "kernel_problem", lambda *_: "")
    with pytest.raises(UserError, match=r"with FlexAttention its decoder fails .*out of resource"):
        faster.use_fastest_attention(
            model, PAIRS, "shared", TrainConfig(model="m", attention="flex"), "cpu", faster.Ranks()
        )


def test_without_a_compiler_it_is_tried_on_the_shortest_pair_alone(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    lengths = []
    right = flex._kernel("cpu")

    def noting(query: Tensor, *args: Tensor, **options: Any) -> Tensor:
        lengths.append(query.shape[2])
        return right(query, *args, **options)

    monkeypatch.setattr(flex, "_kernel", lambda device: noting)
    monkeypatch.setattr(faster, "kernel_problem", lambda *_: "")
    faster.use_fastest_attention(
        random_model(), SPREAD, "shared", TrainConfig(model="m", attention="flex"), "cpu", faster.Ranks()
    )
    assert set(lengths) == {flex.SHORTEST}, "the longest row of these has more"
    assert not [one for one in recwarn if "torch.compile" in str(one.message)]


def test_on_a_cpu_it_is_never_used_by_itself_and_one_line_says_why_it_cannot_train(tiny_model: str) -> None:
    policy = load_policy(TrainConfig(model=tiny_model), PAIRS[:1], "cpu")
    assert policy.model.config._attn_implementation == CPU_NAME
    with pytest.raises(UserError, match=r"`attention` flex: .* does not support backward on CPU.* take auto or sdpa"):
        load_policy(TrainConfig(model=tiny_model, attention="flex"), PAIRS[:1], "cpu")
    policy = load_policy(TrainConfig(model=tiny_model, attention="sdpa"), PAIRS[:1], "cpu")
    assert policy.model.config._attn_implementation == "sdpa"


@pytest.mark.usefixtures("with_gradients")
def test_a_policy_has_it_and_does_not_write_it_down(tiny_model: str, tmp_path: Path) -> None:
    policy = load_policy(TrainConfig(model=tiny_model, attention="flex"), PAIRS[:1], "cpu")
    assert policy.model.config._attn_implementation == flex.NAME
    policy.model.save_pretrained(tmp_path)
    assert flex.NAME not in json.dumps(json.loads((tmp_path / "config.json").read_text()))


@pytest.mark.usefixtures("with_gradients")
def test_where_it_changes_log_probs_the_attention_of_pytorch_stays(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on CUDA, but for the device: kernels that are right, and a mask by which answers see each other."""
    blocks = block_mask
    monkeypatch.setattr("maskdpo.train.model.logps.block_mask", lambda rows: blocks(rows.clamp(max=CHOSEN)))
    monkeypatch.setattr(faster, "kernel_problem", lambda heads, device, dtype: kernel_problem(heads, "cpu", dtype))
    model = random_model()
    faster.use_fastest_attention(model, PAIRS, "shared", TrainConfig(model="m"), "cuda", faster.Ranks())
    assert model.config._attn_implementation == "sdpa"
    said = " ".join(capsys.readouterr().err.split())
    assert "trains with PyTorch's attention (slower, same result): with FlexAttention its log-probs differ" in said


@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_windows_and_soft_caps_are_left_to_what_is_exact(kind: str) -> None:
    model = random_model(kind)
    own = model.config._attn_implementation
    faster.use_fastest_attention(model, PAIRS, "padded", TrainConfig(model="m"), "cuda", faster.Ranks())
    assert model.config._attn_implementation == own
    with pytest.raises(UserError, match="FlexAttention is for models whose answers share one row"):
        asked = TrainConfig(model="m", attention="flex")
        faster.use_fastest_attention(model, PAIRS, "padded", asked, "cuda", faster.Ranks())
