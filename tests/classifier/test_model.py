"""Heads, batches and checks of classifiers, with tiny random models of the presets' classes."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_classifiers
import torch
from test_inputs import TWO, spec

from maskdpo.backends.base import Request
from maskdpo.backends.settings import BackendSettings
from maskdpo.backends.transformers_backend import TransformersBackend
from maskdpo.classifier.inputs import Encoded, Item, encode
from maskdpo.classifier.model import Classifier, collate, label_ids, label_logits, load_classifier, scores
from maskdpo.errors import UserError
from maskdpo.schemas import Message

HEADS: dict[str, dict[str, Any]] = {
    "deberta": {"input": {"text": "{reference}[SEP]{sentence}"}},
    "roberta": {},
    "t5": {
        "head": "sequence-to-sequence",
        "input": {"text": "predict: {reference}</s>{sentence}"},
        "labels": [{"label": "hallucination", "token": "▁"}, {"label": "no_hallucination", "token": "▁1"}],
    },
    "modernbert": {
        "head": "token-classification",
        "input": {"text": "{passages}\n{question}", "pair": "{answer}"},
        "labels": TWO[::-1],
    },
    "llama": {
        "head": "likelihood",
        "input": {"text": "{reference}\nIs this so? {sentence}"},
        "labels": [{"label": "hallucination", "token": "no"}, {"label": "no_hallucination", "token": "yes"}],
        "max_length": 2048,
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Classifier]:
    return {
        kind: load_classifier(
            str(tiny_classifiers.save(tmp_path_factory.mktemp(kind), kind)),
            spec(**changes),
            device="cpu",
            dtype="float32",
        )
        for kind, changes in HEADS.items()
    }


def _items(classifier: Classifier) -> list[Encoded]:
    texts = [("The river Thames flows. " * n, f"Paris lies {n}.") for n in (1, 14, 3, 14, 7, 1, 14)]
    return [
        encode(classifier.spec, classifier.tokenizer, Item(text, claim, question="Q?", answer=claim * 3))
        for text, claim in texts
    ]


@pytest.mark.parametrize("kind", HEADS)
def test_scores_are_those_of_one_item_at_a_time_whatever_the_batch(kind: str, made: dict[str, Classifier]) -> None:
    classifier = made[kind]
    items = _items(classifier)
    alone = {i: next(iter(scores(classifier, [item], 1)))[1] for i, item in enumerate(items)}
    for size in (1, 2, 64):
        found = dict(scores(classifier, items, size))
        assert found.keys() == alone.keys()
        for i, share in found.items():
            np.testing.assert_allclose(share, alone[i], atol=3e-6)
    flat = np.concatenate([share.reshape(-1, share.shape[-1]) for share in alone.values()])
    np.testing.assert_allclose(flat.sum(-1), 1, atol=1e-5)
    assert np.log(flat[:, 0] / flat[:, 1]).std() > 0.05  # else the comparison says nothing


@pytest.mark.parametrize("kind", HEADS)
def test_training_gets_the_logits_that_judging_reads(kind: str, made: dict[str, Classifier]) -> None:
    classifier = made[kind]
    items = _items(classifier)
    logits = label_logits(classifier, collate(classifier, items))
    assert logits.dtype == torch.float32
    shares = logits.softmax(-1).detach().numpy()
    for i, share in scores(classifier, items, 3):
        mine = shares[i][: len(items[i].ids)] if shares.ndim == 3 else shares[i]
        np.testing.assert_allclose(share, mine, atol=3e-6)
    logits[..., 0].sum().backward()
    weights = [parameter.grad for parameter in classifier.model.parameters() if parameter.grad is not None]
    assert max(float(grad.abs().max()) for grad in weights) > 0
    classifier.model.zero_grad()


@pytest.mark.parametrize("kind", HEADS)
def test_scores_of_bfloat16_are_probabilities_in_float32(kind: str, made: dict[str, Classifier]) -> None:
    name = made[kind].model.config.name_or_path
    half = load_classifier(name, made[kind].spec, device="cpu", dtype="bfloat16")
    assert half.model.dtype is torch.bfloat16
    for i, share in scores(half, _items(half), 4):
        assert share.dtype in (np.float32, np.float64)
        np.testing.assert_allclose(share.sum(-1), 1, atol=1e-5)
        assert label_logits(half, collate(half, _items(half)[i : i + 1])).dtype is torch.float32


def test_a_causal_model_reads_a_common_beginning_once(
    made: dict[str, Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = made["llama"]
    chunk = "The river Thames flows through London. " * 12
    items = [encode(classifier.spec, classifier.tokenizer, Item(chunk, f"It has {n} bridges.")) for n in range(6)]
    read: list[int] = []
    forward = classifier.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        read.append(kwargs["input_ids"].numel())
        return forward(*args, **kwargs)

    monkeypatch.setattr(classifier.model, "forward", counted)
    assert len(dict(scores(classifier, items, 8))) == 6
    assert sum(read) < 2 * len(items[0].ids)


def test_words_have_the_probabilities_that_the_backend_gives_them(tiny_model: str) -> None:
    backend = TransformersBackend(tiny_model, BackendSettings(device="cpu", dtype="float32"))
    made = spec(
        head="likelihood",
        input={"text": "{reference} Is it so: {sentence}", "chat": True, "system": "Say yes or no."},
        labels=[{"label": "hallucination", "token": "n"}, {"label": "no_hallucination", "token": "y"}],
    )
    classifier = load_classifier(tiny_model, made, device="cpu", dtype="float32")
    claims = ["Paris?", "The river."]
    encoded = [encode(made, classifier.tokenizer, Item("Thames.", claim)) for claim in claims]
    found = [share for _, share in sorted(scores(classifier, encoded, 4), key=lambda pair: pair[0])]
    for claim, share in zip(claims, found, strict=True):
        system, user = Message(role="system", content="Say yes or no."), f"Thames. Is it so: {claim}"
        request = Request(claim, [system, Message(role="user", content=user)], choices=("n", "y"))
        [reply] = backend.generate([request])
        assert reply.completions[0].picks[0].probabilities["y"] == pytest.approx(float(share[1]), abs=1e-5)


def test_labels_are_checked_against_the_config(tmp_path: Path) -> None:
    names = {0: "entailment", 1: "neutral", 2: "contradiction"}
    folder = tiny_classifiers.save(tmp_path, "deberta", 3, names)
    wanted = ["no_hallucination", "unverifiable", "contradictory"]

    def load(labels: list[dict[str, str]]) -> Classifier:
        return load_classifier(str(folder), spec(labels=labels), device="cpu")

    told = [{"name": name.upper(), "label": label} for name, label in zip(names.values(), wanted, strict=True)]
    assert load(told).model.config.num_labels == 3
    with pytest.raises(UserError, match=r"the model calls label 0 'entailment', its spec calls it 'CONTRADICTION'"):
        load(told[::-1])
    with pytest.raises(UserError, match=r"the model calls label 0 'entailment', its spec calls it None"):
        load([{"label": label} for label in wanted])
    with pytest.raises(UserError, match=r"the model has 3 labels .*, its spec has 2"):
        load(told[:2])


def test_tokens_of_labels_must_be_in_the_vocabulary() -> None:
    changes = HEADS["llama"] | {
        "labels": [{"label": "hallucination", "token": "▁no"}, {"label": "no_hallucination", "token": "yes"}]
    }
    words = tiny_classifiers.words_of("llama")
    with pytest.raises(UserError, match="has no token '▁no'"):
        label_ids(spec(**changes), words)
    changes["labels"] = [{"label": "hallucination", "token": "yes"}, {"label": "no_hallucination", "token": "yes"}]
    with pytest.raises(UserError, match="two labels have the same token"):
        label_ids(spec(**changes), words)


def test_only_safetensors_are_loaded_and_no_code(tmp_path: Path) -> None:
    folder = tiny_classifiers.save(tmp_path / "model", "roberta")
    weights = torch.nn.Linear(2, 2).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"(?s)model\.safetensors.*save_pretrained"):
        load_classifier(str(folder), spec(), device="cpu")
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "hhem", "auto_map": code}))
    (folder / "code.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(UserError, match="needs code from its repository"):
        load_classifier(str(folder), spec(), device="cpu")


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    folder = tiny_classifiers.save(tmp_path, "roberta")
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: weight for name, weight in weights.items() if "classifier" not in name},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(UserError, match="its files lack 4 weights that RobertaForSequenceClassification has"):
        load_classifier(str(folder), spec(), device="cpu")


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="sentencepiece is installed")
def test_a_tokenizer_that_needs_a_package_says_so(tmp_path: Path) -> None:
    folder = tiny_classifiers.save(tmp_path, "deberta")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer"}')
    (folder / "spm.model").write_bytes(b"\n\x0e\n\x05<unk>")
    with pytest.raises(UserError, match=r"has no tokenizer\.json.*pip install sentencepiece protobuf"):
        load_classifier(str(folder), spec(), device="cpu")
