"""The probability of a choice, against all the ways to spell it counted out by hand."""

import math

import pytest

from maskdpo.backends.probability import ScoredToken, choice_probabilities


def choice_probability(
    tokens: list[ScoredToken], options: list[bytes], chosen: bytes, *, head: int | None = None
) -> float | None:
    return choice_probabilities(tokens, options, chosen, head=head).get(chosen)


def step(text: str, **top: float) -> ScoredToken:
    """A token with the probabilities at its place; its own is among them."""
    shares = {name.encode(): math.log(share) for name, share in top.items()}
    return ScoredToken(text.encode(), shares[text.encode()], shares)


def test_one_token_a_choice() -> None:
    options = [b"yes", b"no", b"maybe"]
    tokens = [step("yes", yes=0.3, no=0.1, maybe=0.2, other=0.4)]
    assert choice_probability(tokens, options, b"yes") == pytest.approx(0.5)


def test_choices_that_part_late_multiply() -> None:
    options = [b"no_fact", b"no_hallucination", b"wrong"]
    tokens = [step("no", no=0.6, wrong=0.2), step("_", _=1.0), step("fact", fact=0.25, hall=0.75)]
    assert choice_probability(tokens, options, b"no_fact") == pytest.approx(0.75 * 0.25)


def test_the_other_choices_get_what_leads_to_them_alone() -> None:
    options = [b"no_fact", b"no_hallucination", b"wrong"]
    tokens = [step("no", no=0.6, wrong=0.2), step("_", _=1.0), step("fact", fact=0.25, hall=0.75)]
    found = choice_probabilities(tokens, options, b"no_fact")
    assert found == pytest.approx({b"no_fact": 0.75 * 0.25, b"no_hallucination": 0.75 * 0.75, b"wrong": 0.25})
    assert sum(found.values()) == pytest.approx(1)
    tokens = [step("wrong", no=0.6, wrong=0.4)]  # "no" begins two choices
    assert choice_probabilities(tokens, options, b"wrong") == pytest.approx({b"wrong": 0.4})


def test_several_tokens_that_begin_only_the_chosen_one_count_together() -> None:
    tokens = [step("y", y=0.2, yes=0.4, no=0.4), step("es", es=0.9, ou=0.1)]
    assert choice_probability(tokens, [b"yes", b"no"], b"yes") == pytest.approx(0.6)


def test_the_same_choice_in_tokens_that_part_at_another_place_is_doubtful() -> None:
    options = [b"no_fact", b"no_hallucination"]
    tokens = [step("no_", no_=0.6, no_f=0.4), step("fact", fact=0.5, hall=0.5)]
    assert choice_probability(tokens, options, b"no_fact") is None


def test_a_shared_beginning_in_other_tokens_is_doubtful() -> None:
    """What follows ``n`` + ``o`` need not be as likely as what follows ``no``: seen with a real model."""
    options = [b"no_fact", b"no_hallucination"]
    tokens = [step("no", no=0.6, n=0.4), step("_fact", _fact=0.5, _hall=0.5)]
    assert choice_probability(tokens, options, b"no_fact") is None
    tokens = [step("no", no=0.99, n=0.01), step("_fact", _fact=0.5, _hall=0.5)]
    assert choice_probability(tokens, options, b"no_fact") == pytest.approx(0.5, abs=0.01)


def test_the_head_may_be_spelt_in_several_ways() -> None:
    options = [b'{"v":"y"', b'{"v":"n"']
    tokens = [
        step('{"', **{'{"': 0.6, "{": 0.4}),
        step('v":"', **{'v":"': 1.0}),
        step('y"}', **{'y"}': 0.7, "n": 0.3}),
    ]
    assert choice_probability(tokens, options, options[0], head=6) == pytest.approx(0.7)
    assert choice_probability(tokens, options, options[0], head=0) is None


def test_a_choice_missing_among_the_reported_tokens() -> None:
    rest = {"a": 0.3, "b": 0.2}
    assert choice_probability([step("yes", yes=0.5, **rest)], [b"yes", b"no"], b"yes") == pytest.approx(1.0)
    assert choice_probability([step("yes", yes=0.4, **rest)], [b"yes", b"no"], b"yes") is None
    sure = step("yes", yes=0.4, b=0.3, a=0.001)  # the missing one is no likelier than the least reported
    assert choice_probability([sure], [b"yes", b"no"], b"yes") == pytest.approx(1.0)


def test_a_drawn_token_below_the_reported_ones_does_not_vouch_for_the_missing_ones() -> None:
    token = ScoredToken(b"yes", math.log(1e-6), {b"a": math.log(0.5), b"b": math.log(0.4)})
    assert choice_probability([token], [b"yes", b"no"], b"yes") is None


def test_without_alternatives_only_near_certainty_tells() -> None:
    assert choice_probability([ScoredToken(b"yes", math.log(0.7))], [b"yes", b"no"], b"yes") is None
    assert choice_probability([ScoredToken(b"yes", math.log(0.999))], [b"yes", b"no"], b"yes") == pytest.approx(1)
    assert choice_probability([], [b"yes", b"no"], b"yes") is None


def test_a_choice_that_begins_another_is_settled_by_its_delimiter_only() -> None:
    assert choice_probability([step("no", no=0.5, yes=0.5)], [b"yes", b"no", b"not"], b"no") is None
    tokens = [step("no", no=0.5, yes=0.5), step('"}', **{'"}': 0.8, "t": 0.2})]
    assert choice_probability(tokens, [b'yes"', b'no"', b'not"'], b'no"', head=0) == pytest.approx(0.4)


def test_a_longer_word_is_not_a_choice() -> None:
    tokens = [step("yes", yes=0.4, yesterday=0.4, no=0.1)]
    assert choice_probability(tokens, [b"yes", b"no"], b"yes") == pytest.approx(0.8)


def test_tokens_that_do_not_spell_the_choice() -> None:
    assert choice_probability([step("no", no=0.5, yes=0.5)], [b"yes", b"no"], b"yes") is None
    assert choice_probability([step("y", y=0.5, n=0.5)], [b"yes", b"you", b"no"], b"yes") is None


def test_characters_split_over_tokens() -> None:
    right, wrong = "对".encode(), "错".encode()
    top = {right[:1]: math.log(0.7), wrong[:1]: math.log(0.2)}
    assert right[:1] != wrong[:1]
    tokens = [ScoredToken(right[:1], math.log(0.7), top), ScoredToken(right[1:], 0.0, {right[1:]: 0.0})]
    assert choice_probability(tokens, [right, wrong], right) == pytest.approx(0.7 / 0.9)


@pytest.mark.parametrize("logprob", [-math.inf, math.nan, -9999.0])
def test_useless_numbers(logprob: float) -> None:
    token = ScoredToken(b"yes", logprob, {b"no": logprob})
    assert choice_probability([token], [b"yes", b"no"], b"yes") is None
