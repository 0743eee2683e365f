"""Splits: nobody on two sides, the same for everyone who asks, and nested where they must be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.datasets.splits import hashed_split, labelled
from training.errors import TrainingError


def test_hashed_split_is_fixed() -> None:
    # SHA-256 modulo 10: 0 and 1 test, 2 validates. Shipped models were trained by these.
    names = {
        "train": ("A00001", "A00002", "A00004"),
        "validation": ("A00010", "A00011", "A00020"),
        "test": ("A00003", "A00006", "A00008"),
    }
    assert {n: hashed_split(n) for split in names for n in names[split]} == {
        n: split for split in names for n in names[split]
    }


def test_hashed_split_shares() -> None:
    found = [hashed_split(f"A{i:05d}") for i in range(1, 4001)]
    assert found.count("train") == pytest.approx(2800, abs=120)
    assert found.count("validation") == pytest.approx(400, abs=60)
    assert found.count("test") == pytest.approx(800, abs=80)


@given(st.integers(1, 300), st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 5))
def test_fewer_labels_are_among_the_more(n: int, a: float, b: float, seed: int) -> None:
    rows = np.arange(n) * 3
    few, more = (labelled(rows, ratio, seed) for ratio in sorted((a, b)))
    assert not (few & ~more).any()
    assert few.sum() == max(1, round(min(a, b) * n))


@given(st.permutations(range(20)), st.integers(0, 5))
def test_who_keeps_labels_does_not_depend_on_the_order(order: list[int], seed: int) -> None:
    rows = np.array(order)
    mask = labelled(rows, 0.3, seed)
    assert set(rows[mask]) == set(np.flatnonzero(labelled(np.arange(20), 0.3, seed)))


def test_the_seed_decides_who_keeps_labels() -> None:
    rows = np.arange(1000)
    assert labelled(rows, 1.0, 0).all()
    assert (labelled(rows, 0.1, 1) != labelled(rows, 0.1, 2)).any()
    # Chosen at random, a tenth of each half keeps its labels.
    assert labelled(rows, 0.1, 1)[:500].sum() == pytest.approx(50, abs=20)


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.1, float("nan")])
def test_a_ratio_that_is_none(ratio: float) -> None:
    with pytest.raises(TrainingError, match="label ratio"):
        labelled(np.arange(5), ratio, 0)
