"""A small Llama from scratch that knows a world as its texts tell of it, with a tokenizer of whole words."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from benchmarks.closed_world.grammar import ATTRIBUTES, VALUES, vocabulary
from benchmarks.closed_world.world import Entity, World, groups, question, question_about, write_text, write_texts

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"
CONTEXT = 256
BATCH, LR, WARMUP = 64, 2.5e-3, 20
VALUE_WEIGHT = 5.0
"""Values are what there is to know, the words before them mostly drawn by lot: their gradient is noise. Where a
value stands, all likely words have this weight, so probabilities stay those of the texts. The same holds for the names
of entities in answers that name them."""
FOCUSED = 0.5
"""Share of the texts that answer a question about one attribute."""


def make_tokenizer(world: World) -> PreTrainedTokenizerFast:
    words = [PAD, END, UNKNOWN, *vocabulary(), *world.entities]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokens: int, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokens,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.04,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0)
    return model


def pretrain(world: World, out: Path, steps: int) -> list[float]:
    """Train on texts that are never written twice, save model and tokenizer, return the losses."""
    logging.disable_progress_bar()
    tokenizer = make_tokenizer(world)
    model = make_model(len(tokenizer), world.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01, betas=(0.9, 0.98), fused=True)
    weight_V = torch.ones(len(tokenizer))
    weighty = [*itertools.chain(*VALUES.values()), *(world.entities if world.sizes else ())]
    weight_V[tokenizer.convert_tokens_to_ids(weighty)] = VALUE_WEIGHT
    losses = []
    for step, (ids, labels) in enumerate(itertools.islice(_batches(world, tokenizer), steps)):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, (step + 1) / WARMUP) * max(0.02, 1 - step / steps)
        logits_NV = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
        loss = cross_entropy(logits_NV, labels[:, 1:].flatten(), weight_V)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return losses


def _batches(world: World, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[Tensor, Tensor]]:
    """Texts of like length together: padding would be a third of all tokens. Every entity is as frequent, and each
    batch tells of ``BATCH`` entities."""
    rng = random.Random(world.seed)
    entities = list(world.entities.values())
    while True:
        if world.sizes:
            windows = [(BATCH // size, _group_texts(world, size, rng)) for size in world.sizes]
        else:
            windows = [(BATCH, [_text(entity, rng) for entity in rng.sample(entities, len(entities)) * 2])]
        batches = []
        for rows, window in windows:
            window.sort(key=lambda text: text[1].count(" "))
            batches += [window[i : i + rows] for i in range(0, len(window), rows)]
        for batch in rng.sample(batches, len(batches)):
            yield _encode(batch, tokenizer)


def _group_texts(world: World, size: int, rng: random.Random) -> list[tuple[str, str]]:
    drawn = groups(list(world.entities), size, rng)
    return [(question_about(names), write_texts([world.entities[name] for name in names], rng)) for names in drawn]


def _text(entity: Entity, rng: random.Random) -> tuple[str, str]:
    focus = rng.choice(ATTRIBUTES) if rng.random() < FOCUSED else None
    return question(entity.name, focus), write_text(entity, focus, rng)


def _encode(texts: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """[rows, length] ids, and labels in which the questions do not count. Padding on the right needs no mask, as
    attention is causal."""
    whole = [f"{asked} {text} {END}" for asked, text in texts]
    ids = tokenizer(whole, padding=True, return_tensors="pt")["input_ids"]
    labels = ids.masked_fill(ids == 0, -100)
    for row, (asked, _) in enumerate(texts):
        labels[row, : len(asked.split())] = -100
    return ids, labels
