"""Restoration, masking and contrast: what is learnt before any label."""

import json
import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from toy_runs import train_yaml, write_yaml  # noqa: E402

from models.leads import LEADS  # noqa: E402
from models.restoration import WIDTHS, RestorationNet  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.networks import load_restoration  # noqa: E402
from training.results import evaluate  # noqa: E402
from training.stages.contrast import contrastive, glimpse  # noqa: E402
from training.stages.masked import withheld  # noqa: E402


def test_leads_are_restored_from_data_without_a_label(toy: Path, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "r.yaml", toy, network="restoration", classes=["no such label"])
    train_yaml(config, tmp_path / "run")
    assert (tmp_path / "run/best.pt").exists()


def test_one_net_restores_from_any_lead(toy: Path, tmp_path: Path) -> None:
    config = write_yaml(
        tmp_path / "r.yaml",
        toy,
        network="restoration",
        lead="any",
        augment=True,
        schedule={"steps": 60, "batch": 8, "validate_every": 20, "learning_rate": 3e-3},
    )
    best = train_yaml(config, tmp_path / "run")
    assert best["mse"] < 0.5, "the leads are z-scored: a flat line has 1"
    sources = evaluate(tmp_path / "run")["sources"]
    assert [s["source"] for s in sources] == list(LEADS)
    assert all(s["mse"] < 0.5 for s in sources)
    # What reads the other leads is left out of the net of one lead, and nothing is lost by that.
    whole = RestorationNet(WIDTHS["tiny"], 12).eval()
    whole.load_state_dict(torch.load(tmp_path / "run/best.pt", weights_only=True))
    given = torch.zeros(2, 12, 1000)
    given[:, LEADS.index("V2")] = torch.randn(2, 1000, generator=torch.Generator().manual_seed(1))
    one = load_restoration(tmp_path / "run", "V2")
    measured = given[:, LEADS.index("V2")][:, None]
    assert torch.allclose(one(measured), whole(given), atol=1e-5)
    with pytest.raises(
        TrainingError, match="restores from any lead; --teacher judges a net of one"
    ):
        evaluate(tmp_path / "run", tmp_path)


def test_what_is_withheld_is_whole_leads_and_whole_stretches() -> None:
    hidden = withheld(400, 1000, 64, torch.Generator().manual_seed(3))
    assert hidden.shape == (400, 12, 1000)
    whole = hidden.all(dim=2)
    assert not whole.all(dim=1).any(), "a lead is always shown"
    assert 60 < (whole.sum(dim=1) == 11).sum() < 140, "of a quarter one lead alone"
    # What is left of a lead that is shown is cut at the borders of tokens, alike in every lead.
    for record, leads in zip(hidden, whole, strict=True):
        shown = record[~leads]
        assert (shown == shown[0]).all()
        stretches = torch.nn.functional.pad(shown[0], (0, 24), value=False).reshape(16, 64)[:15]
        assert (stretches == stretches[:, :1]).all()
    assert 0.35 < hidden[~whole].float().mean() < 0.45


# 1 is the error of saying nothing of leads that are z-scored, log(23) the loss of guessing which of
# the 23 other views of twelve records is the partner.
@pytest.mark.parametrize(
    ("network", "bound", "of_first"), [("masked", 0.6, 0.8), ("contrast", 0.8 * math.log(23), 0.9)]
)
def test_pre_training_learns_without_a_label_and_is_built_upon(
    network: str, bound: float, of_first: float, toy: Path, tmp_path: Path
) -> None:
    before = tmp_path / "before"
    pretext = write_yaml(
        tmp_path / "p.yaml",
        toy,
        network=network,
        schedule={"steps": 60, "batch": 8, "validate_every": 20, "learning_rate": 3e-3},
    )
    best = train_yaml(pretext, before)
    first = json.loads((before / "history.jsonl").read_text().splitlines()[0])
    assert -best["score"] < of_first * -first["validation_score"]
    assert -best["score"] < bound
    with pytest.raises(
        TrainingError, match=f"{network} pre-training gives no .*finetune with start"
    ):
        evaluate(before)
    tuned = write_yaml(
        tmp_path / "t.yaml",
        toy,
        network="teacher",
        start=str(before),
        schedule={"steps": 1, "batch": 8, "validate_every": 1, "learning_rate": 1e-9},
    )
    train_yaml(tuned, tmp_path / "teacher")
    old, new = (
        torch.load(folder / "best.pt", weights_only=True)
        for folder in (before, tmp_path / "teacher")
    )
    for name in ("blocks.0.layers.0.weight", "layers.0.feed.0.weight"):
        assert torch.allclose(old[name], new[name], atol=1e-6), name


def test_a_glimpse_is_a_stretch_of_its_record_with_leads_withheld() -> None:
    batch, time = 200, 400
    ramp = 1.0 + torch.arange(time).expand(batch, 12, time)
    seen = glimpse(ramp, torch.Generator().manual_seed(3))
    assert seen.shape == (batch, 12, 256)
    starts = seen.amax(dim=(1, 2)) - 256
    assert starts.min() < 20
    assert starts.max() > 124
    assert len(starts.unique()) > 60, "each record is cut elsewhere"
    for record, start in zip(seen, starts, strict=True):
        shown = record[record.any(dim=1)]
        assert 1 <= len(shown) <= 12
        assert (shown == start + 1 + torch.arange(256)).all(), "whole leads of one stretch"
    alone = (seen.any(dim=2).sum(dim=1) == 1).sum()
    assert 30 < alone < 70, "of a quarter one lead alone"
    assert glimpse(ramp[..., :200], torch.Generator()).shape == (batch, 12, 200)


def test_the_contrastive_loss_is_that_of_a_case_worked_by_hand() -> None:
    # Two records, views at right angles: the partner has cosine 1, the two others 0, tau is 0.1.
    ours = torch.eye(2)
    loss, found = contrastive(3 * ours, ours)
    assert float(loss) == pytest.approx(math.log(1 + 2 * math.exp(-10)), abs=1e-6)
    assert float(found) == 1
    # Partners exchanged: cosine 0 to the partner, 1 to one other and 0 to the second.
    loss, found = contrastive(ours, ours.flip(0))
    assert float(loss) == pytest.approx(math.log(2 + math.exp(10)), rel=1e-4)
    assert float(found) == 0


def test_masked_pre_training_needs_tokens(toy: Path, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "m.yaml", toy, network="masked", size="resnet1d")
    with pytest.raises(TrainingError, match="size: resnet1d: masked pre-training needs one of"):
        train_yaml(config, tmp_path / "run")
