"""The texts: long enough, seeded, no two alike, and as hard to compress as prose."""

from __future__ import annotations

import lzma
import zlib

import pytest

from tests.benchmarks import texts
from tests.benchmarks.inferences import documents, pair


@pytest.mark.parametrize("characters", [1, 100, 2048, 20_000])
def test_a_text_has_the_length_that_was_asked_for(characters: int) -> None:
    assert len(texts.text(7, characters)) == characters


def test_a_seed_is_a_text() -> None:
    assert texts.text(1, 500) == texts.text(1, 500)
    assert len({texts.text(seed, 500) for seed in range(500)}) == 500


def test_texts_compress_like_prose_and_not_like_repetition() -> None:
    sample = "".join(texts.text(seed, 2048) for seed in range(512)).encode()
    assert 2.2 < len(sample) / len(zlib.compress(sample)) < 3.0
    # With a megabyte to remember, it still finds next to nothing again.
    assert len(sample) / len(lzma.compress(sample, preset=1)) < 3.5


def test_tokens_are_words_with_their_space() -> None:
    found = texts.tokens(3, 200)
    assert len(found) == 200
    assert all(token.endswith(" ") and token.strip() for token in found)


def test_a_record_is_two_kilobytes_under_an_id_of_its_own() -> None:
    prompt, answer = pair(5)
    assert len(prompt) + len(answer) == 2048
    ids = {document["partner_inference_id"] for document in documents(5_000)}
    assert len(ids) == 5_000
