"""Many texts in little memory are as a tuple of them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.sets.texts import Texts


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))), st.slices(8))
def test_as_a_tuple_of_them(words, part):
    texts = Texts(words)
    assert (list(texts), len(texts)) == (words, len(words))
    assert list(texts[part]) == words[part]
    assert [texts[-n] for n in range(1, len(words) + 1)] == words[::-1]
    for beyond in (len(words), -len(words) - 1):
        with pytest.raises(IndexError):
            texts[beyond]


def test_little_memory_also_on_the_way_to_a_worker():
    words = [f"city/{number:06d}" for number in range(20_000)]
    assert len(pickle.dumps(Texts(words))) < len(words) * (11 + 8) + 1000
