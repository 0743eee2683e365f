"""The loop that every network is trained by: steps, validation, early stopping, checkpoints."""

import json
import math
import pickle
import zipfile
import zlib
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import structlog
import torch
from torch import Tensor, nn

from training.config import Schedule
from training.errors import TrainingError
from training.files import disk, replacing, write_text

CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"
HISTORY = "history.jsonl"
_NO_ZIP = (zipfile.BadZipFile, zlib.error, NotImplementedError, LookupError)
_log = structlog.get_logger()


class Task(Protocol):
    """What is trained, and how it is judged."""

    @property
    def network(self) -> nn.Module:
        """The network that is kept."""

    @property
    def trained(self) -> nn.Module:
        """Everything that has gradients: the network, and what its method adds."""

    def loss(self) -> dict[str, Tensor]:
        """Draw the next batch; the terms of its loss, the whole under ``loss``."""

    def validate(self) -> dict[str, float]:
        """Figures on the validation records; the one to raise is ``score``."""

    def state(self) -> dict[str, Any]:
        """What must be saved to go on with the very next batch."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mixed() -> torch.autocast:
    """Forward passes in bfloat16 on a GPU, and on a processor that computes in it.

    (Measured 1.7 times as fast with AVX512-BF16; a processor without would only be slowed.)
    """
    kind = device().type
    usable = kind == "cuda" or torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001
    return torch.autocast(kind, torch.bfloat16, enabled=usable)


def fit(task: Task, schedule: Schedule, run: Path) -> dict[str, float]:
    """Train, or go on with what ``run`` holds, until the steps are done or nothing improves.

    A checkpoint is written at every validation; a run killed at any moment and started again ends
    with the very weights of one that was not, on the same machine.

    Returns:
        The figures of the best validation, whose weights are left in ``run / BEST`` and in the
        task's network.

    Raises:
        TrainingError: if the loss is no number, or the disk is full. The last checkpoint stands.
    """
    parameters = [p for p in task.trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=schedule.learning_rate,
        total_steps=schedule.steps,
        # It divides by this share of the steps less one.
        pct_start=0.4 if schedule.steps == 5 else 0.2,
    )
    progress = _Progress(schedule)
    best: dict[str, float] = {}
    if (run / CHECKPOINT).exists():
        best = _resume(run / CHECKPOINT, task, optimizer, cycle, progress)
        _log.info("resumed", run=str(run), step=progress.step, of=schedule.steps)
    else:
        (run / HISTORY).unlink(missing_ok=True)
    while _goes_on(schedule, progress.step, progress.best_step):
        task.trained.train()
        progress.add(_step(task, optimizer, cycle, parameters, run, progress.step))
        if progress.step % schedule.validate_every and progress.step < schedule.steps:
            continue
        figures = task.validate()
        _check_finite(task, figures, run, progress.step)
        if not best or figures["score"] > best["score"]:
            best = {**figures, "step": float(progress.step)}
            progress.best_step = progress.step
            _save(run / BEST, task.network.state_dict())
        _report(run, progress, figures)
        _save(
            run / CHECKPOINT,
            {
                "trained": task.trained.state_dict(),
                "optimizer": optimizer.state_dict(),
                "cycle": cycle.state_dict(),
                "task": task.state(),
                "random": _random_state(),
                "progress": (progress.step, progress.best_step),
                "best": best,
            },
        )
    task.network.load_state_dict(read_weights(run))
    task.network.eval()
    return best


def read_weights(run: Path) -> dict[str, Tensor]:
    """The weights of a run's best validation.

    Raises:
        TrainingError: if they are not there or damaged.
    """
    path = run / BEST
    if not path.is_file():
        raise TrainingError(f"{run}: no {BEST}; expected the folder of a trained run")
    weights: dict[str, Tensor] = _load(path, "train the run anew", torch.device("cpu"))
    return weights


def _load(path: Path, else_do: str, to: torch.device) -> Any:
    """What ``torch.save`` wrote; torch itself reads on over a bit that was turned.

    Raises:
        TrainingError: if it cannot be read or is damaged; what to do then is said.
    """
    try:
        _check_archive(path)
        return torch.load(path, weights_only=True, map_location=to)
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror or error}") from error
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError, *_NO_ZIP) as error:
        raise TrainingError(f"{path}: damaged; {else_do}") from error


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as parts:
        # A folder is not read at all, and torch would give what happens to be in memory.
        if parts.testzip() is not None or any(p.external_attr for p in parts.infolist()):
            raise zipfile.BadZipFile(f"{path}: a checksum or an attribute is wrong")


def require_finished(run: Path, schedule: Schedule) -> None:
    """Refuse a run that was stopped before its end.

    Raises:
        TrainingError: if it was, or if its history is not there or damaged.
    """
    lines = read_history(run)
    if not lines:
        raise TrainingError(f"{run}: its {HISTORY} is empty; train the run anew")
    step = lines[-1]["step"]
    best = max(lines, key=lambda line: line["validation_score"])
    if _goes_on(schedule, step, best["step"]):
        raise TrainingError(
            f"{run}: stopped at step {step} of {schedule.steps}; train it to its end first, by the "
            "command that began it"
        )


def _goes_on(schedule: Schedule, step: float, best_step: float) -> bool:
    """Whether steps are left, and patience since the best validation."""
    waited = (step - best_step) // schedule.validate_every
    return step < schedule.steps and waited < schedule.patience


def read_history(run: Path) -> list[dict[str, float]]:
    """What a run reported at each validation, step by step.

    A last line that was not written to its end, by a full disk or a power cut, is left out.

    Raises:
        TrainingError: if there is no history, or an earlier line is damaged.
    """
    path = run / HISTORY
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{run}: no {HISTORY} to read; expected the folder of a run") from error
    lines, _, _ = text.rpartition("\n")
    result = []
    for number, line in enumerate(lines.splitlines(), 1):
        try:
            said = json.loads(line)
            said["step"], said["validation_score"]
            result.append(said)
        except (ValueError, TypeError, KeyError) as error:
            raise TrainingError(f"{path}: line {number} is damaged; remove it") from error
    return result


class _Progress:
    """Where a run stands, and how long the rest will take."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.step = 0
        self.best_step = 0
        self._begun, self._first = monotonic(), 0
        self._sums: dict[str, float] = {}
        self._counted = 0

    def resume(self, step: int, best_step: int) -> None:
        self.step, self.best_step, self._first = step, best_step, step

    def add(self, terms: dict[str, float]) -> None:
        self.step += 1
        self._counted += 1
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Of each term of the loss since the last validation."""
        result = {name: total / self._counted for name, total in self._sums.items()}
        self._sums, self._counted = {}, 0
        return result

    def eta_s(self) -> float:
        pace = (monotonic() - self._begun) / max(1, self.step - self._first)
        return pace * (self._schedule.steps - self.step)


def _step(
    task: Task,
    optimizer: torch.optim.Optimizer,
    cycle: torch.optim.lr_scheduler.LRScheduler,
    parameters: list[nn.Parameter],
    run: Path,
    step: int,
) -> dict[str, float]:
    terms = task.loss()
    values = {name: float(term.detach()) for name, term in terms.items()}
    if not math.isfinite(values["loss"]):
        parts = ", ".join(f"{name} {value:g}" for name, value in values.items())
        raise _not_a_number(run, f"the loss at step {step + 1} is not a number ({parts})")
    optimizer.zero_grad(set_to_none=True)
    terms["loss"].backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    cycle.step()
    return values


def _check_finite(task: Task, figures: dict[str, float], run: Path, step: int) -> None:
    """A state that is not finite must neither be kept as the best nor be gone on from."""
    if not math.isfinite(figures["score"]):
        raise _not_a_number(run, f"the validation at step {step} is not a number")
    if not all(bool(torch.isfinite(p).all()) for p in task.trained.parameters()):
        raise _not_a_number(run, f"a weight at step {step} is not a number")


def _not_a_number(run: Path, what: str) -> TrainingError:
    kept = (
        f"{run / CHECKPOINT} holds the last good state"
        if (run / CHECKPOINT).exists()
        else "no checkpoint yet"
    )
    return TrainingError(
        f"{run}: {what}; {kept}. Lower schedule.learning_rate (in another folder once there is a "
        "checkpoint) or look for bad values in the prepared data"
    )


def _report(run: Path, progress: _Progress, figures: dict[str, float]) -> None:
    line = {
        "step": progress.step,
        **{k: round(v, 5) for k, v in progress.means().items()},
        **{f"validation_{k}": round(v, 5) for k, v in figures.items()},
    }
    with disk(run), (run / HISTORY).open("a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")
    _log.info("step", run=run.name, **line, eta_s=round(progress.eta_s()))


def _resume(
    path: Path,
    task: Task,
    optimizer: torch.optim.Optimizer,
    cycle: torch.optim.lr_scheduler.LRScheduler,
    progress: _Progress,
) -> dict[str, float]:
    saved = _load(path, "remove it to train from the start", device())
    try:
        task.trained.load_state_dict(saved["trained"])
        optimizer.load_state_dict(saved["optimizer"])
        cycle.load_state_dict(saved["cycle"])
        task.restore(saved["task"])
        progress.resume(*saved["progress"])
        torch.set_rng_state(saved["random"]["cpu"].cpu())
        if "cuda" in saved["random"]:
            torch.cuda.set_rng_state(saved["random"]["cuda"].cpu())
        best: dict[str, float] = saved["best"]
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path}: not a checkpoint of this run; remove it to train from the start"
        ) from error
    _cut_history(path.parent / HISTORY, progress.step)
    return best


def _cut_history(path: Path, step: int) -> None:
    """Drop lines past the checkpoint, from a run killed between the two writes."""
    lines = read_history(path.parent) if path.exists() else []
    kept = "".join(f"{json.dumps(line)}\n" for line in lines if line["step"] <= step)
    write_text(path, kept)


def _random_state() -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _save(path: Path, what: Any) -> None:
    with replacing(path) as file:
        torch.save(what, file)
