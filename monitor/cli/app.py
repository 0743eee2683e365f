"""``leadone``: every command in one place, each with its work in a module of its own.

Modules that do work are imported by the command that needs them: ``leadone --help`` must not wait
for a database driver.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    name="leadone",
    help="Watches hearts through one lead. A monitor, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="The configuration file.", no_args_is_help=True)
database_app = typer.Typer(help="Care of the database.", no_args_is_help=True)
alarms_app = typer.Typer(help="Alarms.", no_args_is_help=True)
app.add_typer(alarms_app, name="alarms")
app.add_typer(config_app, name="config")
app.add_typer(database_app, name="db")

DEFAULT_CONFIG = Path("/etc/leadone/leadone.yaml")

ConfigOption = Annotated[
    Path,
    typer.Option(
        "-c", "--config", envvar="LEADONE_CONFIG", help="Configuration file.", show_default=True
    ),
]
OptionalConfigOption = Annotated[
    Path | None,
    typer.Option(
        "-c", "--config", envvar="LEADONE_CONFIG", help="Configuration file, to tell whose each is."
    ),
]
AddressArgument = Annotated[
    str, typer.Argument(help="Bluetooth address, as `leadone scan` shows it.")
]
AlarmArgument = Annotated[
    str, typer.Argument(help="Id of an alarm, or how it begins: 4 or more characters.")
]
PatientArgument = Annotated[str, typer.Argument(help="Patient id.")]
ByOption = Annotated[str | None, typer.Option(help="Who says so; by default who is logged in.")]
SilenceOption = Annotated[str, typer.Option("--for", help="How long: 30m, 2h; 24h at most.")]
AdapterOption = Annotated[
    str | None, typer.Option(help="Bluetooth adapter, e.g. hci1; by default the first.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
LeadOption = Annotated[
    str | None, typer.Option(help="Lead to read; by default I, or the first where there is none.")
]
SinceOption = Annotated[
    str, typer.Option(help="From when: a duration back from now (90m, 24h, 7d) or a UTC time.")
]
UntilOption = Annotated[
    str | None, typer.Option(help="Until when, likewise; by default to the end.")
]


@app.callback()
def _before() -> None:
    # Whatever a command says of itself goes to standard output; what is logged must not, and
    # until somebody says so it would.
    from monitor import logs

    logs.configure("warning", "human")


@app.command()
def demo(
    duration: Annotated[
        str | None, typer.Option("--for", help="End after this long, e.g. 60s; else on Ctrl-C.")
    ] = None,
    speed: Annotated[float, typer.Option(help="How many times faster than life.", min=0.1)] = 5.0,
    show: Annotated[
        list[str] | None,
        typer.Option(
            help="Let one more patient have this after 20 s: vf, vt, asystole, torsades, "
            "tooth_brushing or whatever else docs/simulator.md lists. May be given again."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run the whole daemon on simulated patients: nothing to configure, nothing kept."""
    from monitor.cli.demo import run_demo

    run_demo(duration, speed, show=show or (), json_lines=json)


@app.command()
def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the daemon."""
    from monitor.cli.run import run_daemon

    run_daemon(config)


@app.command("start-failed", hidden=True)
def start_failed(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Take in that the daemon has ended, and tell people if it does not run: for the unit."""
    from monitor.cli.start_failures import note_end

    note_end(config)


@app.command()
def analyze(
    records: Annotated[list[Path], typer.Argument(help="WFDB, EDF or CSV recordings.")],
    json: JsonOption = False,
    lead: LeadOption = None,
    rate: Annotated[float | None, typer.Option(help="Samples per second of a CSV, in Hz.")] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of a CSV: uV, mV, V.")] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Model bundle; by default the shipped.")
    ] = None,
) -> None:
    """Read recordings through the same pipeline, once, and print what is seen in each window."""
    from monitor.cli.analyze import analyze_records

    raise typer.Exit(analyze_records(records, lead, rate, unit, bundle, json_lines=json))


@app.command()
def replay(
    records: Annotated[list[Path], typer.Argument(help="WFDB, EDF or CSV recordings.")],
    patient: Annotated[str, typer.Option(help="Configured patient to play them for.")],
    config: ConfigOption = DEFAULT_CONFIG,
    speed: Annotated[float, typer.Option(help="How many times faster than life.", min=0.01)] = 1.0,
    lead: LeadOption = None,
) -> None:
    """Feed recordings into the configured pipeline and database as if they were live."""
    from monitor.cli.run import replay_records

    replay_records(config, records, patient, speed, lead)


@app.command()
def publish(
    records: Annotated[list[Path], typer.Argument(help="WFDB, EDF or CSV recordings.")],
    url: Annotated[str, typer.Option(help="Broker: mqtt://HOST[:PORT] or mqtts://HOST[:PORT].")],
    patient: Annotated[str, typer.Option(help="Patient to play them for.")],
    device: Annotated[str, typer.Option(help="What the device is called.")],
    copies: Annotated[
        int, typer.Option(help="For so many patients at once: PATIENT-1 …", min=1, max=10_000)
    ] = 1,
    speed: Annotated[float, typer.Option(help="How many times faster than life.", min=0.01)] = 1.0,
    lead: LeadOption = None,
    form: Annotated[
        Literal["json", "cbor"], typer.Option("--format", help="How messages are written.")
    ] = "json",
    chunk: Annotated[str, typer.Option(help="Length of a message.")] = "1s",
    username: Annotated[str | None, typer.Option(help="User at the broker.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File that holds the password and nothing else.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="Authority that signed the broker's certificate.")
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="Client certificate.")] = None,
    key: Annotated[Path | None, typer.Option(help="Key of the client certificate.")] = None,
) -> None:
    """Play recordings to an MQTT broker as a device would."""
    from monitor.cli.publish import Access, Playing, publish_records

    publish_records(
        Access(url, username, password_file, ca, cert, key),
        Playing(
            records=records,
            patient=patient,
            device=device,
            copies=copies,
            speed=speed,
            lead=lead,
            form=form,
            chunk=chunk,
        ),
    )


@app.command()
def scan(
    config: OptionalConfigOption = None,
    adapter: AdapterOption = None,
    duration: Annotated[str, typer.Option("--for", help="How long to look.")] = "10s",
    everything: Annotated[
        bool, typer.Option("--all", help="Everything that advertises, not only straps.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show the chest straps within reach, and what each can give."""
    from monitor.cli.bluetooth import scan as scan_straps

    scan_straps(config, adapter, duration, everything=everything, json_lines=json)


@app.command()
def pair(
    address: AddressArgument,
    patient: Annotated[str, typer.Option(help="Configured patient who wears it.")],
    device: Annotated[
        str | None, typer.Option(help="What to call it; by default its model.")
    ] = None,
    adapter: AdapterOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Pair a chest strap with a patient, and draw ten seconds of what it sends."""
    from monitor.cli.bluetooth import pair as pair_strap

    pair_strap(config, address, patient, device, adapter)


@app.command()
def unpair(address: AddressArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Take a chest strap from its patient; what it recorded stays."""
    from monitor.cli.bluetooth import unpair as unpair_strap

    unpair_strap(config, address)


@app.command()
def devices(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Every device: its state and what to do about it, battery, last sample, drops today."""
    from monitor.cli.devices import show_devices

    show_devices(config, json_lines=json)


@app.command()
def doctor(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Look at the whole installation; exit 1 with what to do if something is wrong."""
    from monitor.cli.doctor import examine

    raise typer.Exit(examine(config, json_lines=json))


@app.command()
def history(
    patient: Annotated[str, typer.Argument(help="Patient id.")],
    config: ConfigOption = DEFAULT_CONFIG,
    since: SinceOption = "24h",
    until: UntilOption = None,
    json: JsonOption = False,
) -> None:
    """What was seen: rates, rhythms, quality and gaps over time; with --json every window."""
    from monitor.cli.history import show_history

    show_history(config, patient, since, until, json_lines=json)


@app.command()
def episodes(
    patient: Annotated[str, typer.Argument(help="Patient id.")],
    config: ConfigOption = DEFAULT_CONFIG,
    since: SinceOption = "24h",
    until: UntilOption = None,
    json: JsonOption = False,
) -> None:
    """Stretches in which a class was positive, and the alarms there were."""
    from monitor.cli.history import show_episodes

    show_episodes(config, patient, since, until, json_lines=json)


@alarms_app.command("list")
def alarms_list(
    config: ConfigOption = DEFAULT_CONFIG,
    patient: Annotated[str | None, typer.Option(help="Only this patient's.")] = None,
    since: SinceOption = "24h",
    json: JsonOption = False,
) -> None:
    """List the alarms that are on, then those that ended lately, with every change of state."""
    from monitor.cli.alarms import show_alarms

    show_alarms(config, patient, since, json_lines=json)


@alarms_app.command("show")
def alarms_show(
    alarm: AlarmArgument, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False
) -> None:
    """Everything of one alarm: what changed, who did what, who was told and by which way."""
    from monitor.cli.alarms import show_alarm

    show_alarm(config, alarm, json_lines=json)


@alarms_app.command("ack")
def alarms_ack(
    alarms: Annotated[
        list[str] | None, typer.Argument(help="Ids of alarms, or how they begin.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    patient: Annotated[str | None, typer.Option(help="All of this patient's.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    by: ByOption = None,
) -> None:
    """Answer alarms: nobody is told of them any more, unless they get worse."""
    from monitor.cli.asking import acknowledge

    acknowledge(config, alarms or [], patient, by, everything=everything)


@alarms_app.command("snooze")
def alarms_snooze(
    alarms: Annotated[list[str], typer.Argument(help="Ids of alarms, or how they begin.")],
    duration: SilenceOption,
    config: ConfigOption = DEFAULT_CONFIG,
    by: ByOption = None,
) -> None:
    """Answer alarms for a time: what is still true then comes on again."""
    from monitor.cli.asking import snooze

    snooze(config, alarms, duration, by)


@alarms_app.command("pause")
def alarms_pause(
    patient: PatientArgument,
    duration: SilenceOption,
    config: ConfigOption = DEFAULT_CONFIG,
    kind: Annotated[
        str | None, typer.Option(help="Only these: class:AF, class, rate, device, device:h10 …")
    ] = None,
    by: ByOption = None,
) -> None:
    """Tell nobody of a patient's alarms for a time; they are recorded all the same."""
    from monitor.cli.asking import pause

    pause(config, patient, kind, duration, by)


@alarms_app.command("resume")
def alarms_resume(
    patient: PatientArgument, config: ConfigOption = DEFAULT_CONFIG, by: ByOption = None
) -> None:
    """End a patient's pauses; what is on by now is told."""
    from monitor.cli.asking import resume

    resume(config, patient, by)


@alarms_app.command("test")
def alarms_test(
    config: ConfigOption = DEFAULT_CONFIG,
    contact: Annotated[str | None, typer.Option(help="Only this contact.")] = None,
    json: JsonOption = False,
) -> None:
    """Send a test message by every channel of every contact; exit 1 if any fails."""
    from monitor.cli.trial import try_channels

    raise typer.Exit(try_channels(config, contact, json_lines=json))


@alarms_app.command("explain")
def alarms_explain(
    about: Annotated[str, typer.Argument(help="Patient id, or how the id of an alarm begins.")],
    config: ConfigOption = DEFAULT_CONFIG,
    at: Annotated[
        str | None, typer.Option(help="Around when: 10m (ago) or a UTC time; by default now.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="From when on, likewise.")] = None,
    json: JsonOption = False,
) -> None:
    """Show the windows and the rule that led to an alarm, or why there was none."""
    from monitor.cli.explain import explain

    explain(config, about, at, since, json_lines=json)


@alarms_app.command("simulate")
def alarms_simulate(
    records: Annotated[list[Path], typer.Argument(help="WFDB, EDF or CSV recordings.")],
    config: Annotated[
        Path | None,
        typer.Option(
            "-c",
            "--config",
            envvar="LEADONE_CONFIG",
            help=f"Configuration file; by default {DEFAULT_CONFIG}, or the usual rules if there "
            "is none.",
        ),
    ] = None,
    patient: Annotated[
        str | None, typer.Option(help="Whose rules; by default those of somebody without any.")
    ] = None,
    expect: Annotated[
        str | None, typer.Option(help="What each should raise, e.g. AF: count what is missed.")
    ] = None,
    lead: LeadOption = None,
    json: JsonOption = False,
) -> None:
    """Replay recordings through the rules: which alarms there would have been, and when."""
    from monitor.cli.simulate import simulate_records

    if config is None and DEFAULT_CONFIG.exists():
        config = DEFAULT_CONFIG
    raise typer.Exit(simulate_records(config, records, patient, expect, lead, json_lines=json))


@config_app.command("check")
def config_check(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Say what is wrong with a configuration, one line a problem; exit 1 if anything is."""
    from monitor.cli.care import check_config

    check_config(config)


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the configuration: every key, documented."""
    from monitor.cli.care import print_schema

    print_schema()


@config_app.command("example")
def config_example() -> None:
    """Print a commented configuration to start from."""
    from monitor.config import example

    typer.echo(example(), nl=False)


@database_app.command("upgrade")
def db_upgrade(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Create the database or bring it to this program's schema."""
    from monitor.cli.care import upgrade_database

    upgrade_database(config)


@database_app.command("check")
def db_check(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Check that everything stored is whole; exit 1 with one line a problem if not."""
    from monitor.cli.care import check_database

    raise typer.Exit(check_database(config, json_lines=json))


@database_app.command("backup")
def db_backup(
    path: Annotated[Path, typer.Argument(help="File to write; must not exist.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Copy the database while the daemon runs, and verify the copy."""
    from monitor.cli.care import backup_database

    backup_database(config, path)


def main() -> None:
    """Run a command: exit 0 when done, 1 when it failed (a line says why), 2 when misused."""
    try:
        app(prog_name="leadone")
    except Exception as error:
        # Not above: it knows the database, which --help must not wait for.
        from monitor.cli.errors import KNOWN, MisuseError

        if not isinstance(error, KNOWN):
            raise
        for line in str(error).splitlines():
            sys.stderr.write(f"leadone: {line}\n")
        sys.exit(2 if isinstance(error, MisuseError) else 1)
