"""Shapes, sizes and gradients of MVKT's backbones."""

import pytest

torch = pytest.importorskip("torch")

from training.backbones import BACKBONES, build  # noqa: E402
from training.errors import TrainingError  # noqa: E402

# Convolutions (no biases), 2 a channel for each batch norm, and the linear layer; from 12 leads to
# 5 classes.
COUNTS = {
    # Block 1: 128 (12·8 + 128·5 + 128·3) + 3·256 + shortcut 12·128 + 256.   145,920
    # Blocks 2, 3: 128² (8 + 5 + 3) + 3·256 + shortcut 128² + 256.           279,552 each
    # Linear: 129·5.                                                             645
    "resnet1d": 145_920 + 2 * 279_552 + 645,
    # Stem: 12·64·7 + 128 = 5,504. A block of width w after one of width v: 3 w (v + w) + 4 w, and
    # w v + 2 w more where v is not w.
    #  64: 3 · 24,832                     =    74,496
    # 128: 82,688 + 3 · 98,816            =   379,136  (73,728 + 512 + 8,192 + 256 = 82,688)
    # 256: 329,216 + 5 · 394,240          = 2,300,416  (294,912 + 1,024 + 32,768 + 512 = 329,216)
    # 512: 1,313,792 + 2 · 1,574,912      = 4,463,616  (1,179,648 + 2,048 + 131,072 + 1,024)
    # Linear: 513·5 = 2,565.
    "resnet1d34": 5_504 + 74_496 + 379_136 + 2_300_416 + 4_463_616 + 2_565,
}


def parameters(net: "torch.nn.Module") -> int:
    return sum(p.numel() for p in net.parameters())


def bottlenecks(width: int, inputs: int, blocks: int) -> int:
    """A stage of xresnet: 1x1 to ``width``, 5 of ``width``, 1x1 to 4 ``width``; 12 w of norms.

    The first block's shortcut is a 1x1 convolution and its norm.
    """
    first = inputs * width + 5 * width**2 + 4 * width**2 + 12 * width
    other = 4 * width**2 + 5 * width**2 + 4 * width**2 + 12 * width
    return first + inputs * 4 * width + 8 * width + (blocks - 1) * other


@pytest.mark.parametrize("name", ["resnet1d", "resnet1d34"])
def test_resnet_counts(name: str) -> None:
    assert parameters(build(name, 12, 5)) == COUNTS[name]


@pytest.mark.parametrize(("name", "third"), [("xresnet1d50", 6), ("xresnet1d101", 23)])
def test_xresnet_counts(name: str, third: int) -> None:
    stem = 12 * 32 * 5 + 64 + 32 * 32 * 5 + 64 + 32 * 64 * 5 + 128
    stages = (
        bottlenecks(64, 64, 3)
        + bottlenecks(128, 256, 4)
        + bottlenecks(256, 512, third)
        + bottlenecks(512, 1024, 3)
    )
    assert parameters(build(name, 12, 5)) == stem + stages + 4097 * 5


@pytest.mark.parametrize(
    ("name", "width"),
    [("resnet1d", 128), ("resnet1d34", 512), ("xresnet1d50", 4096), ("xresnet1d101", 4096)],
)
def test_features_and_logits(name: str, width: int) -> None:
    """Widths as MVKT-ECG gives them (section 3.5; the preprint's for xresnet1d101)."""
    net = build(name, 12, 7).eval()
    x = torch.randn(2, 12, 333)
    features = net.features(x)
    assert net.width == width
    assert features.shape == (2, width)
    assert net.classify(features).shape == (2, 7)
    torch.testing.assert_close(net(x), net.classify(features))


@pytest.mark.parametrize("name", BACKBONES)
def test_gradient_reaches_every_parameter(name: str) -> None:
    net = build(name, 1, 3).train()
    for module in net.modules():
        # Those that start at 0 hold back the gradient of what lies behind them, by design.
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.ones_(module.weight)
    net(torch.randn(2, 1, 200)).square().sum().backward()
    still = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize("name", BACKBONES)
def test_a_trained_net_judges_each_record_by_itself(name: str) -> None:
    net = build(name, 12, 3)
    x = torch.randn(2, 12, 200)
    with torch.no_grad():
        together = net.train()(x)
        assert not torch.allclose(together[:1], net.eval()(x[:1]), atol=1e-4)
        torch.testing.assert_close(net(x)[:1], net(x[:1]), atol=1e-4, rtol=1e-4)


def test_a_block_of_xresnet_starts_as_its_shortcut() -> None:
    """Zero gamma (He et al. 2019, section 3.1)."""
    net = build("xresnet1d50", 12, 3)
    block = net.convolutions[8]
    x = torch.randn(2, 256, 10)
    torch.testing.assert_close(block(x), torch.relu(x))


def test_an_unknown_name_is_refused_in_one_line() -> None:
    with pytest.raises(TrainingError, match=r"^backbone: 'vgg' .*resnet1d, .*xresnet1d101$"):
        build("vgg", 12, 5)
