"""Region mixing, the same box of all signals and labels by its area; limb leads from two."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.mixing import region_mix  # noqa: E402
from training.shards import twelve_leads  # noqa: E402


def test_limb_leads_follow_einthoven_and_goldberger() -> None:
    eight = np.arange(8, dtype=float)[:, None] + np.array([[10.0, 20.0]])
    leads = twelve_leads(eight)
    one, two = eight[0], eight[1]
    assert np.allclose(leads[2], two - one)
    assert np.allclose(leads[3:6].sum(axis=0), 0)
    assert np.allclose(leads[6:], eight[2:])


def test_the_same_box_is_cut_from_both_signals_and_the_labels_follow_its_area() -> None:
    generator = torch.Generator().manual_seed(3)
    mix = region_mix(torch.zeros(40, dtype=torch.int64), 12, 100, generator)
    number = torch.arange(40.0)[:, None, None].expand(40, 12, 100)
    mixed, other = mix.signals(number), mix.signals(number + 1000)
    assert torch.equal(other, mixed + 1000), "real and restored leads get the same box"
    labels = mix.labels(torch.eye(40))
    for n in range(40):
        taken = (mixed[n] != n).float().mean().item()
        if int(mix.partner[n]) != n:
            assert labels[n, int(mix.partner[n])] == pytest.approx(taken)
            assert labels[n, n] == pytest.approx(1 - taken)
    inside = mix.inside
    rows, columns = inside.any(2), inside.any(1)
    assert torch.equal(inside, rows[:, :, None] & columns[:, None, :]), "a box, not a scatter"
    share = inside.float().mean(dim=(1, 2))
    assert 0.15 < share.mean() < 0.5
    assert share.max() > 0.6


def test_records_are_mixed_within_their_data_set_only() -> None:
    groups = torch.tensor([0, 1] * 10)
    mix = region_mix(groups, 12, 100, torch.Generator().manual_seed(1))
    assert torch.equal(groups[mix.partner], groups)
    assert sorted(mix.partner.tolist()) == list(range(20))


def test_a_mixed_label_is_known_where_both_are() -> None:
    mix = region_mix(torch.zeros(4, dtype=torch.int64), 12, 50, torch.Generator().manual_seed(2))
    known = torch.tensor([[1.0], [1.0], [0.0], [1.0]])
    expected = [known[i] * known[int(p)] for i, p in enumerate(mix.partner)]
    assert torch.equal(mix.known(known), torch.stack(expected))
