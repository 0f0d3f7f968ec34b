"""Log-probs of all layouts against the model's own plain forward pass."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from train_helpers import random_model, random_pair
from transformers import PreTrainedModel

from maskdpo.schemas import SIDES
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import Layout, collate, micro_batches, pass_tokens
from maskdpo.train.data.encoded_pair import EncodedPair, EncodedSide
from maskdpo.train.model import logps
from maskdpo.train.model.logps import token_logps
from maskdpo.train.run.reference import compute_reference
from maskdpo.train.step import Trainer

FULL = ["llama", "cohere", "granite"]
SLIDING = ["mistral", "gemma2"]


def plain_logps(model: PreTrainedModel, pairs: Sequence[EncodedPair], *, every_token: bool = False) -> Tensor:
    """One answer at a time, unpadded, all logits, in float64 behind the model."""
    found = []
    for pair in pairs:
        for side in SIDES:
            answer = pair.side(side)
            ids = torch.tensor(np.concatenate([pair.prompt_ids, answer.ids]))[None]
            logps_TV = model(input_ids=ids).logits[0].double().log_softmax(-1)
            for t, (token, weight) in enumerate(zip(answer.ids, answer.weights, strict=True)):
                if weight or every_token:
                    found.append(logps_TV[len(pair.prompt_ids) + t - 1, int(token)])
    return torch.stack(found)


def some_pairs(count: int = 5, seed: int = 0) -> list[EncodedPair]:
    rng = np.random.default_rng(seed)
    return [random_pair(rng, str(i)) for i in range(count)]


@pytest.mark.parametrize("every_token", [False, True])
@pytest.mark.parametrize(
    ("kind", "layout"), [*((kind, "shared") for kind in FULL), *((kind, "padded") for kind in FULL + SLIDING)]
)
def test_layouts_agree_with_one_by_one(kind: str, layout: Layout, every_token: bool) -> None:
    model, pairs = random_model(kind), some_pairs()
    with torch.no_grad():
        found = token_logps(model, collate(pairs, layout, every_token=every_token))
        expected = plain_logps(model, pairs, every_token=every_token)
    assert expected.std() > 0.1, "the model is too flat for this test to say anything"
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", FULL)
def test_gradients_of_the_layouts_agree(kind: str) -> None:
    pairs, gradients = some_pairs(), []
    for layout in ("shared", "padded"):
        model = random_model(kind)
        token_logps(model, collate(pairs, layout)).sum().backward()  # type: ignore[arg-type]
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5 * float(gradients[1].abs().max()), rtol=0)


def test_only_positions_with_weight_reach_the_output_layer() -> None:
    model, pairs, rows = random_model(), some_pairs(), []
    model.get_output_embeddings().register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
    with torch.no_grad():
        token_logps(model, collate(pairs, "shared"))
    assert sum(rows) == sum(np.count_nonzero(pair.side(side).weights) for pair in pairs for side in SIDES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_change_nothing(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither log-probs nor gradients, whether one chunk holds all tokens, or many some of them; and all but the last
    are computed twice."""
    found, rows = [], []
    for size in (10**6, 3, 1):
        model, batch = random_model(), collate(some_pairs(), "shared")
        model.get_output_embeddings().register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
        monkeypatch.setattr(logps, "LOGITS", size * model.config.vocab_size)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            logps_N = token_logps(model, batch)
        logps_N.square().sum().backward()  # type: ignore[no-untyped-call]
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((logps_N.detach(), gradient, sum(rows)))
        rows.clear()
    count = len(found[0][0])
    assert [seen for *_, seen in found] == [count, 2 * count - 3, 2 * count - 1]
    exact = dtype == torch.float32
    for logps_N, gradient, _ in found[1:]:
        torch.testing.assert_close(logps_N, found[0][0], atol=1e-6 if exact else 1e-2, rtol=0)
        largest = float(found[0][1].abs().max())
        torch.testing.assert_close(gradient, found[0][1], atol=(1e-6 if exact else 1e-2) * largest, rtol=0)


def test_the_answers_are_blind_to_each_other() -> None:
    """Another rejected answer in the same row changes no log-prob of the chosen one."""
    model, (first, second) = random_model(), some_pairs(2)
    swapped = EncodedPair(first.id, first.prompt_ids, first.chosen, second.rejected)
    count = np.count_nonzero(first.chosen.weights)
    with torch.no_grad():
        before, after = (token_logps(model, collate([pair], "shared"))[:count] for pair in (first, swapped))
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layout", ["shared", "padded"])
def test_reference_holds_every_token_whatever_the_grouping(layout: Layout) -> None:
    model, pairs = random_model(), some_pairs(7)
    done: list[int] = []
    for tokens_per_batch in (1, 40, 10_000):
        config = TrainConfig(model="tiny", dtype="float32", tokens_per_batch=tokens_per_batch)
        trainer = Trainer(model, config, layout)
        trainer.reference = compute_reference(trainer, pairs, done.append)
        for pair in pairs:
            expected = plain_logps(model, [pair], every_token=True).detach().numpy()
            np.testing.assert_allclose(trainer.reference[pair.id], expected, atol=1e-5)
            picked = trainer.reference_logps([pair], trainer.collate([pair])).double()
            torch.testing.assert_close(picked, plain_logps(model, [pair]), atol=1e-5, rtol=0)
    assert sum(done) == 3 * len(pairs)


@pytest.mark.parametrize("layout", ["shared", "padded"])
def test_micro_batches_keep_every_pair_and_the_budget(layout: Layout) -> None:
    pairs = some_pairs(20)
    for budget in (1, 30, 100, 10_000):
        groups = micro_batches(pairs, budget, layout)
        assert sorted(pair.id for group in groups for pair in group) == sorted(pair.id for pair in pairs)
        sizes = [collate(group, layout).input_ids_RL.numel() for group in groups]
        assert sizes == [pass_tokens(group, layout) for group in groups]
        assert all(len(group) == 1 or size <= budget for group, size in zip(groups, sizes, strict=True))
    assert len(micro_batches(pairs, 10_000, layout)) == 1
    assert micro_batches([], 100, layout) == []


def test_micro_batches_are_few_and_of_like_size() -> None:
    """Eight pairs of 10 tokens in a budget of 70: four and four, not seven and one."""
    side = EncodedSide(np.arange(4), np.ones(4, dtype=np.float32))
    pairs = [EncodedPair(str(i), np.array([4, 5]), side, side) for i in range(8)]
    assert [len(group) for group in micro_batches(pairs, 70, "shared")] == [4, 4]
    assert [len(group) for group in micro_batches(pairs, 9, "shared")] == [1] * 8
    assert [len(group) for group in micro_batches(pairs, 70, "padded")] == [4, 4], "two rows of 6 a pair"
    assert [len(group) for group in micro_batches(pairs, 47, "padded")] == [3, 3, 2]
    long = EncodedPair("long", np.arange(90), side, side)
    assert [len(group) for group in micro_batches([*pairs, long], 70, "shared")] == [1, 4, 4]
