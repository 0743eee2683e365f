"""Each distillation loss against a case worked by hand, and what all of them must keep to."""

from math import e, exp, log, sqrt

import pytest

torch = pytest.importorskip("torch")

from training.losses import Outputs, Shape, Targets, methods  # noqa: E402
from training.losses.cc import CC  # noqa: E402
from training.losses.dist import DIST  # noqa: E402
from training.losses.dkd import DKD  # noqa: E402
from training.losses.kd import KD  # noqa: E402
from training.losses.mvkt import MVKT, LeadTransfer, multilabel_distillation  # noqa: E402
from training.losses.pkt import PKT  # noqa: E402
from training.losses.psm import PSM  # noqa: E402
from training.losses.rkd import RKD  # noqa: E402
from training.losses.wkd import WKD, class_costs, transport_cost  # noqa: E402

Tensor = torch.Tensor
SHAPE = Shape(student=16, teacher=32, classes=5, records=64)
METHODS = sorted(methods())
OF_LOGITS = ["cc", "dist", "dkd", "kd", "liteheart-1", "mvkt", "psm", "wkd"]
# KL of (1/2, 1/2) from (3/4, 1/4), which several cases below are built to give.
K = 0.75 * log(1.5) + 0.25 * log(0.5)


def outputs(logits: list[list[float]], features: list[list[float]] | None = None) -> Outputs:
    if features is None:
        features = [[0.0]] * len(logits)
    return Outputs(torch.tensor(logits), torch.tensor(features))


def of_features(features: list[list[float]] | Tensor) -> Outputs:
    features = torch.as_tensor(features)
    return Outputs(torch.zeros(len(features), 1), features)


def targets(labels: list[list[float]], known: list[list[float]] | None = None) -> Targets:
    y = torch.tensor(labels)
    return Targets(
        y, torch.ones_like(y) if known is None else torch.tensor(known), torch.arange(len(y))
    )


def batch(
    size: int, seed: int = 0, spread: float = 2.0, shape: Shape = SHAPE
) -> tuple[Outputs, Outputs, Targets]:
    """Random student (with gradients), teacher and targets."""
    g = torch.Generator().manual_seed(seed)
    student = Outputs(
        (spread * torch.randn(size, shape.classes, generator=g)).requires_grad_(),
        torch.randn(size, shape.student, generator=g).requires_grad_(),
    )
    teacher = Outputs(
        spread * torch.randn(size, shape.classes, generator=g),
        torch.randn(size, shape.teacher, generator=g),
    )
    labels = (torch.rand(size, shape.classes, generator=g) < 0.4).float()
    rows = torch.randperm(shape.records, generator=g)[:size]
    return student, teacher, Targets(labels, torch.ones_like(labels), rows)


def made(name: str, shape: Shape = SHAPE) -> torch.nn.Module:
    """The method with its defaults, and, if it has a memory, something in it."""
    torch.manual_seed(0)
    method = methods()[name](shape)
    if name == "mvkt":
        method(*batch(32, seed=9, shape=shape))
    return method


# All of them


def test_every_method_is_found() -> None:
    assert {"cc", "dist", "dkd", "kd", "mvkt", "pkt", "psm", "rkd", "wkd"} <= set(METHODS)


@pytest.mark.parametrize("labels", ["drawn", "none", "all"])
@pytest.mark.parametrize("spread", [2.0, 80.0])
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradients_are_finite(name: str, size: int, spread: float, labels: str) -> None:
    method = made(name)
    student, teacher, wanted = batch(size)
    with torch.no_grad():
        student.logits.copy_(student.logits.sign() * spread)
        teacher.logits.copy_(teacher.logits.sign() * spread)
        if labels != "drawn":
            wanted.labels.fill_(float(labels == "all"))
    loss = method(student, teacher, wanted)
    assert loss.shape == ()
    assert torch.isfinite(loss)
    loss.backward()
    reached = [student.logits.grad, student.features.grad, *(p.grad for p in method.parameters())]
    assert any(g is not None for g in reached)
    assert all(torch.isfinite(g).all() for g in reached if g is not None)


@pytest.mark.parametrize("name", METHODS)
def test_records_and_features_that_coincide_do_no_harm(name: str) -> None:
    """Also a record whose features are all zero, as ReLU may leave them."""
    student, teacher, wanted = batch(4)
    with torch.no_grad():
        student.features[:2] = student.features[2]
        student.features[3] = 0
        student.logits[:2] = student.logits[2]
    loss = made(name)(student, teacher, wanted)
    loss.backward()
    assert torch.isfinite(loss)
    for leaf in (student.logits, student.features):
        assert leaf.grad is None or leaf.grad.abs().max() < 1e4


@pytest.mark.parametrize("name", METHODS)
def test_what_is_not_known_does_not_count(name: str) -> None:
    method = made(name).eval()
    student, teacher, wanted = batch(6)
    unknown = torch.zeros(6, SHAPE.classes, dtype=torch.bool)
    unknown[:, 1] = unknown[2] = unknown[3, 0] = True
    wanted = Targets(wanted.labels, (~unknown).float(), wanted.rows)
    torch.manual_seed(1)
    loss = method(student, teacher, wanted)
    loss.backward()
    if student.logits.grad is not None:
        assert (student.logits.grad[unknown] == 0).all()
    other = Outputs(student.logits.detach() + 3 * unknown, student.features)
    torch.manual_seed(1)
    torch.testing.assert_close(method(other, teacher, wanted), loss)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_which_nothing_is_known_is_no_harm(name: str) -> None:
    student, teacher, wanted = batch(6)
    unknown = Targets(wanted.labels, torch.zeros_like(wanted.known), wanted.rows)
    loss = made(name)(student, teacher, unknown)
    loss.backward()
    assert torch.isfinite(loss)
    assert student.logits.grad is None or not student.logits.grad.any()


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_is_computed_in_float32(name: str) -> None:
    method = made(name).eval()
    student, teacher, wanted = batch(6)
    coarse = [Outputs(o.logits.bfloat16(), o.features.bfloat16()) for o in (student, teacher)]
    fine = [Outputs(o.logits.float(), o.features.float()) for o in coarse]
    torch.manual_seed(1)
    loss = method(*coarse, wanted)
    assert loss.dtype == torch.float32
    torch.manual_seed(1)
    assert torch.equal(loss, method(*fine, wanted))


@pytest.mark.parametrize("name", METHODS)
def test_a_seed_fixes_the_loss(name: str) -> None:
    losses = [made(name)(*batch(8)) for _ in range(2)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", ["dist", "dkd", "pkt", "psm", "rkd"])
def test_agreement_costs_nothing(name: str) -> None:
    method = made(name)
    student, teacher, wanted = batch(8, shape=Shape(32, 32, 5, 64))
    assert method(student, teacher, wanted) > 1e-2
    agreeing = Outputs(teacher.logits.clone(), teacher.features.clone())
    assert float(method(agreeing, teacher, wanted)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("off", [-1.0, 1.0])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("name", OF_LOGITS)
def test_gradient_leads_back_to_the_teacher(name: str, off: float, positive: bool) -> None:
    """A student that differs in one logit has that logit moved back."""
    method = made(name)
    student, teacher, wanted = batch(8)
    wanted.labels[0] = torch.tensor([float(positive), 1, 0, 0, 1])
    logits = teacher.logits.clone()
    logits[0, 0] += off
    logits.requires_grad_()
    method(Outputs(logits, student.features), teacher, wanted).backward()
    assert logits.grad[0, 0] * off > 0


@pytest.mark.parametrize("name", METHODS)
def test_options_may_come_as_floats(name: str) -> None:
    """YAML gives every hyper-parameter as a float."""
    kind = methods()[name]
    defaults = kind.__init__.__kwdefaults__
    assert defaults
    method = kind(SHAPE, **{option: float(value) for option, value in defaults.items()})
    assert torch.isfinite(method(*batch(3)))


# KD


def test_kd_is_cross_entropy_at_its_temperature() -> None:
    """At tau 2 a logit of 2 ln 3 is p = 3/4; against q = 1/2 that is ln 2, times tau² = 4."""
    method = KD(SHAPE, alpha=0.5, tau=2.0)
    loss = method(
        outputs([[0.0, 7.0]]), outputs([[2 * log(3), 0.0]]), targets([[1.0, 0.0]], [[1.0, 0.0]])
    )
    assert float(loss) == pytest.approx(0.5 * 4 * log(2))


# DKD


def test_dkd_by_hand() -> None:
    """Class 1 differs: sigmoids 3/4 and 1/2, and softmaxes of classes 1 and 2 likewise.

    TCKD is K over one of three classes, NCKD is K.
    """
    method = DKD(SHAPE, alpha=3.0, beta=10.0, tau=1.0)
    loss = method(
        outputs([[0.0, 0.0, 0.0]]), outputs([[0.0, log(3), 0.0]]), targets([[1.0, 0.0, 0.0]])
    )
    assert float(loss) == pytest.approx(3 * K / 3 + 10 * K, rel=1e-5)


def test_dkd_keeps_the_target_out_of_the_rest() -> None:
    method = DKD(SHAPE, alpha=0.0, beta=1.0)
    student, teacher, wanted = batch(1)
    wanted.labels[0] = torch.tensor([1.0, 0, 0, 0, 0])
    loss = method(student, teacher, wanted)
    moved = Outputs(student.logits + torch.tensor([5.0, 0, 0, 0, 0]), student.features)
    assert loss > 0
    torch.testing.assert_close(method(moved, teacher, wanted), loss)


# PSM


def test_psm_by_hand() -> None:
    """Positive 0 against the negative is 3/4 to 1/4 and 1/2 each: K. Positive 1 agrees: 0.

    The second record has no positive label, so the mean over two records is K / 2.
    """
    loss = PSM(SHAPE)(
        outputs([[0.0, 0.0, 0.0], [5.0, 1.0, 0.0]]),
        outputs([[log(3), 0.0, 0.0], [0.0, 0.0, 0.0]]),
        targets([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
    )
    assert float(loss) == pytest.approx(K / 2, rel=1e-5)


def test_psm_is_the_sum_of_its_partial_softmaxes() -> None:
    student, teacher, wanted = batch(6)
    whole = 0.0
    for z, t, y in zip(student.logits.detach(), teacher.logits, wanted.labels, strict=True):
        for c in torch.nonzero(y)[:, 0]:
            classes = torch.cat((c[None], torch.nonzero(y == 0)[:, 0]))
            q, p = torch.softmax(z[classes], 0), torch.softmax(t[classes], 0)
            whole += float((p * (p / q).log()).sum())
    loss = PSM(SHAPE)(student, teacher, wanted).detach()
    assert float(loss) == pytest.approx(whole / 6, rel=1e-4)


# CC


def test_cc_by_hand() -> None:
    """Cosine 1 in the student, 0 in the teacher, gamma 0.4.

    exp(-0.8) (1 + 0.8 x + 0.32 x²) differs by 1.12 exp(-0.8) off the diagonal, half of the matrix.
    """
    method = CC(SHAPE, alpha=0.0, beta=1.0)
    loss = method(
        of_features([[1.0, 0.0], [2.0, 0.0]]),
        of_features([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]]),
        targets([[0.0], [0.0]]),
    )
    assert float(loss) == pytest.approx((1.12 * exp(-0.8)) ** 2 / 2, rel=1e-5)


def test_cc_adds_the_distillation_of_logits() -> None:
    student, teacher, wanted = batch(4)
    kd = KD(SHAPE)(student, teacher, wanted)
    both = CC(SHAPE, beta=0.0)(student, teacher, wanted)
    torch.testing.assert_close(both, kd)


# RKD

LINE = [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]
TRIANGLE = [[0.0, 0.0], [1.0, 0.0], [0.5, sqrt(3) / 2]]


def test_rkd_distances_by_hand() -> None:
    """Three points in a line have 1, 1, 2 over their mean 4/3, those of the triangle 1 throughout.

    The Huber losses of 1/4, 1/4 and 1/2 are 1/32, 1/32 and 1/8; their mean is 1/16.
    """
    method = RKD(SHAPE, distance=1.0, angle=0.0)
    loss = method(of_features(LINE), of_features(TRIANGLE), targets([[0.0]] * 3))
    assert float(loss) == pytest.approx(1 / 16, rel=1e-5)


def test_rkd_angles_by_hand() -> None:
    """Cosines -1, 1, 1 against 1/2: Huber losses 1, 1/8, 1/8."""
    method = RKD(SHAPE, distance=0.0, angle=1.0)
    loss = method(of_features(LINE), of_features(TRIANGLE), targets([[0.0]] * 3))
    assert float(loss) == pytest.approx(1.25 / 3, rel=1e-5)


def test_rkd_angles_are_averaged_over_triplets() -> None:
    """Corners of a square have cosines 0, sqrt(1/2) and sqrt(1/2), of a tetrahedron 1/2."""
    square = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
    method = RKD(SHAPE, distance=0.0, angle=1.0)
    loss = method(of_features(square), of_features(torch.eye(4)), targets([[0.0]] * 4))
    by_hand = (0.5**2 + 2 * (sqrt(0.5) - 0.5) ** 2) / 2 / 3
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)


def test_rkd_ignores_movement_rotation_and_scale() -> None:
    _, teacher, wanted = batch(7)
    rotation = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1)))[0]
    moved = Outputs(teacher.logits, 3 * teacher.features @ rotation + 5)
    assert float(RKD(SHAPE)(moved, teacher, wanted)) == pytest.approx(0, abs=1e-4)
    bent = Outputs(teacher.logits, teacher.features**2)
    assert RKD(SHAPE)(bent, teacher, wanted) > 0.1


# DIST


def test_dist_is_blind_to_scale_and_shift_of_probabilities() -> None:
    p = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    features = torch.zeros(6, 1)
    student, teacher = (Outputs(torch.logit(x), features) for x in (0.3 * p + 0.2, p))
    wanted = targets(torch.zeros(6, 5).tolist())
    assert float(DIST(SHAPE)(student, teacher, wanted)) == pytest.approx(0, abs=1e-5)
    curved = Outputs(torch.logit(p**3), features)
    assert DIST(SHAPE)(curved, teacher, wanted) > 1e-2


def test_dist_is_greatest_for_what_is_turned_round() -> None:
    """Correlation -1 in every row and column: 2 each, weighted 3 and 5."""
    student, teacher = outputs([[1.0, -1.0], [-1.0, 1.0]]), outputs([[-2.0, 2.0], [2.0, -2.0]])
    loss = DIST(SHAPE, beta=3.0, gamma=5.0)(student, teacher, targets([[0.0, 0.0]] * 2))
    assert float(loss) == pytest.approx(2 * 3 + 2 * 5, rel=1e-5)
    # Symmetric, so that a temperature changes nothing but the factor of its square.
    hot = DIST(SHAPE, beta=3.0, gamma=5.0, tau=3.0)(student, teacher, targets([[0.0, 0.0]] * 2))
    assert float(hot) == pytest.approx(9 * 16, rel=1e-5)


def test_dist_tells_rows_from_columns() -> None:
    """Both rows still fall, but which of the two starts higher is turned round in each column."""
    student, teacher = outputs([[2.0, -2.0], [1.0, -1.0]]), outputs([[1.0, -1.0], [2.0, -2.0]])
    loss = DIST(SHAPE, beta=3.0, gamma=5.0)(student, teacher, targets([[0.0, 0.0]] * 2))
    assert float(loss) == pytest.approx(2 * 5, rel=1e-5)


def test_dist_leaves_out_what_the_teacher_says_nothing_of() -> None:
    """Two columns that the teacher keeps constant: only the rows are left, and they agree."""
    student, teacher = outputs([[2.0, -2.0], [1.0, -1.0]]), outputs([[3.0, -3.0], [3.0, -3.0]])
    loss = DIST(SHAPE)(student, teacher, targets([[0.0, 0.0]] * 2))
    assert float(loss) == pytest.approx(0, abs=1e-5)


# PKT


def test_pkt_by_hand() -> None:
    """Kernels (1 + cosine) / 2 of the teacher: 1/2, 0, 1/2; of the student: 1, 1/2, 1/2.

    So record 0 chooses (1, 2) with (1, 0) against (2/3, 1/3), record 1 chooses (0, 2) with
    (1/2, 1/2) against (2/3, 1/3), record 2 chooses (0, 1) with (0, 1) against (1/2, 1/2).
    """
    loss = PKT(SHAPE)(
        of_features([[1.0, 0.0], [4.0, 0.0], [0.0, 1.0]]),
        of_features([[1.0, 0.0], [0.0, 1.0], [-2.0, 0.0]]),
        targets([[0.0]] * 3),
    )
    by_hand = log(3 / 2) + (log(3 / 4) + log(3 / 2)) / 2 + log(2)
    assert float(loss) == pytest.approx(by_hand, rel=1e-4)


def test_pkt_ignores_each_record_s_scale() -> None:
    student, teacher, wanted = batch(5)
    scales = torch.arange(1.0, 6.0)[:, None]
    scaled = Outputs(student.logits, student.features * scales)
    torch.testing.assert_close(
        PKT(SHAPE)(scaled, teacher, wanted), PKT(SHAPE)(student, teacher, wanted)
    )


# WKD

COSTS = torch.tensor([[0.0, 0.1, 0.6], [0.1, 0.0, 0.5], [0.6, 0.5, 0.0]])


@pytest.mark.parametrize(
    ("q", "p", "cost"),
    [
        ([1.0, 0, 0], [0, 1.0, 0], 0.1),
        ([1.0, 0, 0], [0, 0, 1.0], 0.6),
        ([0, 1.0, 0], [0, 1.0, 0], 0.0),
        ([1.0, 0, 0], [0, 0.25, 0.75], 0.25 * 0.1 + 0.75 * 0.6),
        ([0.5, 0, 0.5], [0, 1.0, 0], 0.5 * 0.1 + 0.5 * 0.5),
        ([0, 0, 0], [0, 0, 0], 0.0),
    ],
)
def test_wkd_transport_where_there_is_one_plan(q: list[float], p: list[float], cost: float) -> None:
    """From or to a point mass only one plan is possible, whatever the regularisation."""
    moved = transport_cost(torch.tensor([q]).float(), torch.tensor([p]).float(), COSTS)
    assert moved.tolist() == pytest.approx([cost], abs=1e-6)


def test_wkd_transport_finds_the_cheap_plan() -> None:
    """All classes 0.6 apart: what both have stays, and the difference of 0.2 moves."""
    costs = 0.6 * (1 - torch.eye(3))
    moved = transport_cost(torch.tensor([[0.5, 0.2, 0.3]]), torch.tensor([[0.3, 0.4, 0.3]]), costs)
    assert moved.tolist() == pytest.approx([0.2 * 0.6], rel=1e-2)


def test_wkd_costs_by_hand() -> None:
    """Columns 0 and 1 are one, 2 is turned round, 3 is unrelated; related ones cost nothing."""
    p = torch.tensor([[0.1, 0.2, 0.9, 0.1], [0.1, 0.2, 0.9, 0.2], [0.3, 0.4, 0.7, 0.1]])
    p = torch.cat((p, torch.tensor([[0.3, 0.4, 0.7, 0.2]])))
    costs = class_costs(p, torch.ones_like(p), kappa=2.0)
    far = 1 - exp(-2)
    expected = torch.zeros(4, 4)
    expected[3, :3] = expected[:3, 3] = far
    torch.testing.assert_close(costs, expected, atol=1e-5, rtol=0)


def test_wkd_prefers_a_related_class() -> None:
    """Class 1 follows class 0 over the batch and class 2 does not: to mistake them costs less."""
    teacher = outputs([[4.0, 3.0, -2.0], [-4.0, -3.0, 2.0], [3.0, 4.0, 2.0], [-3.0, -4.0, -2.0]])
    wanted = targets([[0.0] * 3] * 4)
    method = WKD(SHAPE, alpha=0.0, tau=1.0)

    def loss(first: list[float]) -> float:
        logits = teacher.logits.clone()
        logits[0] = torch.tensor(first)
        return float(method(Outputs(logits, teacher.features), teacher, wanted))

    assert loss([0.0, 6.0, 0.0]) < 0.5 * loss([0.0, 0.0, 6.0])


def test_wkd_moves_nothing_where_no_class_is_negative() -> None:
    student, teacher, wanted = batch(3)
    wanted.labels.fill_(1)
    assert WKD(SHAPE, alpha=0.0)(student, teacher, wanted) == 0


# MVKT


def test_mkd_by_hand() -> None:
    """p = 1 against p = 1/2 at tau 1.5: q = sigmoid(2/3) = a against 1/2.

    One class of one record in two counts: (a ln 2a + (1 - a) ln 2(1 - a)) tau² / 2.
    """
    a = 1 / (1 + exp(-2 / 3))
    loss = multilabel_distillation(
        torch.tensor([[0.0, 5.0], [1.0, 2.0]]),
        torch.tensor([[80.0, 0.0], [1.0, 2.0]]),
        torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
        tau=1.5,
    )
    by_hand = a * log(2 * a) + (1 - a) * log(2 * (1 - a))
    assert float(loss) == pytest.approx(by_hand * 1.5**2 / 2, rel=1e-4)


def axes(*places: int) -> Tensor:
    """Unit vectors along axes, [places, 128]."""
    return torch.eye(128)[list(places)]


def plain_transfer(records: int = 4, negatives: int = 1024, tau: float = 1.0) -> LeadTransfer:
    """CLT whose layers pass their inputs on."""
    transfer = LeadTransfer(Shape(128, 128, 5, records), tau, negatives, 0.5)
    transfer.of_student = transfer.of_teacher = torch.nn.Identity()
    return transfer


def test_clt_by_hand() -> None:
    """Positive at cosine 1, one other record at cosine 0: ln(1 + 1/e) each way.

    The memory of the record itself, at cosine 1, is no negative.
    """
    transfer = plain_transfer()
    transfer.eval()
    transfer.student_memory[:2] = transfer.teacher_memory[:2] = axes(0, 1)
    transfer.met[:2] = True
    loss = transfer(axes(0), axes(0), torch.tensor([0]))
    assert float(loss) == pytest.approx(2 * log(1 + 1 / e), rel=1e-5)


def test_clt_pairs_each_record_with_itself() -> None:
    """Rows 0 and 3 have their own memory at cosine 1, two others at cosine 0: ln(1 + 2/e)."""
    transfer = plain_transfer()
    transfer.eval()
    transfer.student_memory[[0, 1, 3]] = transfer.teacher_memory[[0, 1, 3]] = axes(0, 1, 7)
    transfer.met[[0, 1, 3]] = True
    loss = transfer(axes(0, 7), axes(0, 7), torch.tensor([0, 3]))
    assert float(loss) == pytest.approx(2 * log(1 + 2 / e), rel=1e-5)


def test_clt_leaves_out_a_record_that_was_not_met() -> None:
    transfer = plain_transfer()
    transfer.eval()
    transfer.student_memory[:2] = transfer.teacher_memory[:2] = axes(0, 1)
    transfer.met[:2] = True
    loss = transfer(axes(0, 7), axes(0, 7), torch.tensor([0, 3]))
    assert float(loss) == pytest.approx(2 * log(1 + 1 / e), rel=1e-5)


def test_clt_tells_each_side_from_the_other_s_memories() -> None:
    """The student's anchor meets a teacher's memory at cosine 1, the other's one at -1."""
    transfer = plain_transfer()
    transfer.eval()
    transfer.teacher_memory[:2] = axes(0, 0)
    transfer.student_memory[:2] = torch.cat((axes(0), -axes(0)))
    transfer.met[:2] = True
    loss = transfer(axes(0), axes(0), torch.tensor([0]))
    assert float(loss) == pytest.approx(log(2) + log(1 + exp(-2)), rel=1e-5)


def test_clt_learns_nothing_from_the_age_of_memories() -> None:
    """Four records whose memories are all alike cannot be told apart, however views have moved."""
    transfer = plain_transfer()
    transfer.eval()
    transfer.student_memory[:] = transfer.teacher_memory[:] = axes(0, 0, 0, 0)
    transfer.met[:] = True
    loss = transfer(axes(1), axes(1), torch.tensor([2]))
    assert float(loss) == pytest.approx(2 * log(4), rel=1e-5)


def test_clt_has_nothing_to_tell_from_at_first() -> None:
    transfer = plain_transfer()
    assert float(transfer(axes(0), axes(1), torch.tensor([2]))) == 0
    assert transfer.met.tolist() == [False, False, True, False]
    torch.testing.assert_close(transfer.student_memory[2:3], axes(0))
    torch.testing.assert_close(transfer.teacher_memory[2:3], axes(1))


def test_memory_keeps_half_of_what_it_held() -> None:
    """(e0 + e1) / 2 made a unit vector again."""
    transfer = plain_transfer()
    transfer(axes(0), axes(5), torch.tensor([2]))
    transfer(axes(1), axes(5), torch.tensor([2]))
    torch.testing.assert_close(transfer.student_memory[2:3], (axes(0) + axes(1)) / sqrt(2))
    torch.testing.assert_close(transfer.teacher_memory[2:3], axes(5))
    transfer.eval()
    transfer(axes(3), axes(3), torch.tensor([2]))
    torch.testing.assert_close(transfer.teacher_memory[2:3], axes(5))


def test_memory_draws_no_record_twice_and_none_that_was_not_met() -> None:
    transfer = plain_transfer(records=50, negatives=20)
    transfer.met[:30] = True
    torch.manual_seed(0)
    drawn, again = transfer._draw(), transfer._draw()
    assert len(set(drawn.tolist())) == 20
    assert max(drawn) < 30
    assert set(drawn.tolist()) != set(again.tolist())


def test_memory_is_saved_with_the_method() -> None:
    method = made("mvkt")
    copy = MVKT(SHAPE)
    copy.load_state_dict(method.state_dict())
    losses = []
    for each in (method, copy):
        torch.manual_seed(3)
        losses.append(each(*batch(6)))
    assert torch.equal(*losses)


def test_mvkt_is_the_weighted_sum_of_its_terms() -> None:
    student, teacher, wanted = batch(6)
    mkd = multilabel_distillation(student.logits, teacher.logits, wanted.known, 1.5)
    whole = []
    for alpha, beta in ((1.0, 0.0), (0.0, 0.8), (1.0, 0.8)):
        method = made("mvkt").eval()
        method.alpha, method.beta = alpha, beta
        torch.manual_seed(1)
        whole.append(method(student, teacher, wanted))
    torch.testing.assert_close(whole[0], mkd)
    assert whole[1] > 0
    torch.testing.assert_close(whole[2], whole[0] + whole[1])
