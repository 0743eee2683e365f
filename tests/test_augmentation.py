"""What happens to lead I in training: beats resampled, electrodes and clocks that fail, noise."""

from collections.abc import Sequence

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.augment import augment, zscore  # noqa: E402
from training.faults import distort  # noqa: E402
from training.resampling import r_peaks, resample_beats  # noqa: E402


def beating(lengths: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
    """A lead [1, 1, time] with R peaks so far apart, P and T waves between; and their places."""
    places = np.cumsum([60, *lengths]).tolist()
    t = np.arange(1000)
    x = np.zeros(1000)
    for r in places:
        for after, height, width in ((0, 5.0, 1.5), (-16, 0.4, 3.0), (28, 0.8, 5.0)):
            x += height * np.exp(-0.5 * ((t - r - after) / width) ** 2)
    return torch.from_numpy(x.astype(np.float32))[None, None], places


@pytest.mark.parametrize("sign", [1, -1])
def test_resampled_beats_keep_their_r_peaks_and_the_ends(sign: int) -> None:
    lead, places = beating([80, 110, 70, 130, 90, 100, 85, 95])
    lead = lead * sign
    assert r_peaks(lead[0, 0].numpy()).tolist() == places
    made = resample_beats(lead, torch.Generator().manual_seed(1), share=1.0)
    assert torch.equal(made[..., : places[0]], lead[..., : places[0]])
    assert torch.equal(made[..., places[-1] :], lead[..., places[-1] :])
    assert torch.allclose(made[0, 0, places], lead[0, 0, places], atol=1e-5)
    # T waves move, by no more than a quarter of what a beat of 0.7 to 1.3 s can be bent.
    moved = [abs(int((sign * made[0, 0, r + 12 : r + 45]).argmax()) - 16) for r in places[:-1]]
    assert 0 < max(moved) <= 4
    assert not torch.equal(made, lead)


def test_resampling_leaves_what_has_no_beats_and_is_seeded() -> None:
    flat = torch.zeros(4, 1, 1000)
    assert torch.equal(resample_beats(flat, torch.Generator().manual_seed(1), share=1.0), flat)
    lead, _ = beating([80] * 10)
    lead = lead.expand(200, -1, -1)
    one, two = (resample_beats(lead, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, two)
    assert 60 < (one != lead).flatten(1).any(dim=1).sum() < 140, "half of them"


def test_a_clock_that_is_wrong_moves_beats_apart() -> None:
    lead, places = beating([80] * 9)
    for seed in range(20):
        made = distort(lead, torch.Generator().manual_seed(seed))
        found = r_peaks(made[0, 0].numpy())
        spacing = np.diff(found)
        kept = spacing[spacing < 120]  # none over a stretch without a signal
        assert 80 * 0.965 <= np.median(kept) <= 80 * 1.035
    assert len(places) == 10


def test_electrodes_and_clocks_fail_as_often_as_is_said() -> None:
    lead, _ = beating([80] * 9)
    many = (lead + 1).expand(2000, -1, -1)
    made = distort(many, torch.Generator().manual_seed(1))
    assert torch.equal(made, distort(many, torch.Generator().manual_seed(1)))
    zero = made[:, 0] == 0
    off = zero.any(1)
    assert off.float().mean().item() == pytest.approx(0.15, abs=0.03)
    lengths = zero[off].sum(1)
    assert int(lengths.min()) >= 29
    assert int(lengths.max()) <= 201
    assert all((torch.diff(z.int()).abs().sum() <= 2) for z in zero[off][:50]), "one stretch"
    kept = (made[:, 0, -1] == many[:, 0, -1]).float().mean().item()
    assert kept == pytest.approx(0.7, abs=0.1), "the height changes in three of ten"


def test_augmentation_is_seeded_and_keeps_the_scale() -> None:
    x = zscore(torch.randn(16, 1, 1000, generator=torch.Generator().manual_seed(0)))
    once = augment(x, torch.Generator().manual_seed(5))
    again = augment(x, torch.Generator().manual_seed(5))
    other = augment(x, torch.Generator().manual_seed(6))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    present = [row[row != 0] for row in once[:, 0]]
    assert all(abs(float(row.std()) - 1) < 0.05 for row in present)


def test_only_the_records_named_are_turned_round() -> None:
    x = torch.zeros(200, 1, 1000)
    x[:, :, ::100] = 30.0
    x = zscore(x + 0.01)
    turned = augment(x, torch.Generator().manual_seed(1), flip=torch.arange(200) < 100)
    upright = (turned.amax(-1) > -turned.amin(-1)).float()[:, 0]
    assert 0.3 < upright[:100].mean() < 0.7
    assert upright[100:].mean() > 0.9
