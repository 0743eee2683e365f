"""Metrics against cases worked by hand, published tables and properties they must have."""

import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
scipy = pytest.importorskip("scipy")

from scipy.signal import periodogram  # noqa: E402
from sklearn.metrics import fbeta_score, roc_auc_score  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from alerts.conditions import Observation, State  # noqa: E402
from alerts.engine import Engine  # noqa: E402
from alerts.policy import Policy  # noqa: E402
from models.bundle import AlarmRule  # noqa: E402
from models.classifier import ConvTransformer, Size  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.evaluation.challenge2017 import (  # noqa: E402
    RecordVerdict,
    record_features,
    score2017,
)
from training.evaluation.false_alarms import false_alarms, poisson_interval  # noqa: E402
from training.evaluation.gradcam import grad_cam, lead_saliency  # noqa: E402
from training.evaluation.metrics import (  # noqa: E402
    Thresholds,
    choose_thresholds,
    delong,
    macro_auc_interval,
    score,
    thresholds,
)
from training.evaluation.noise import add_noise  # noqa: E402
from training.evaluation.restoration import agreement, quality  # noqa: E402
from training.evaluation.seeds import paired, summary  # noqa: E402

HALF = Thresholds(np.full(3, 0.5), np.full(3, 0.5))


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def all_known(labels: np.ndarray) -> np.ndarray:
    return np.ones(labels.shape, dtype=bool)


# -- ranking, macro means ------------------------------------------------------------------------


def test_ranking_figures_of_two_records_by_hand() -> None:
    labels = np.array([[1, 0, 0], [1, 0, 1]], dtype=np.float32)
    probabilities = np.array([[0.9, 0.5, 0.1], [0.2, 0.5, 0.6]], dtype=np.float32)
    scores = score(labels, all_known(labels), probabilities, ("A", "B", "C"), HALF)
    # Record 0: both pairs right, its class is first. Record 1: of (A, B) and (C, B) one is wrong,
    # and all three classes must be gone through to meet A.
    assert scores.ranking_loss == pytest.approx((0 + 1 / 2) / 2)
    assert scores.coverage == pytest.approx((1 + 3) / 2)
    # A has no negative and B no positive; C is told apart without an error.
    assert scores.left_out == ("A", "B")
    assert [c.name for c in scores.per_class] == ["C"]
    assert scores.macro_auc == scores.mean_average_precision == scores.macro_f1 == 1


def test_class_figures_by_hand() -> None:
    labels = column(1, 0, 1, 0, 1)
    probabilities = column(0.9, 0.8, 0.7, 0.2, 0.1)
    at = Thresholds(np.array([0.75]), np.array([0.6]))
    one = score(labels, all_known(labels), probabilities, ("A",), at).per_class[0]
    assert (one.positives, one.negatives) == (3, 2)
    # Positives over negatives: 0.9 over both, 0.7 over one, 0.1 over none.
    assert one.auc == pytest.approx(3 / 6)
    assert one.average_precision == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert one.f1 == pytest.approx(2 * 1 / (2 * 1 + 2 + 1))
    assert one.f2 == pytest.approx(5 * 2 / (5 * 2 + 4 * 1 + 1))


def test_what_is_not_known_counts_for_nothing() -> None:
    labels = np.array([[1, 0], [0, 1], [0, 0], [1, 1]], dtype=np.float32)
    probabilities = np.array([[0.8, 0.1], [0.3, 0.9], [0.9, 0.2], [0.7, 0.6]], dtype=np.float32)
    known = all_known(labels)
    at = Thresholds(np.full(2, 0.5), np.full(2, 0.5))
    assert score(labels, known, probabilities, ("A", "B"), at).per_class[0].auc == 0.5
    known[2, 0] = False
    scores = score(labels, known, probabilities, ("A", "B"), at)
    assert scores.per_class[0].auc == 1
    assert (scores.per_class[0].negatives, scores.per_class[1].negatives) == (1, 2)
    assert (scores.records, scores.ranked_records) == (4, 3)
    known = np.array([[True, False], [True, False], [False, True], [False, True]])
    unranked = score(labels, known, probabilities, ("A", "B"), at)
    assert unranked.ranked_records == 0
    assert unranked.ranking_loss is None
    assert set(unranked.figures()) == {
        "mean_average_precision",
        "macro_auc",
        "macro_f1",
        "macro_f2",
    }


def test_scores_can_be_stored() -> None:
    labels = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 1]], dtype=np.float32)
    probabilities = np.random.default_rng(0).random((3, 3)).astype(np.float32)
    scores = score(labels, all_known(labels), probabilities, ("A", "B", "C"), HALF)
    stored = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert stored["macro_auc"] == scores.macro_auc
    assert [c["name"] for c in stored["per_class"]] == ["A", "B", "C"]


def test_what_cannot_be_scored_is_said_in_a_line() -> None:
    labels = np.array([[1, 0, 0], [0, 1, 1]], dtype=np.float32)
    known, names = all_known(labels), ("A", "B", "C")
    with pytest.raises(TrainingError, match=r"one shape .* \[2, 3\], \[2, 3\], \[2, 2\]"):
        score(labels, known, np.zeros((2, 2)), names, HALF)
    broken = np.full((2, 3), 0.5)
    broken[1, 2] = np.nan
    with pytest.raises(TrainingError, match="record 1, class 2: expected a finite number, got nan"):
        score(labels, known, broken, names, HALF)
    with pytest.raises(TrainingError, match="no class has both"):
        score(np.ones((2, 3)), known, np.zeros((2, 3)), names, HALF)
    with pytest.raises(TrainingError, match="a name for each of 3, got 1"):
        score(labels, known, np.zeros((2, 3)), ("A",), HALF)


# -- thresholds ----------------------------------------------------------------------------------


def test_thresholds_by_hand() -> None:
    labels = column(1, 1, 0, 0, 0, 1)
    probabilities = column(0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
    # The first two: F1 = 4/5, F2 = 10/14. All six: F1 = 6/9, F2 = 15/18.
    best = choose_thresholds(labels, all_known(labels), probabilities)
    assert best.f1 == pytest.approx(0.75)
    assert best.f2 == pytest.approx(0.4)


def test_records_of_one_probability_are_not_torn_apart() -> None:
    labels, probabilities = column(1, 0, 0), column(0.5, 0.5, 0.1)
    assert thresholds(labels, all_known(labels), probabilities, 1) == pytest.approx(0.3)


def test_thresholds_of_classes_that_tell_nothing() -> None:
    labels, probabilities = np.zeros((3, 2)), np.full((3, 2), 0.9)
    labels[0] = 1
    known = all_known(labels)
    known[0, 1] = False
    best = thresholds(labels, known, probabilities, 1)
    assert best[1] == 0.5, "its only positive record is not known"
    assert best[0] == pytest.approx(0.9)


@pytest.mark.parametrize("beta", [0.5, 1, 2])
def test_no_other_threshold_is_better(beta: float) -> None:
    rng = np.random.default_rng(int(10 * beta))
    labels = (rng.random((60, 20)) < 0.3).astype(np.float32)
    known = rng.random((60, 20)) < 0.8
    # Rounded, so that there are ties; float32 neighbours, so that a mean can fall on one of them.
    probabilities = np.round(0.4 * labels + 0.6 * rng.random((60, 20)), 1).astype(np.float32)
    probabilities[::2] = np.nextafter(probabilities[::2], np.float32(2))
    chosen = thresholds(labels, known, probabilities, beta)
    for c in range(20):
        rows = known[:, c]
        truth, p = labels[rows, c], probabilities[rows, c]
        reached = fbeta_score(truth, p >= chosen[c], beta=beta)
        best = max(fbeta_score(truth, p >= t, beta=beta) for t in np.unique(p))
        assert reached == pytest.approx(best)


# -- confidence interval of the AUC --------------------------------------------------------------


def test_delong_by_hand() -> None:
    truth = np.array([True, False, True, False, False])
    scores = np.array([0.8, 0.6, 0.4, 0.2, 0.1])
    area, low, high = delong(truth, scores)
    assert area == pytest.approx(5 / 6)
    # Placements 1, 2/3 and 1/2, 1, 1: variance (1/18)/2 + (1/12)/3 = 1/18.
    half = 1.959964 * math.sqrt(1 / 18) / (5 / 36)
    assert low == pytest.approx(1 / (1 + math.exp(half - math.log(5))), abs=1e-6)
    assert high == pytest.approx(1 / (1 + math.exp(-half - math.log(5))), abs=1e-6)


def test_delong_counts_ties_half() -> None:
    rng = np.random.default_rng(3)
    truth, scores = rng.random(200) < 0.4, np.round(rng.random(200), 1)
    assert delong(truth, scores)[0] == pytest.approx(roc_auc_score(truth, scores))


def test_the_interval_of_one_class_by_resampling_is_near_delongs() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random(600) < 0.3
    scores = rng.standard_normal(600) + truth
    _, low, high = delong(truth, scores)
    assert macro_auc_interval(truth[:, None], scores[:, None]) == pytest.approx(
        (low, high), abs=0.005
    )


def test_resampling_takes_whole_records_for_all_classes() -> None:
    rng = np.random.default_rng(4)
    truth = rng.random(400) < 0.3
    scores = rng.standard_normal(400) + truth
    alone = macro_auc_interval(truth[:, None], scores[:, None])
    twice = macro_auc_interval(np.stack([truth] * 2, axis=1), np.stack([scores] * 2, axis=1))
    # A class that says the same again makes nothing surer.
    assert twice == pytest.approx(alone)


def test_a_class_too_rare_for_a_resample_is_left_out_of_it() -> None:
    rng = np.random.default_rng(5)
    labels = np.zeros((200, 2))
    labels[0, 0] = 1
    labels[:80, 1] = 1
    low, high = macro_auc_interval(labels, labels + 0.1 * rng.random((200, 2)))
    assert low == high == 1


def test_delong_holds_the_true_area_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    true_area = 0.5 * (1 + math.erf(1.5 / 2))  # of normals 1.5 deviations apart
    truth = np.arange(120) < 40
    hits = 0
    for _ in range(400):
        _, low, high = delong(truth, rng.standard_normal(120) + 1.5 * truth)
        assert low is not None
        assert high is not None
        hits += low <= true_area <= high
    assert 0.92 < hits / 400 < 0.98


@pytest.mark.parametrize("truth", [[True, False, False], [True, True, False, False]])
def test_no_interval_without_a_variance(truth: list[bool]) -> None:
    assert delong(np.array(truth), -np.arange(len(truth))) == (1, None, None)


# -- seeds ---------------------------------------------------------------------------------------


def test_three_seeds_by_hand() -> None:
    got = summary([{"auc": 1.0}, {"auc": 2.0}, {"auc": 3.0}])["auc"]
    assert (got.runs, got.mean, got.deviation) == (3, 2, 1)
    # Student's t of 2 degrees of freedom at 97.5 %: 4.3027.
    assert got.low == pytest.approx(2 - 4.3027 / math.sqrt(3), abs=1e-4)
    assert got.high == pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-4)


def test_one_seed_has_no_spread() -> None:
    got = summary([{"auc": 0.5}])["auc"]
    assert (got.runs, got.mean, got.deviation, got.low, got.high) == (1, 0.5, None, None, None)


def test_what_a_seed_does_to_both_cancels_out() -> None:
    others = [{"f1": 0.2}, {"f1": 0.7}, {"f1": 0.4}]
    ours = [{"f1": 0.21}, {"f1": 0.72}, {"f1": 0.43}]
    got = paired(ours, others)["f1"]
    assert got.mean == pytest.approx(0.02)
    assert got.deviation == pytest.approx(0.01)


def test_runs_that_do_not_match_are_named() -> None:
    with pytest.raises(TrainingError, match="at least one"):
        summary([])
    with pytest.raises(TrainingError, match=r"run 1: .* f1"):
        summary([{"auc": 1.0, "f1": 1.0}, {"auc": 1.0}])
    with pytest.raises(TrainingError, match="run 0: auc: expected a finite number, got nan"):
        summary([{"auc": math.nan}])
    with pytest.raises(TrainingError, match="got 1 and 2"):
        paired([{"a": 1.0}], [{"a": 1.0}, {"a": 1.0}])
    with pytest.raises(TrainingError, match="not in both: a, b"):
        paired([{"a": 1.0}], [{"b": 1.0}])


# -- restoration ---------------------------------------------------------------------------------


def test_restoration_by_hand() -> None:
    wave = np.array([1.0, -1.0, 1.0, -1.0])
    real = np.stack([wave, wave, wave, wave])[None]
    restored = np.stack([wave, wave / 2 + 3, -wave, 0 * wave])[None]
    got = quality(real, restored, ("I", "II", "III", "V1"), "I")
    assert [lead.mse for lead in got.leads] == pytest.approx([0, 9.25, 4, 1])
    assert [lead.correlation for lead in got.leads] == pytest.approx([1, 1, -1, None])
    assert got.mse == pytest.approx((9.25 + 4 + 1) / 3), "the measured lead is not restored"
    assert got.correlation == pytest.approx(0)
    json.dumps(got.to_dict(), allow_nan=False)


def test_flat_records_do_not_spoil_the_correlation() -> None:
    real = np.zeros((3, 2, 8), dtype=np.float16)
    real[0] = [1, 2, 3, 4, 4, 3, 2, 1]
    assert quality(real, 2 * real, ("I", "V1"), "I").correlation == pytest.approx(1)
    with pytest.raises(TrainingError, match="source lead II: expected one of I, V1"):
        quality(real, real, ("I", "V1"), "II")
    with pytest.raises(TrainingError, match=r"\[records, 1, time\] twice"):
        quality(real, real, ("V1",), "V1")


def test_agreement_by_hand() -> None:
    # 20 both, 5 and 10 one alone, 15 neither: observed 0.7, by chance 0.5.
    real = np.array([0.9] * 20 + [0.9] * 5 + [0.1] * 10 + [0.1] * 15)[:, None]
    restored = np.array([0.8] * 20 + [0.2] * 5 + [0.8] * 10 + [0.2] * 15)[:, None]
    labels = (real > 0.5).astype(np.float32)
    known = np.ones_like(labels, dtype=bool)
    got = agreement(real, restored, np.array([0.5]), labels, known, ("AF",))
    assert got.agreement == pytest.approx(0.7)
    assert got.kappa == pytest.approx(0.4)
    assert got.difference == pytest.approx((35 * 0.1 + 15 * 0.7) / 50)
    assert got.auc_real == 1
    # Of 25 × 25 pairs: 20 × 15 right, 20 × 10 and 5 × 15 tied.
    assert got.auc_restored == pytest.approx((300 + 275 / 2) / 625)


def test_agreement_has_no_kappa_where_nothing_varies() -> None:
    same, labels = np.full((4, 1), 0.1), np.zeros((4, 1))
    got = agreement(same, same, np.array([0.5]), labels, all_known(labels), ("AF",)).per_class[0]
    assert (got.agreement, got.kappa, got.auc_real) == (1, None, None)


# -- Challenge 2017 ------------------------------------------------------------------------------


def test_challenge_score_by_hand() -> None:
    confusion = {
        ("N", "N"): 8,
        ("N", "A"): 1,
        ("N", "O"): 1,
        ("A", "N"): 1,
        ("A", "A"): 3,
        ("O", "N"): 2,
        ("O", "O"): 4,
        ("~", "O"): 1,
        ("~", "~"): 1,
    }
    pairs = [pair for pair, count in confusion.items() for _ in range(count)]
    got = score2017([p[0] for p in pairs], [p[1] for p in pairs])
    assert got.confusion == ((8, 1, 1, 0), (1, 3, 0, 0), (2, 0, 4, 0), (0, 0, 1, 1))
    assert got.f1_normal == pytest.approx(16 / 21)
    assert got.f1_af == pytest.approx(6 / 8)
    assert got.f1_other == pytest.approx(8 / 12)
    assert got.f1_noisy == pytest.approx(2 / 3)
    assert got.f1 == pytest.approx((16 / 21 + 6 / 8 + 8 / 12) / 3)


def test_challenge_kinds_are_checked() -> None:
    with pytest.raises(TrainingError, match="record 1: expected N, A, O or ~, got 'N' and 'AF'"):
        score2017(["N", "N"], ["N", "AF"])
    with pytest.raises(TrainingError, match="2 references and 1 verdicts"):
        score2017(["N", "N"], ["N"])


def test_windows_become_records_by_mean_and_maximum() -> None:
    logits = np.array([[1.0, -4.0], [0.0, 5.0], [3.0, -2.0]])
    got = record_features(logits, np.array([0, 1, 0]))
    assert got.tolist() == [[2, -3, 3, -2], [0, 5, 0, 5]]
    with pytest.raises(TrainingError, match="record 1: expected at least one window"):
        record_features(logits, np.array([0, 2, 0]))


def test_record_verdict_learns_what_can_be_learned() -> None:
    rng = np.random.default_rng(0)
    centres = {"N": (4, 0), "A": (0, 4), "O": (-4, 0), "~": (0, -4)}
    reference = [kind for kind in centres for _ in range(50)]
    features = np.array([centres[k] for k in reference]) * 100 + rng.normal(0, 50, (200, 2))
    verdict = RecordVerdict(features[::2], reference[::2])
    assert score2017(reference[1::2], verdict(features[1::2])).f1 > 0.98
    with pytest.raises(TrainingError, match="of 1 kinds"):
        RecordVerdict(features[:3], ["N"] * 3)


# -- noise ---------------------------------------------------------------------------------------


def in_band(x: np.ndarray, rate: float, low: float = 1.0, high: float = 47.0) -> np.ndarray:
    f, density = periodogram(x, rate, detrend=False)
    return density[:, (f >= low) & (f <= high)].sum(axis=1) * f[1]


def some_signals(records: int, rate: float) -> np.ndarray:
    t = np.arange(round(10 * rate)) / rate
    beats = np.exp(-0.5 * (((t % 0.8) - 0.4) / 0.02) ** 2)
    return 1000 * beats * np.linspace(0.5, 2, records)[:, None] + 5000


@pytest.mark.parametrize("rate", [100.0, 125.0, 300.0, 500.0])
@pytest.mark.parametrize("snr_db", [0.0, 12.0])
def test_noise_is_as_strong_as_asked(rate: float, snr_db: float) -> None:
    clean = some_signals(5, rate)
    noise = add_noise(clean, rate, snr_db, seed=1) - clean
    measured = 10 * np.log10(in_band(clean, rate) / in_band(noise, rate))
    assert measured == pytest.approx(np.full(5, snr_db), abs=0.1)


def test_noise_is_the_same_every_time() -> None:
    clean = some_signals(4, 100.0)
    once = add_noise(clean, 100.0, 12, seed=7)
    assert np.array_equal(once, add_noise(clean, 100.0, 12, seed=7))
    assert np.array_equal(once[:2], add_noise(clean[:2], 100.0, 12, seed=7))
    assert not np.allclose(once, add_noise(clean, 100.0, 12, seed=8))
    other = (once - clean) / clean.std(axis=1, keepdims=True)
    assert abs(np.corrcoef(other)[0, 1]) < 0.5, "records do not share their noise"


def test_each_kind_of_noise_has_its_share() -> None:
    clean = np.tile(some_signals(1, 300.0), (200, 1))
    noise = add_noise(clean, 300.0, 12, seed=2) - clean
    total = in_band(noise, 300.0)
    # From 20 Hz on there is little but muscle, which is flat: 27 of its 37 Hz of a third.
    assert (in_band(noise, 300.0, 20, 47) / total).mean() == pytest.approx(27 / 37 / 3, rel=0.1)
    # Wander is all below 2 Hz, and more of it below the band than in it.
    assert (in_band(noise, 300.0, 1, 2) / total).mean() > 1 / 3
    assert (in_band(noise, 300.0, 0.05, 0.99) / total).mean() > 1 / 3


def test_a_flat_record_stays_flat() -> None:
    flat = np.full((1, 1000), 40.0)
    assert np.allclose(add_noise(flat, 100.0, 12, seed=0), flat)


# -- where networks look -------------------------------------------------------------------------


class Weighted(nn.Module):
    """Logits: weighted sums over channels and time of what ``layer`` puts out."""

    def __init__(self, layer: nn.Module, weights: list[list[float]]) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("weights", torch.tensor(weights))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("ck,bkt->bc", self.weights, self.layer(x))


class OneRegion(nn.Module):
    """Sees samples 40 to 59 and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.zeros(x.shape[2])
        seen[40:60] = 1
        return x * seen


def test_grad_cam_by_hand() -> None:
    net = Weighted(nn.Identity(), [[2.0, -1.0], [-2.0, 1.0]])
    leads = torch.tensor([[[1.0, 2.0, 3.0, 0.0], [0.0, 5.0, 1.0, 4.0]]])
    # 2 A_0 - A_1 = 2, -1, 5, -4, and the negative of it for the other class.
    assert grad_cam(net, net.layer, leads, 0).tolist() == [[2, 0, 5, 0]]
    assert grad_cam(net, net.layer, leads, 1).tolist() == [[0, 1, 0, 4]]


def test_grad_cam_finds_the_region_that_is_read() -> None:
    net = Weighted(OneRegion(), [[1.0, 1.0]])
    heat = grad_cam(net, net.layer, torch.rand(3, 2, 100) + 0.5, 0)
    assert heat.shape == (3, 100)
    assert (heat[:, 40:60] > 0).all()
    assert not heat[:, :40].any()
    assert not heat[:, 60:].any()


def test_grad_cam_of_a_strided_layer_lies_where_the_event_is() -> None:
    net = Weighted(nn.MaxPool1d(10), [[1.0]])
    leads = torch.zeros(2, 1, 200)
    leads[0, 0, 33] = leads[1, 0, 158] = 1
    heat = grad_cam(net, net.layer, leads, 0)
    assert heat.shape == (2, 200)
    assert heat.argmax(dim=1).tolist() == pytest.approx([34.5, 154.5], abs=1)
    assert not heat[0, 60:].any()


def test_grad_cam_of_a_transformer_leaves_it_as_it_was() -> None:
    torch.manual_seed(0)
    net = ConvTransformer(Size(16, 1, 2), 12, 3)
    net.requires_grad_(False)
    leads = torch.randn(2, 12, 320)
    with torch.no_grad():
        heat = grad_cam(net, net.blocks, leads, 1)
    assert heat.shape == (2, 320)
    assert (heat >= 0).all()
    assert heat.any()
    assert not heat.requires_grad
    assert not leads.requires_grad
    assert torch.allclose(heat[1:], grad_cam(net, net.blocks, leads[1:], 1), atol=1e-5)
    assert not net.blocks._forward_hooks


def test_saliency_tells_leads_apart() -> None:
    net = Weighted(nn.Identity(), [[2.0, 0.0, -1.0]])
    leads = torch.tensor([[[1.0, -1.0], [9.0, 9.0], [3.0, 0.5]]])
    assert lead_saliency(net, leads, 0).tolist() == [[4, 0, 3.5]]


# -- false alarms --------------------------------------------------------------------------------

RULE = AlarmRule(priority="medium", threshold=0.8, off_threshold=0.4, k=2, n=3)


def test_poisson_intervals_of_the_tables() -> None:
    table = {
        0: (0, 3.689),
        1: (0.0253, 5.572),
        5: (1.623, 11.668),
        10: (4.795, 18.390),
        100: (81.364, 121.627),
    }
    for events, (low, high) in table.items():
        assert poisson_interval(events) == pytest.approx((low, high), abs=1e-3)


def test_false_alarms_by_hand() -> None:
    records = [
        np.array([0.9, 0.1, 0.9, 0.1, 0.1, 0.1]),  # 2 of 3, then over
        np.array([0.9, 0.1, 0.1, 0.9]),  # never 2 of 3
        np.array([0.8, 0.8, 0.8, 0.8]),  # once, and for good
        np.array([0.9, 0.9, 0.5, 0.1, 0.1, 0.9, 0.9]),  # twice
        np.array([0.9]),  # too short to tell
    ]
    got = false_alarms(records, [1800, 1800, 1800, 1800, 10], RULE)
    assert (got.records, got.too_short, got.hours) == (4, 1, 2)
    assert (got.records_with_alarm, got.alarms) == (3, 4)
    assert got.per_hour == 2
    # 4 events: 1.090 to 10.242 in the tables.
    assert (got.low, got.high) == pytest.approx((1.090 / 2, 10.242 / 2), abs=1e-3)


def test_no_time_no_rate() -> None:
    got = false_alarms([np.array([0.9])], [10], RULE)
    assert (got.hours, got.alarms, got.per_hour, got.low, got.high) == (0, 0, None, None, None)
    with pytest.raises(TrainingError, match="1 records and 2 durations"):
        false_alarms([np.array([0.9])], [10, 10], RULE)


def observation(i: int, probability: float) -> Observation:
    start = i * 5 * 10**9
    return Observation(
        "anna", start, start + 10 * 10**9, good=True, probabilities={"AF": probability}
    )


@pytest.mark.parametrize(("k", "n"), [(1, 1), (2, 3), (6, 8), (3, 3), (1, 4)])
def test_alarms_are_those_the_daemon_raises(k: int, n: int) -> None:
    rule = AlarmRule(priority="low", threshold=0.7, off_threshold=0.4, k=k, n=n)
    policy = Policy.from_mapping({"AF": rule.model_dump()}, hop_s=5.0)
    rng = np.random.default_rng(k * 100 + n)
    total = 0
    for _ in range(10):
        # Slow enough in its changes for long rules to be met.
        probabilities = np.clip(0.5 + 0.12 * np.cumsum(rng.standard_normal(150)), 0.01, 0.99)
        probabilities = np.where(rng.random(150) < 0.2, rng.random(150), probabilities)
        engine = Engine(lambda _patient: policy)
        changes = [
            change
            for i, p in enumerate(probabilities)
            for change in engine.step(observation(i, float(p)))
        ]
        expected = sum(change.state is State.ACTIVE for change in changes)
        assert false_alarms([probabilities], [755], rule).alarms == expected
        total += expected
    assert total > 5


def test_calibrations_compared_on_logits_that_are_twice_too_sure() -> None:
    from bench.choices import calibrations

    rng = np.random.default_rng(2)
    honest = rng.normal(0, 1.5, (3000, 1))
    labels = (rng.random((3000, 1)) < 1 / (1 + np.exp(-honest))).astype(np.float32)
    rare = np.zeros((3000, 1), np.float32)
    logits = np.hstack([2 * honest, honest]).astype(np.float32)
    got = calibrations(logits, np.hstack([labels, rare]))
    best = float(np.square(1 / (1 + np.exp(-honest)) - labels).mean())
    assert got["Platt (shipped)"].brier == pytest.approx(best, abs=1e-3)
    assert got["none"].brier > best + 5e-3
    assert got["Platt (shipped)"].error < got["none"].error / 2
    assert best - 1e-3 < got["isotonic"].brier < got["none"].brier
