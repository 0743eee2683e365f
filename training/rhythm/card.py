"""The card of the rhythm model: what it is, its data, what was measured, what it is not for."""

from typing import Any

from models.rhythm.model import Manifest


def card(manifest: Manifest) -> str:
    """Write the card as Markdown, from the manifest alone."""
    m: Any = manifest.metrics
    t = manifest.thresholds
    false = ", ".join(f"{m['false'][s]} times in {h:g} h of {s}" for s, h in m["hours"].items())
    data = "\n".join(f"- {d['name']}: {d['licence']}. Used: {d['used']}." for d in manifest.data)
    return f"""# {manifest.name} {manifest.version}

Tells ventricular fibrillation and flutter, ventricular tachycardia, asystole, an organised rhythm
and noise apart in the last {manifest.length_s:g} s of one lead, in microvolts, 0.9 to 35 Hz at
{manifest.rate:g} Hz; a verdict each second. A network of five convolutions (`training/rhythm/network.py`)
in ONNX, {manifest.graph_sha256[:12]}…, made at commit {manifest.commit[:12]} by `python -m training rhythm`.

It is loaded by itself, whatever bundle of diagnoses is used. What each second says is weighed with
the seconds before it (`models/rhythm/decision.py`): log odds less {t.bias:g}, summed; from {t.raise_at:g}
on a lethal rhythm is told.

**Not a medical device.** No fibrillation in lead I of a chest strap was ever measured. It has seen
fibrillation or tachycardia of some thirty people, most of them in leads like MLII. A heart whose tachycardia looks
like its own sinus rhythm with a bundle branch block cannot be told from one lead by anybody.

## Data

{data}

Simulated hearts (`training/rhythm/simulated.py`) add people who move, torsades and flutter; asystole
is mostly made, for recordings hold a few seconds of it.

## Measured

{m["how"][0].upper()}{m["how"][1:]}: VF/flutter heard in {m["vf_heard"]} of {m["vf_episodes"]} episodes,
VT in {m["vt_heard"]} of {m["vt_episodes"]}. For nothing, before the rules of alarms: {false}.
Everything else, by person, with intervals and with a picture of each false alarm, is in
docs/rhythms.md, written by `make rhythms`.
"""
