"""The probability of each of several texts under constrained decoding: at every point where they part, the model's
probabilities of the next tokens that some of them allows, renormalised; the product along the way.
"""

from collections.abc import Iterator, Sequence

from transformers import PreTrainedModel

from maskdpo.backends.decode import next_logits

TOKENS_PER_PASS = 8192
"""Judge prompts carry whole references: rows are limited by their tokens too, so that memory stays bounded."""

_Node = tuple[int, tuple[int, ...], list[int]]
"""A request, a prefix of token ids, and the choices of that request that begin with it."""

Choices = Sequence[Sequence[int]]
"""The token ids of a request's choices; none is the beginning of another."""


def choice_probabilities(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Choices],
    batch_size: int,
    pad_id: int,
) -> list[list[float]]:
    """For every prompt the probabilities of its choices; they sum to 1.

    Costs one forward pass over the prompts for each level at which choices still have to be told apart: a single one
    where their first tokens differ.
    """
    shares = [[1.0] * len(options) for options in choices]
    open_nodes: list[_Node] = [(i, (), list(range(len(options)))) for i, options in enumerate(choices)]
    while nodes := [branch for node in open_nodes if (branch := _next_branch(node, choices))]:
        open_nodes = []
        for group in _passes(nodes, prompts, batch_size):
            logits_RV = next_logits(model, [[*prompts[i], *prefix] for i, prefix, _ in group], pad_id)
            for (i, prefix, members), logits_V in zip(group, logits_RV, strict=True):
                tokens = sorted({choices[i][m][len(prefix)] for m in members})
                for token, share in zip(tokens, logits_V[tokens].softmax(0).tolist(), strict=True):
                    followers = [m for m in members if choices[i][m][len(prefix)] == token]
                    for m in followers:
                        shares[i][m] *= share
                    open_nodes.append((i, (*prefix, token), followers))
    return shares


def _passes(nodes: Sequence[_Node], prompts: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[_Node]]:
    """Group nodes for one forward pass each: at most ``batch_size`` rows, and rows x longest within the budget."""
    group: list[_Node] = []
    longest = 0
    for node in nodes:
        length = max(longest, len(prompts[node[0]]) + len(node[1]))
        if group and (len(group) == batch_size or length * (len(group) + 1) > TOKENS_PER_PASS):
            yield group
            group, length = [], len(prompts[node[0]]) + len(node[1])
        group.append(node)
        longest = length
    if group:
        yield group


def _next_branch(node: _Node, choices: Sequence[Choices]) -> _Node | None:
    """Follow the only possible token until the choices part; None where a single one is left."""
    i, prefix, members = node
    while len(members) > 1:
        tokens = {choices[i][m][len(prefix)] for m in members}
        if len(tokens) > 1:
            return i, prefix, members
        prefix = (*prefix, *tokens)
    return None
