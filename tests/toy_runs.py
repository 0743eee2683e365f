"""Small runs for tests: made-up records whose class is in their shape, and how to train on them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from models.leads import LEADS
from training.config import load_config
from training.datasets.record import Record
from training.run import train

CLASSES = ("AF", "PVC", "NSR")


class Toy:
    """Twelve-lead records whose class is written in their shape; folds 1 to 3."""

    name, licence = "toy", "none"
    leads: Sequence[str] = LEADS
    columns = CLASSES

    def ids(self) -> Sequence[str]:
        return [str(i) for i in range(60)]

    def read(self, name: str) -> Record:
        n = int(name)
        rng = np.random.default_rng(n)
        t = np.arange(1000) / 100
        kind = n % 3
        wave = 800 * np.sin(2 * np.pi * (2 + 3 * kind) * t)
        signal = np.stack([wave * (1 + 0.1 * i) for i in range(12)])
        return Record(
            id=name,
            patient=name,
            signal=(signal + rng.normal(0, 100, signal.shape)).astype(np.float32),
            rate=100.0,
            leads=LEADS,
            positive=frozenset({CLASSES[kind]}),
            known=None,
            fold=n % 5 + 1,
        )


class Long(Toy):
    """Records of two windows, of which the second is another class's."""

    def read(self, name: str) -> Record:
        record, other = super().read(name), super().read(str(int(name) + 1))
        signal = np.concatenate([record.signal, other.signal], axis=1)
        return replace(record, signal=signal)


class Watch(Toy):
    """Records of one lead, two windows each, of whose classes one is known elsewhere too."""

    name, leads, columns = "a watch", ("I",), ("AF", "elsewhere")

    def read(self, name: str) -> Record:
        record = super().read(name)
        return Record(
            id=name,
            patient=name,
            signal=np.concatenate([record.signal[:1]] * 2, axis=1),
            rate=100.0,
            leads=("I",),
            positive=record.positive & {"AF"},
            known=None,
            fold=None,
        )


def write_yaml(path: Path, toy: Path, **fields: object) -> Path:
    content: dict[str, object] = {
        "data": [{"cache": str(toy), "train": [1, 2, 3], "validation": [4], "test": [5]}],
        "classes": list(CLASSES),
        "size": "tiny",
        "schedule": {"steps": 4, "batch": 8, "validate_every": 2, "learning_rate": 1e-3},
        **fields,
    }
    path.write_text(yaml.safe_dump(content))
    return path


def restoring(folder: Path, cache: Path, restoration: Path) -> Path:
    """The YAML of a student that reads restored leads, by labels alone."""
    return write_yaml(
        folder / "s.yaml",
        cache,
        network="student",
        restores=True,
        restoration=str(restoration),
    )


def taught(trained: Path, method: str) -> dict[str, object]:
    """Keys of a student that one of the fixture's runs teaches and the other restores leads for."""
    return {
        "network": "student",
        "method": method,
        "teachers": [str(trained / "teacher")],
        "restoration": str(trained / "restoration"),
    }


def train_yaml(config: Path, run: Path, **changes: object) -> dict[str, float]:
    """Train what a YAML says; figures of the best validation."""
    return train(load_config(config, changes), run)
