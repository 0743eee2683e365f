"""Classifier re-training: what a label counts, and which layers learn."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from toy_runs import CLASSES, restoring, train_yaml  # noqa: E402

from training.balance import weights_of_labels  # noqa: E402
from training.config import parse_config  # noqa: E402
from training.datasets.cache import Cache  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.fit import read_weights  # noqa: E402
from training.pool import Pool  # noqa: E402


@pytest.fixture
def pool(toy: Path) -> Pool:
    """One record in three has each class."""
    return Pool([(Cache(toy), None)], CLASSES)


def test_labels_count_alike_without_a_power(pool: Pool) -> None:
    assert torch.equal(
        weights_of_labels(pool, np.ones(len(pool), bool), 0), torch.ones(2, len(CLASSES))
    )


def test_with_a_power_of_one_both_sides_weigh_alike_and_no_class_more_than_before(
    pool: Pool,
) -> None:
    # 40 negatives to 20 positives: a positive counts twice a negative, 40 x 0.75 = 20 x 1.5 = 30.
    weights = weights_of_labels(pool, np.ones(len(pool), bool), 1)
    torch.testing.assert_close(weights, torch.tensor([[0.75] * 3, [1.5] * 3]))


def test_only_labels_that_are_used_and_known_are_counted(pool: Pool) -> None:
    # Of every other record 10 have the class and 20 have not; of 5 of these nobody knows.
    used = np.arange(len(pool)) % 2 == 0
    without = np.flatnonzero(used & (pool.labels[:, 0] == 0))
    pool.known[without[:5], 0] = 0
    negative, positive = weights_of_labels(pool, used, 1)[:, 0].tolist()
    assert positive / negative == pytest.approx(15 / 10)
    assert 15 * negative == pytest.approx(10 * positive) == pytest.approx(25 / 2)


def test_only_the_last_two_layers_learn(toy: Path, trained: Path, tmp_path: Path) -> None:
    config = restoring(tmp_path, toy, trained / "restoration")
    train_yaml(config, tmp_path / "first")
    again = {"start": str(tmp_path / "first"), "rebalance": 0.5}
    train_yaml(config, tmp_path / "again", **again)
    before, after = (read_weights(tmp_path / run) for run in ("first", "again"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # The running means and variances of normalization stay as well.
    assert changed == {"hidden.weight", "hidden.bias", "out.weight", "out.bias"}


@pytest.mark.parametrize("change", [{}, {"start": "somewhere", "size": "resnet1d"}])
def test_there_must_be_something_to_retrain(tmp_path: Path, change: dict[str, str]) -> None:
    given = {"network": "student", "data": [{"cache": str(tmp_path)}], "rebalance": 0.5, **change}
    with pytest.raises(TrainingError, match="rebalance: needs start, and a size of"):
        parse_config(given, "run.yaml")
