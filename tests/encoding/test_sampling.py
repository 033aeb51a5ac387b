"""Which inferences are in the sample: a part, always the same, that any service can work out."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from arthur_relay.encoding.sampling import is_sampled, split_sample
from arthur_relay.inference import Capture, CapturedInference, Inference, Run
from tests.encoding.runs import make_run

RATES = st.floats(0.0, 1.0)


def captured(inference_id: Any) -> CapturedInference:
    return CapturedInference(Inference(input_text="", output_text=""), inference_id, "m", 0.0)


@given(st.text(), RATES)
def test_the_id_alone_decides_by_the_formula_that_is_documented(
    inference_id: str, rate: float
) -> None:
    digest = hashlib.sha256(inference_id.encode()).hexdigest()
    expected = int(digest[:16], 16) < rate * 2.0**64
    assert is_sampled(inference_id, rate) is expected
    assert is_sampled(inference_id, rate) is expected


def test_ids_whose_decision_other_services_can_check() -> None:
    # printf %s abc | sha256sum begins with ba7816bf8f01cfea, which is 0.7284 of 2**64.
    assert not is_sampled("abc", 0.728)
    assert is_sampled("abc", 0.729)
    assert is_sampled("01a2045c-a970-7254-95c8-6185761cc1f4", 0.0091)
    assert not is_sampled("01a2045c-a970-7254-95c8-6185761cc1f4", 0.009)


@given(st.text(st.characters()), RATES, RATES)
def test_a_higher_rate_takes_nothing_away(inference_id: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert is_sampled(inference_id, low) <= is_sampled(inference_id, high)
    assert not is_sampled(inference_id, 0.0)
    assert is_sampled(inference_id, 1.0)


@given(RATES, st.integers(0, 2**64))
def test_the_part_is_near_the_rate(rate: float, seed: int) -> None:
    ids = [str(UUID(int=seed * 2**32 + n)) for n in range(2000)]
    part = sum(is_sampled(each, rate) for each in ids) / len(ids)
    # Six standard deviations of a fair draw: once in a thousand million draws it is off by more.
    assert abs(part - rate) <= 6 * (rate * (1 - rate) / len(ids)) ** 0.5 + 1 / len(ids)


def test_a_run_is_in_or_out_with_all_its_rows() -> None:
    runs: list[Capture] = []
    for number in range(100):
        run = make_run(run_id=UUID(int=number))
        run.rows = 3
        runs.append(run)
    kept, others = split_sample(runs, 0.4)
    assert 0 < len(kept) < 100
    assert others == 3 * (100 - len(kept))
    assert [run for run in runs if run in kept] == kept
    ids: list[Capture] = [captured(str(UUID(int=number))) for number in range(100)]
    same, _ = split_sample(ids, 0.4)
    assert [str(run.run_id) for run in kept if isinstance(run, Run)] == [
        each.id for each in same if isinstance(each, CapturedInference)
    ]
    assert len(kept) == len(same)


def test_an_id_that_is_no_text_is_nobodys_end() -> None:
    odd: list[Capture] = [captured(5), captured(None), captured(b"x")]
    assert len(split_sample(odd, 1.0)[0]) == 3
    assert split_sample(odd, 0.0) == ([], 3)
