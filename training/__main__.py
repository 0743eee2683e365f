"""How a bundle is made, from data sets to a folder that the daemon can run.

  prepare   turn a data set into the cached form that every stage reads
  pretrain  train the restoration net or the teacher, or a classifier without labels
  finetune  train a network further, or a student without a teacher
  distill   train a student with a teacher, by one of the methods
  evaluate  measure finished runs on their test folds, or a bundle
  export    calibrate a student and write it as a bundle
  report    put finished runs on one page, with pictures
  table     train, measure and print one of the comparisons
  rhythm    cross-validate, fit and ship the watch for lethal rhythms

Every stage writes into the folder of its run: run.yaml (enough to repeat it), history.jsonl,
checkpoint.pt and best.pt. The same command again goes on from the last checkpoint.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
import yaml

from models.yaml_text import parse
from training.errors import TrainingError

_STAGES = {
    "pretrain": ("restoration", "masked", "contrast", "teacher"),
    "finetune": None,
    "distill": ("student",),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 failed (one line on stderr says why), 2 misused."""
    parsed = _parser().parse_args(arguments)
    if sys.stdout is None:  # closed by who started it
        sys.stdout = io.StringIO()
    try:
        with _log_to_stderr():
            parsed.run_command(parsed)
        sys.stdout.flush()
    except TrainingError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        # Nobody reads the output, its disk is full, or a file is not to be read or written.
        sys.stderr.write(f"{error.filename or 'output'}: {error.strerror or error}\n")
        if error.filename is None:  # what is left of the output would fail once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from the last checkpoint\n")
        return 130
    return 0


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Logs would else stand between the figures that a command prints."""
    before = structlog.get_config()
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    try:
        yield
    finally:
        structlog.configure(**before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, does: str, run: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=does, description=does)
        made.set_defaults(run_command=run, stage=name)
        return made

    p = command("prepare", "turn a data set into the cached form", _prepare)
    p.add_argument("source", type=Path, help="folder of the data set, or a label CSV beside it")
    p.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    p.add_argument("--kind", help="layout of the data set (default: found by looking)")
    p.add_argument("--rate", type=float, default=100.0, help="Hz of the windows (default 100)")
    p.add_argument("--length", type=int, default=1000, help="samples of a window (default 1000)")

    for name, does in (
        ("pretrain", "train the restoration net or the teacher, or a classifier without labels"),
        ("finetune", "train a network further (start: RUN), or a student without a teacher"),
        ("distill", "train a student with a teacher"),
    ):
        p = command(name, does, _train)
        p.add_argument("-c", "--config", type=Path, required=True, help="YAML of the run")
        p.add_argument("-r", "--run", type=Path, required=True, help="folder of the run")
        p.add_argument("--seed", type=int, help="over what the YAML says")
        p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                       help="over what the YAML says, such as schedule.steps=200")  # fmt: skip
        if name == "distill":
            p.add_argument("--method", help="over what the YAML says; `list` names them")

    p = command("evaluate", "measure finished runs, or a bundle", _evaluate)
    p.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of runs")
    p.add_argument("--bundle", help="a shipped bundle by name, or any by path")
    p.add_argument("--data", type=Path, help="packed recordings, to measure a bundle on")
    p.add_argument(
        "--on", type=Path, metavar="CACHE", help="another prepared data set (cross-device)"
    )
    p.add_argument("--folds", type=int, nargs="+", help="of that data set (default: all)")
    p.add_argument(
        "--teacher", type=Path, help="judge restored leads too: does it say the same of them?"
    )

    p = command("export", "calibrate a student and write it as a bundle", _export)
    p.add_argument("run", type=Path, help="folder of the student's run")
    p.add_argument("--bundle", required=True, help="name of the bundle")
    p.add_argument("--version", default="1", help="of the bundle (default 1)")
    p.add_argument("--data", type=Path, required=True, help="packed recordings to measure it on")

    p = command("report", "put finished runs on one page", _report)
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    p.add_argument("-o", "--out", type=Path, required=True, help="page to write: .html or .md")
    p.add_argument("--title", default="Runs", help="of the page")

    p = command("table", "train, measure and print one of the comparisons", _table)
    p.add_argument("number", type=int,
                   help="1: 10 %% labels, 2: 5 %%, 3: all labels, 4: sizes, "
                   "5: the runs of 1 on another device, 6: each lead, 7: how to teach the "
                   "shipped student, 8: pre-training, 9: 1 with random crops, 10: 1 with "
                   "other weights and parts of LiteHeart alone")  # fmt: skip
    p.add_argument("--cache", type=Path, required=True, help="prepared PTB-XL")
    p.add_argument("--other", type=Path, metavar="CACHE", help="the other data set of table 5")
    p.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="default 1 2")
    p.add_argument("-o", "--out", type=Path, help="page to write the table to: .html or .md")

    p = command("rhythm", "cross-validate, fit and ship the watch for lethal rhythms", _rhythm)
    p.add_argument("--data", type=Path, required=True, help="folder of vfdb, cudb, mitdb, …")
    p.add_argument("-r", "--run", type=Path, required=True, help="folder of the run")
    p.add_argument("--steps", type=int, default=3600, help="of each network (default 3600)")
    p.add_argument("--seed", type=int, default=1, help="default 1")
    p.add_argument("--ship", type=int, metavar="VERSION", help="ship it as this version")
    return parser


def _prepare(parsed: argparse.Namespace) -> None:
    from training.datasets.prepare import prepare
    from training.datasets.sources import guess_kind, open_source

    kind = parsed.kind or guess_kind(parsed.source)
    report = prepare(
        open_source(kind, parsed.source),
        parsed.out,
        origin=parsed.source,
        rate=parsed.rate,
        length=parsed.length,
    )
    sys.stdout.write(str(report))


def _train(parsed: argparse.Namespace) -> None:
    from training.config import load_config
    from training.losses import methods
    from training.run import train

    changes = dict(_change(text) for text in parsed.changes)
    if parsed.seed is not None:
        changes["seed"] = parsed.seed
    if parsed.stage == "distill":
        if parsed.method == "list":
            sys.stdout.write("\n".join(methods()) + "\n")
            return
        if parsed.method:
            changes["method"] = parsed.method
    config = load_config(parsed.config, changes)
    allowed = _STAGES[parsed.stage]
    if allowed and config.network not in allowed:
        raise TrainingError(
            f"{parsed.config}: network: {config.network}; {parsed.stage} trains "
            f"{' or '.join(allowed)}"
        )
    if parsed.stage == "distill" and config.method is None:
        raise TrainingError(f"{parsed.config}: method: missing; `--method list` names them")
    if parsed.stage == "finetune" and config.method is not None:
        raise TrainingError(f"{parsed.config}: method: finetune has no teacher; use distill")
    best = train(config, parsed.run)
    sys.stdout.write(json.dumps(best) + "\n")


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise TrainingError(f"--set {text}: expected KEY=VALUE")
    try:
        return key, parse(value)
    except yaml.YAMLError as error:
        raise TrainingError(f"--set {text}: the value is not YAML") from error


def _evaluate(parsed: argparse.Namespace) -> None:
    from models.bundle import BundleError, find_bundle
    from models.runtime import Runtime
    from training.cross_device import cross_device
    from training.datasets.cache import Cache
    from training.evaluate import metrics
    from training.results import evaluate

    if bool(parsed.runs) == bool(parsed.bundle):
        raise TrainingError("evaluate: expected folders of runs, or --bundle with --data")
    for option, goes_with in _GOES_WITH.items():
        if getattr(parsed, option) is not None and not getattr(parsed, goes_with):
            raise TrainingError(f"--{option}: goes with {_SPELT[goes_with]} alone")
    if parsed.teacher and parsed.on:
        raise TrainingError("--teacher: says nothing of another data set; leave out --on")
    if parsed.bundle:
        _packed(parsed.data)
        try:
            bundle = find_bundle(parsed.bundle)
        except BundleError as error:
            raise TrainingError(str(error)) from error
        said: Any = metrics(Runtime(bundle), parsed.data)
    elif parsed.on:
        other = Cache(parsed.on)
        said = {str(run): cross_device(run, other, parsed.folds)["figures"] for run in parsed.runs}
    else:
        said = {str(run): evaluate(run, parsed.teacher)["figures"] for run in parsed.runs}
    sys.stdout.write(json.dumps(said, indent=2, ensure_ascii=False) + "\n")


# An option that says nothing would else be left out without a word.
_GOES_WITH = {"data": "bundle", "on": "runs", "teacher": "runs", "folds": "on"}
_SPELT = {"bundle": "--bundle", "runs": "folders of runs", "on": "--on"}


def _export(parsed: argparse.Namespace) -> None:
    from training.release import release

    _packed(parsed.data)
    bundle = release(parsed.run, parsed.bundle, parsed.version, parsed.data)
    sys.stdout.write(f"{bundle.path}\n")


def _report(parsed: argparse.Namespace) -> None:
    from training.report.runs import report

    report(parsed.runs, parsed.out, parsed.title)


def _table(parsed: argparse.Namespace) -> None:
    from training.cross_device import scores_name
    from training.datasets.cache import Cache
    from training.report.comparison import check_suffix, comparison, write
    from training.results import SCORES
    from training.tables import run_table

    if len(set(parsed.seeds)) < len(parsed.seeds):
        raise TrainingError(f"--seeds {' '.join(map(str, parsed.seeds))}: one stands there twice")
    check_suffix(parsed.out)
    other = Cache(parsed.other) if parsed.other else None
    done = run_table(parsed.number, parsed.runs, parsed.cache, parsed.seeds, other)
    name = scores_name(other) if other else SCORES
    title, sections = comparison(parsed.number, done, parsed.runs, name)
    write(title, sections, parsed.out)


def _rhythm(parsed: argparse.Namespace) -> None:
    from models.rhythm.model import RhythmModelError
    from training.rhythm.stage import ship, train

    if parsed.steps < 1:
        raise TrainingError(f"--steps {parsed.steps}: expected 1 or more")
    try:
        train(parsed.data, parsed.run, steps=parsed.steps, seed=parsed.seed)
        if parsed.ship is not None:
            sys.stdout.write(f"{ship(parsed.run, parsed.ship)}\n")
    except RhythmModelError as error:  # of a network that an earlier call left
        raise TrainingError(str(error)) from error


def _packed(data: Path | None) -> None:
    if data is None:
        raise TrainingError("--data: missing; expected the folder of packed recordings")
    for name in ("ptbxl100/labels.csv", "cinc2017/labels.csv", "lead1/all.npz", "samples/mitdb"):
        if not (data / name).exists():
            raise TrainingError(f"--data {data}: no {name}; expected the packed recordings")


if __name__ == "__main__":
    sys.exit(main())
