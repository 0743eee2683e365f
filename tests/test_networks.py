"""Sizes and shapes of the networks."""

import pytest

torch = pytest.importorskip("torch")

from models.classifier import SIZES, ConvTransformer  # noqa: E402
from models.restoration import WIDTHS, RestorationNet  # noqa: E402
from models.system import LeadOneSystem  # noqa: E402


def millions(net: "torch.nn.Module") -> float:
    return sum(p.numel() for p in net.parameters()) / 1e6


@pytest.mark.parametrize(
    ("size", "expected", "digits"),
    [("teacher", 50.50, 2), ("base", 1.60, 2), ("small", 1.02, 2), ("tiny", 0.258, 3)],
)
def test_classifier_has_the_published_count(size: str, expected: float, digits: int) -> None:
    """At twelve leads and 38 classes; LiteHeart section 4.5."""
    assert round(millions(ConvTransformer(SIZES[size], 12, 38)), digits) == expected


@pytest.mark.parametrize(("size", "expected"), [("tiny", 0.36), ("small", 1.43), ("base", 5.71)])
def test_restoration_has_the_published_count(size: str, expected: float) -> None:
    assert round(millions(RestorationNet(WIDTHS[size])), 2) == expected


def test_shapes() -> None:
    system = LeadOneSystem("tiny", "tiny", 7).eval()
    leads, logits, probabilities = system(torch.randn(3, 1, 1000))
    assert leads.shape == (3, 12, 1000)
    assert logits.shape == probabilities.shape == (3, 7)


def test_the_paper_s_rate_and_strides_work_too() -> None:
    net = ConvTransformer(SIZES["tiny"], 12, 38, strides=(4, 4, 4)).eval()
    assert net(torch.randn(1, 12, 5000)).shape == (1, 38)


def test_the_measured_lead_passes_unchanged() -> None:
    x = torch.randn(2, 1, 1000)
    leads = LeadOneSystem("tiny", "tiny", 3).eval().restore(x)
    assert torch.equal(leads[:, :1], x)


def test_calibration_is_a_sigmoid_of_a_scaled_logit() -> None:
    system = LeadOneSystem("tiny", "tiny", 2).eval()
    system.slope.copy_(torch.tensor([2.0, 0.5]))
    system.offset.copy_(torch.tensor([-1.0, 3.0]))
    _, logits, probabilities = system(torch.randn(4, 1, 1000))
    expected = 1 / (1 + torch.exp(-(logits * torch.tensor([2.0, 0.5]) + torch.tensor([-1.0, 3.0]))))
    assert torch.allclose(probabilities, expected, atol=1e-6)
