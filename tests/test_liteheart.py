"""LiteHeart's terms: region-aware distillation and the mutual information of its discriminator."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.losses import Outputs, Shape, Targets  # noqa: E402
from training.losses.base import flipped  # noqa: E402
from training.losses.liteheart import Discriminator, LiteHeart, LiteHeartOne  # noqa: E402


@pytest.mark.parametrize("n", [2, 3, 4, 5, 128, 129])
def test_no_sample_is_its_own_negative(n: int) -> None:
    partner = flipped(n)
    assert (partner != torch.arange(n)).all()
    assert partner[0] == n - 1, "sample N - n (equation 18)"


def test_region_distillation_worked_by_hand() -> None:
    # tau 2, teacher logit 2 ln 3 -> p = 3/4; student logit 0 -> 1/2: the cross-entropy is ln 2, and
    # tau squared makes it 4 ln 2. The unknown second class must not count.
    method = LiteHeartOne(Shape(student=4, teacher=4, classes=2, records=1), alpha=1, tau=2)
    student = Outputs(torch.tensor([[0.0, 5.0]]), torch.zeros(1, 4))
    teacher = Outputs(torch.tensor([[2 * np.log(3), -5.0]]), torch.zeros(1, 4))
    known = torch.tensor([[1.0, 0.0]])
    loss = method(student, teacher, Targets(torch.zeros(1, 2), known, torch.zeros(1)))
    assert loss.item() == pytest.approx(4 * np.log(2), rel=1e-5)


def test_liteheart_weighs_its_two_terms() -> None:
    shape = Shape(4, 6, 3, 8)
    generator = torch.Generator().manual_seed(1)
    ours, theirs = (
        Outputs(*(torch.randn(8, width, generator=generator) for width in (3, features)))
        for features in (4, 6)
    )
    targets = Targets(torch.zeros(8, 3), torch.ones(8, 3), torch.arange(8))
    method = LiteHeart(shape, alpha=0.7, beta=0.3, tau=2.0)
    assert method.discriminator is not None
    mutual = method.discriminator.loss(ours.features, theirs.logits)
    regions = LiteHeartOne(shape, alpha=1.0, tau=2.0)(ours, theirs, targets)
    assert mutual.item() > 0.1
    torch.testing.assert_close(method(ours, theirs, targets), 0.7 * regions + 0.3 * mutual)


def test_an_undecided_discriminator_loses_two_ln_two() -> None:
    net = Discriminator(8, 3)
    torch.nn.init.zeros_(net.out.weight)
    torch.nn.init.zeros_(net.out.bias)
    loss = net.loss(torch.randn(6, 8), torch.randn(6, 3))
    assert loss.item() == pytest.approx(2 * np.log(2), rel=1e-5)


def test_the_discriminator_tells_related_pairs_from_independent_ones() -> None:
    torch.manual_seed(0)
    outputs = torch.randn(256, 3)
    losses = {}
    for name, features in (("related", outputs @ torch.randn(3, 8)), ("not", torch.randn(256, 8))):
        net = Discriminator(8, 3)
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(150):
            rows = torch.randperm(256)[:128]
            loss = net.loss(features[rows], outputs[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[name] = loss.item()
    assert losses["related"] < 0.8 * losses["not"]
