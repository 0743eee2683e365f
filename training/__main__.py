"""``python -m training pretrain|finetune|export|evaluate``: how a shipped bundle is made."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import structlog
import torch

from models.bundle import BUNDLES, DEFAULT, find_bundle
from models.runtime import Runtime
from models.system import LeadOneSystem
from training.calibrate import best_f_beta, platt
from training.data import (
    TRAIN_FOLDS,
    VALIDATION_FOLD,
    load_cinc2017,
    load_ptbxl,
    shipped_classes,
)
from training.evaluate import metrics
from training.export import write_bundle, write_metrics
from training.policy import alarm_rules
from training.stages import (
    Schedule,
    finetune_student,
    pretrain_restoration,
    validation_logits,
)

RESTORATION = "tiny"
STUDENT = "small"
_log = structlog.get_logger()


def main() -> int:
    """Run one stage; each reads what the stage before left in the run folder."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("stage", choices=["pretrain", "finetune", "export", "evaluate"])
    parser.add_argument("--data", type=Path, required=True, help="folder with ptbxl100, cinc2017")
    parser.add_argument(
        "--run", type=Path, default=Path("runs/first"), help="where weights are kept"
    )
    parser.add_argument("--epochs", type=int, help="of this stage (default: as the shipped bundle)")
    parser.add_argument("--version", default="1", help="of the exported bundle")
    parser.add_argument(
        "--bundle", default=DEFAULT, help="name to export to, or bundle to evaluate"
    )
    arguments = parser.parse_args()
    if not (arguments.data / "ptbxl100").is_dir():
        sys.stderr.write(f"{arguments.data}: expected a folder that holds ptbxl100 and cinc2017\n")
        return 2
    arguments.run.mkdir(parents=True, exist_ok=True)
    {"pretrain": _pretrain, "finetune": _finetune, "export": _export, "evaluate": _evaluate}[
        arguments.stage
    ](arguments)
    return 0


def _pretrain(arguments: argparse.Namespace) -> None:
    classes = shipped_classes(arguments.data)
    net, error = pretrain_restoration(
        load_ptbxl(arguments.data, TRAIN_FOLDS, classes),
        load_ptbxl(arguments.data, [VALIDATION_FOLD], classes),
        RESTORATION,
        Schedule(epochs=arguments.epochs or 6, learning_rate=3e-3),
    )
    torch.save(net.state_dict(), arguments.run / "restoration.pt")
    _log.info("restoration trained", validation_mse=round(error, 4))


def _finetune(arguments: argparse.Namespace) -> None:
    classes = shipped_classes(arguments.data)
    system = LeadOneSystem(RESTORATION, STUDENT, len(classes))
    system.restoration.load_state_dict(
        torch.load(arguments.run / "restoration.pt", weights_only=True)
    )
    finetune_student(
        system,
        load_ptbxl(arguments.data, TRAIN_FOLDS, classes),
        load_cinc2017(arguments.data, "train"),
        (
            load_ptbxl(arguments.data, [VALIDATION_FOLD], classes),
            load_cinc2017(arguments.data, "validation"),
        ),
        classes,
        Schedule(epochs=arguments.epochs or 10),
        arguments.run / "system.pt",
    )


def _export(arguments: argparse.Namespace) -> None:
    classes = shipped_classes(arguments.data)
    system = LeadOneSystem(RESTORATION, STUDENT, len(classes))
    system.load_state_dict(torch.load(arguments.run / "system.pt", weights_only=True))
    logits, labels, known = validation_logits(
        system,
        load_ptbxl(arguments.data, [VALIDATION_FOLD], classes),
        load_cinc2017(arguments.data, "validation"),
        classes,
    )
    slope, offset = platt(logits, labels, known)
    system.slope.copy_(torch.from_numpy(slope))
    system.offset.copy_(torch.from_numpy(offset))
    probabilities = 1 / (1 + np.exp(-(slope * logits + offset)))
    thresholds = np.array(
        [
            best_f_beta(probabilities[known[:, c], c], labels[known[:, c], c], 1)
            for c in range(len(classes))
        ]
    )
    bundle = write_bundle(
        BUNDLES / arguments.bundle,
        system,
        classes,
        thresholds,
        alarm_rules(probabilities, labels, known, classes),
        version=arguments.version,
        sizes={"restoration": RESTORATION, "student": STUDENT},
    )
    write_metrics(bundle, metrics(Runtime(bundle), arguments.data))
    _log.info("bundle written", path=str(bundle.path))


def _evaluate(arguments: argparse.Namespace) -> None:
    measured = metrics(Runtime(find_bundle(arguments.bundle)), arguments.data)
    sys.stdout.write(json.dumps(measured, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
