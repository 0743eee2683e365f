"""``make bench``: speed, memory, start-up and size, measured on this machine in one run."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import footprint, latency, machine, process, throughput
from bench.footprint import Footprint, NotInstalledError
from bench.latency import Latencies
from bench.process import Memory, StartUp
from bench.throughput import Stages, WholePath
from models.bundle import DEFAULT, Bundle, find_bundle
from monitor import logs

_LARGEST = 8


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that the page says; ``installed`` is a reason where nothing was installed."""

    machine: dict[str, str]
    path: WholePath
    stages: Stages
    latency: Latencies
    start_up: StartUp
    one: Memory
    many: Memory
    installed: Footprint | str

    @property
    def each_more_mb(self) -> float:
        """What one more stream takes, by the largest proportional set sizes."""
        streams = self.many.streams - self.one.streams
        return (self.many.largest_pss - self.one.largest_pss) / streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything and print it, or write it to a file."""
    parser = argparse.ArgumentParser(prog="python -m bench.performance", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of recordings; without it, simulation")
    parser.add_argument("--bundle", default=DEFAULT)
    parser.add_argument("--write", type=Path, help="Markdown file to write")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.add_argument("--no-install", action="store_true", help="do not try pip install")
    options = parser.parse_args(arguments)
    bundle = find_bundle(options.bundle)
    figures = _measure(bundle, options.data, install=not options.no_install)
    page = _page(bundle, figures)
    if options.write is not None:
        options.write.write_text(page, encoding="utf-8")
        sys.stderr.write(f"{options.write}: written\n")
    if options.json:
        sys.stdout.write(json.dumps(_plain(figures), indent=2, ensure_ascii=False) + "\n")
    elif options.write is None:
        sys.stdout.write(page)
    return 0


def _measure(bundle: Bundle, data: Path | None, *, install: bool) -> Figures:
    here = machine.describe()
    logs.configure("error")
    material = throughput.Material(data)
    _say("latency beside the teacher's")
    latencies = latency.latencies(bundle)
    _say("whole path")
    path = throughput.whole_path(material, bundle)
    _say("stages")
    stages = throughput.stages(material, bundle)
    _say("start-up")
    start_up = process.start_up(bundle)
    _say(f"memory, 1 stream and {process.MANY} streams, {process.WATCH_S} s each")
    one, many = process.memory(bundle, 1), process.memory(bundle, process.MANY)
    installed: Footprint | str = "skipped: --no-install"
    if install:
        _say("installation")
        try:
            installed = footprint.footprint()
        except NotInstalledError as error:
            installed = f"skipped: {error}"
    return Figures(here, path, stages, latencies, start_up, one, many, installed)


def _say(what: str) -> None:
    """Progress, for it takes minutes."""
    sys.stderr.write(f"measuring {what} …\n")


def _plain(figures: Figures) -> dict[str, Any]:
    return asdict(figures) | {"each_more_mb": figures.each_more_mb}


def _verdict(value: float, target: float, *, at_least: bool = False) -> str:
    return "yes" if (value >= target if at_least else value <= target) else "**no**"


def _summary(f: Figures) -> str:
    ratio = f.latency.onnxruntime.ratio
    slowest = max(f.start_up.first_s, f.start_up.again_s)
    rows = [
        (
            "a window, read to stored, one core",
            "≤ 5 ms",
            f"{f.path.cpu_ms:.2f} ms processor time, {f.path.wall_ms:.2f} ms in all",
            _verdict(f.path.wall_ms, 5),
        ),
        (
            "memory, one stream",
            "≤ 150 MB",
            f"{f.one.largest_rss:.0f} MB",
            _verdict(f.one.largest_rss, 150),
        ),
        (
            "memory, each more",
            "≤ 2 MB",
            f"{f.each_more_mb:.2f} MB",
            _verdict(f.each_more_mb, 2),
        ),
        (
            "start to `ready`",
            "≤ 2 s",
            f"{f.start_up.again_s:.2f} s; {f.start_up.first_s:.2f} s with a new database",
            _verdict(slowest, 2),
        ),
        (
            "shipped graph against the teacher",
            "≥ 40 times faster",
            f"{ratio:.1f} times",
            _verdict(ratio, 40, at_least=True),
        ),
    ]
    return _table(("what", "wanted", "measured", "met"), rows)


def _page(bundle: Bundle, f: Figures) -> str:
    here = _table(("", ""), list(f.machine.items()))
    path, stages = f.path, f.stages
    latencies = _table(
        ("", "shipped, ms", "teacher, ms", "ratio"),
        [
            (name, f"{x.shipped_ms:.2f}", f"{x.teacher_ms:.1f}", f"{x.ratio:.1f}")
            for name, x in (
                ("ONNX Runtime", f.latency.onnxruntime),
                ("PyTorch", f.latency.torch),
            )
        ],
    )
    memories = _table(
        ("streams", "PSS, largest", "PSS, last", "RSS, largest", "RSS, last", "processor"),
        [
            (
                str(m.streams),
                *(f"{x:.1f} MB" for x in (m.largest_pss, m.last_pss, m.largest_rss, m.last_rss)),
                f"{m.cpu_share:.1%} of a core",
            )
            for m in (f.one, f.many)
        ],
    )
    return f"""# Performance

Written by `make bench` (bundle {bundle.name}, graph {bundle.digest[:12]}); every figure is from
that one run. Times are medians over repetitions.

{here}

{_summary(f)}

## The whole path

{path.material}, played as fast as they are taken, all at once, through the real daemon into a new
SQLite database (WAL) on disk: windows of 10 s every 5 s, chunks of 1 s, every thread on one core,
{path.windows} windows, {throughput.REPETITIONS} repetitions. {path.good:.1%} of the windows were
graded good; only those reach the network.

**{path.per_second:.0f} windows a second and core**: {path.wall_ms:.2f} ms a window, of them
{path.cpu_ms:.2f} ms processor time. One stream gives a window every 5 s.

## Stage by stage

Processor time a window on one core, each stage by itself, for windows that are read to their end
({stages.windows} windows; database writes on their own thread included).

{_table(("stage", "ms a window"), _stage_rows(stages))}

## Against the teacher

One 10 s window on one thread, in turns ({latency.REPETITIONS} each, each after a run of its own
that is not counted). The time is that thread's processor time, which on an idle core is the
latency.

- Shipped: restoration and student together, lead I at 100 Hz,
  {f.latency.shipped_parameters / 1e6:.2f} M parameters.
- Teacher: the paper's convolution-transformer, twelve leads at 500 Hz,
  {f.latency.teacher_parameters / 1e6:.2f} M parameters. Its weights are random, for nobody
  published its own. It runs with the same options of ONNX Runtime.

{latencies}

## Start-up

From the start of the process to `ready` in its log, {process.REPETITIONS} times each:
{f.start_up.first_s:.2f} s when the database has to be made, {f.start_up.again_s:.2f} s when it is
there. `leadone --help`: {f.start_up.help_s:.2f} s.

## Memory

`leadone run` on simulated patients at the speed of life, looked at every second for
{process.WATCH_S} s, simulators included. The database holds twenty minutes of good windows of every
patient, so that the alarm engine remembers as much as it ever does. MB are millions of bytes; each
further stream took {f.each_more_mb:.2f} MB (largest PSS).

{memories}

## Installation

{_installation(f.installed)}
"""


def _stage_rows(s: Stages) -> list[tuple[str, str]]:
    rows = [
        ("read and decode the recording", s.read),
        ("ring: cut windows", s.ring),
        ("quality and beats", s.beats),
        ("conditioning", s.conditioning),
        ("inference, alone", s.inference_1),
        (f"inference, in a batch of {throughput.BATCH}", s.inference_16),
        ("alarm rules", s.alarms),
        ("storage: segments and window", s.storage),
        ("sum, inference alone", s.total),
    ]
    return [(name, "–" if ms is None else f"{ms:.3f}") for name, ms in rows]


def _installation(installed: Footprint | str) -> str:
    if isinstance(installed, str):
        return installed[0].upper() + installed[1:] + "."
    sizes = list(installed.packages.items())
    rows = [(name, f"{mb:.1f} MB") for name, mb in sizes[:_LARGEST]]
    rest = sizes[_LARGEST:]
    rows.append((f"{len(rest)} others", f"{sum(mb for _, mb in rest):.1f} MB"))
    rows.append(("**all**", f"**{installed.total:.1f} MB**"))
    return (
        "The locked requirements and leadone in a new environment, without extras; neither torch "
        f"nor scipy comes along.\n\n{_table(('package', 'size'), rows)}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
