"""The model card: what the bundle is, its data, how good it is, what it is not for."""

from typing import Any

from models.bundle import Manifest
from training.evaluation.false_alarms import poisson_interval

_BLIND = 0.8
_FEW = 20


def model_card(manifest: Manifest) -> str:
    """Markdown for people, from the manifest alone."""
    ptbxl: Any = manifest.metrics["ptbxl_fold9_lead_one"]
    cinc: Any = manifest.metrics["cinc2017_af_against_rest"]
    per_class = ptbxl["auc"]
    noisy: Any = manifest.metrics.get("ptbxl_fold9_with_wearable_noise")
    challenge: Any = manifest.metrics.get("cinc2017_challenge_score")
    more = ""
    if noisy is not None:
        more += (
            f"- The same with wearable noise ({noisy['measured_on']}): macro AUC "
            f"**{noisy['macro_auc']:.3f}**.\n"
        )
    if challenge is not None:
        more += (
            f"- The Challenge's score, mean F1 of N, A and O: **{challenge['f1']:.3f}**\n"
            f"  ({challenge['measured_on']}).\n"
        )
    rows = "\n".join(
        f"| {c.abbreviation} | {c.name} | {c.snomed or '–'} | {ptbxl['positives'][c.abbreviation]} "
        f"| {per_class[c.abbreviation]:.3f} | {_ends(ptbxl['auc_interval'][c.abbreviation])} "
        f"| {ptbxl['sensitivity'][c.abbreviation]:.0%} "
        f"| {ptbxl['precision'][c.abbreviation]:.0%} | {c.threshold:.2f} | {_alarm(c.alarm)} |"
        for c in sorted(manifest.classes, key=lambda c: -per_class[c.abbreviation])
    )
    names = {c.abbreviation: c.name for c in manifest.classes}
    blind = "\n".join(
        f"- {names[c]} ({auc:.2f})"
        for c, auc in sorted(per_class.items(), key=lambda item: item[1])
        if auc < _BLIND
    )
    few = ", ".join(c for c, n in ptbxl["positives"].items() if n < _FEW)
    data = "\n".join(f"- {d['licence']}: {d['used']}" for d in manifest.data)
    networks = ", ".join(f"{role} {size}" for role, size in manifest.networks.items())
    return f"""# {manifest.name} {manifest.version}

Lead {manifest.lead} in ({manifest.rate:g} Hz, {manifest.window_s:g} s, 1-47 Hz, z-scored); out come
the twelve leads restored from it, and {len(manifest.classes)} classes. Networks: {networks}, after
LiteHeart (arXiv 2511.02851): restoration by mean squared error, then the student by masked binary
cross-entropy on restored leads of augmented lead I. {_taught(manifest)}
Probabilities are calibrated per class (Platt scaling). Exported at commit {manifest.commit}.

**Not a medical device.** It has seen clinical resting ECGs and hand-held recordings. It has never
been tested on patients who wear a strap, and most classes below cannot be diagnosed from one lead
by anybody: an AUC of 0.8 still means many wrong verdicts for each right one when a disease is rare.
Restored leads show shape only (each lead in its own z-score), and what a net trained by mean
squared error expects, which is not evidence of what an electrode would have shown.

## Data

{data}

## Measured

`make bundle` prints these at the end of training, `make accuracy` measures them again.

- PTB-XL fold 9 from lead I alone ({ptbxl["measured_on"]}): macro AUC
  **{ptbxl["macro_auc"]:.3f}** (95 %: {_ends(ptbxl["macro_auc_interval"])}),
  mean average precision {ptbxl["mean_average_precision"]:.3f}.
- Challenge 2017, AF against the rest ({cinc["measured_on"]}): AUC **{cinc["auc"]:.3f}**; without
  the records labelled too noisy {cinc["auc_without_noisy"]:.3f}.
{more}
## What it cannot see

One lead looks at the heart from one side. AUC below {_BLIND} on fold 9, so rest no decision on:

{blind or "- none"}

Fewer than {_FEW} positive records there, so that the figures are little more than a guess and
their intervals too narrow: {few or "none"}.

## False alarms

{_false_alarms(manifest.metrics["false_alarms"])}

## Classes

Records: positive ones of fold 9. 95 %: the confidence interval of the AUC (DeLong). Threshold: the
calibrated probability of best F1 on the records to stop and calibrate (Data), from which a window
counts as positive; sensitivity and precision are at this threshold and, since those are among
them, a little too good.
Precision holds for a clinic's mix of patients; where a disease is rarer it is lower.

| class | name | SNOMED CT | records | AUC | 95 % | sensitivity | precision | threshold | alarm |
| --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: | --- |
{rows}
"""


def _false_alarms(sets: Any) -> str:
    lines = []
    for name, where in (
        ("mitdb", "MIT-BIH in sinus rhythm, chest lead"),
        (
            "lead1",
            "Lead-I database, those called healthy, lying, sitting or walking, 100 s of each",
        ),
    ):
        said = sets[name]
        raised = "; ".join(
            f"{c} {n} ({_rate(n, said['hours'])})" for c, n in said["alarms"].items()
        )
        lines.append(
            f"- {where}: {said['hearts']} hearts,\n  {said['hours']:g} hours. "
            f"Alarms raised: {raised or 'no rules'}."
        )
    return (
        "The default rules over all windows, unreadable ones too (the daemon leaves those out):\n\n"
        + "\n".join(lines)
    )


def _rate(alarms: int, hours: float) -> str:
    low, high = (bound / hours for bound in poisson_interval(alarms))
    return f"{alarms / hours:.2g} an hour; 95 %: {low:.2g} to {high:.2g}"


def _ends(interval: Any) -> str:
    low, high = interval
    return "–" if low is None else f"{low:.3f} to {high:.3f}"


def _taught(manifest: Manifest) -> str:
    said = "No distillation from a teacher."
    if manifest.method is not None:
        said = f"Distilled from a twelve-lead teacher: {manifest.method}."
    if manifest.rebalanced:
        said += (
            "\nThen its last two layers were trained once more by labels alone, rare classes"
            " weighed more\n(after the classifier re-training of arXiv 1910.09217)."
        )
    return said


def _alarm(rule: Any) -> str:
    if rule is None:
        return ""
    return f"{rule.priority}: {rule.k} of {rule.n} windows ≥ {rule.threshold:.2f}"
