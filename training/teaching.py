"""What a fixed teacher, or several averaged, says of twelve real leads."""

from pathlib import Path

import numpy as np
import structlog
import torch
from torch import Tensor, nn

from training.errors import TrainingError
from training.fit import device, mixed
from training.losses import Outputs
from training.networks import load_classifier, width_of
from training.pool import Pool

_BATCH = 128
_log = structlog.get_logger()


class Teacher:
    """One or more trained classifiers of twelve leads.

    Several are an ensemble: the logits are averaged; features are the first one's. A class that a
    teacher does not know is left to the labels.

    Attributes:
        width: of the features.
        knows: float [classes], 1 where every teacher knows the class.

    Raises:
        TrainingError: if there is no class that all of them know.
    """

    def __init__(self, runs: list[Path], classes: tuple[str, ...]) -> None:
        self.networks: list[nn.Module] = []
        self._columns: list[Tensor] = []
        self.knows = torch.ones(len(classes), device=device())
        for run in runs:
            net, known = load_classifier(run)
            missing = [c for c in classes if c not in known]
            if missing:
                _log.warning("the teacher does not know", run=str(run), classes=missing)
            self.knows *= torch.tensor([float(c in known) for c in classes], device=device())
            self.networks.append(net)
            self._columns.append(
                torch.tensor([known.index(c) if c in known else 0 for c in classes])
            )
        if not self.knows.any():
            raise TrainingError(f"teachers: {runs[0]} knows none of the student's classes")
        self.width = width_of(self.networks[0])

    @torch.no_grad()
    def __call__(self, leads: Tensor) -> Outputs:
        """Outputs for [batch, 12, time], float32."""
        logits, features = [], None
        with mixed():
            for net, columns in zip(self.networks, self._columns, strict=True):
                z = net.features(leads.to(device()))  # type: ignore[operator]
                logits.append(net.classify(z).float()[:, columns])  # type: ignore[operator]
                features = z.float() if features is None else features
        assert features is not None
        return Outputs(torch.stack(logits).mean(dim=0), features)

    def of_all(self, pool: Pool) -> Outputs:
        """Outputs for every window of the pool, in its order; zeros where leads are missing."""
        rows, windows = pool.every_window()
        logits = torch.zeros(len(rows), len(self._columns[0]))
        features = torch.zeros(len(rows), self.width)
        seen = np.flatnonzero(pool.complete[rows])
        for some in np.array_split(seen, max(1, len(seen) // _BATCH)):
            said = self(pool.leads(rows[some], windows[some]))
            logits[some], features[some] = said.logits.cpu(), said.features.cpu()
        return Outputs(logits, features)
