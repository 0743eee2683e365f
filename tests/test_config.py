"""The configuration file: what is read from it, and what is said of each mistake."""

import json
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

import monitor.config.alarms
import monitor.config.model
import monitor.config.mqtt
import monitor.config.rules
from ingest.episodes import Episode, EpisodeKind
from monitor.config import (
    Config,
    ConfigError,
    ReplayConfig,
    SimulatorConfig,
    example,
    load_config,
    schema,
)
from monitor.config.mqtt import LimitsConfig

MINIMAL = """
patients: [{id: grandpa}]
sources: [{type: replay, patient: grandpa, device: holter, records: [monday.edf]}]
"""
KNOWN = "known keys are database, bundle, window, patients, sources, mqtt, alarms, log, inference"
IDENTIFIER = "expected 1 to 64 letters, digits, '_' or '-' (no spaces, no accents)"
ID = "Short name used everywhere, also in logs and messages."
NEVER_SEEN = "must be shorter than a window, 10 s, or it is never seen"
NOT_A_VALUE = "looks like a number, a date or a tag but is none; put text in quotes"
EXAMPLE = Path(__file__).parents[1] / "examples" / "leadone.yaml"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("leadone.yaml")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "leadone.yaml"


def load(path: Path, text: str) -> Config:
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def problems(path: Path, text: str | bytes) -> list[str]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == "\n".join(caught.value.problems)
    prefix = f"{path}: "
    assert all(problem.startswith(prefix) for problem in caught.value.problems)
    return [problem.removeprefix(prefix) for problem in caught.value.problems]


# --- what is read


def test_all_but_patients_and_sources_may_be_left_out(path: Path) -> None:
    config = load(path, MINIMAL)
    url = config.database.get_secret_value()
    assert url == "sqlite:////var/lib/leadone/leadone.db"
    assert config.bundle is None
    assert (config.window.length, config.window.hop) == (10.0, 5.0)
    assert (config.log.level, config.log.format) == ("info", "auto")
    assert config.inference.threads == 1
    (patient,) = config.patients
    assert (patient.id, patient.name, patient.alarms.pause) == ("grandpa", None, None)
    assert patient.alarms.classes == {}
    assert patient.alarms.rate.high is patient.alarms.rate.low is None
    (source,) = config.sources
    assert isinstance(source, ReplayConfig)
    assert (source.records, source.lead, source.speed) == ((Path("monday.edf"),), None, 1.0)


@pytest.mark.parametrize("sources", ["", "sources: []"])
def test_sources_may_be_left_out_where_straps_are_paired(path: Path, sources: str) -> None:
    assert load(path, f"patients: [{{id: grandpa}}]\n{sources}").sources == ()


def test_the_example_is_a_valid_configuration() -> None:
    config = load_config(EXAMPLE)
    simulator, replay = config.sources
    grandpa = config.patients[0]
    assert grandpa.alarms.chronic == ("AF",)
    assert config.mqtt is None
    assert config.alarms.contacts == ()
    assert (grandpa.alarms.rate.high, grandpa.alarms.rate.low) == (140, 38)
    assert grandpa.alarms.pause == 3.0
    assert isinstance(simulator, SimulatorConfig)
    assert [episode.duration for episode in simulator.script] == [120, 300, 60]
    assert simulator.script[0].settings == {"heart_rate": 64}
    assert isinstance(replay, ReplayConfig)
    assert replay.lead == "I"


def test_what_the_example_comments_out_is_valid_too(path: Path) -> None:
    block = example().split("# A broker that ECG comes from", 1)[1].split("\nlog:\n", 1)[0]
    lines = [line[2:] for line in block.splitlines()[1:] if line.startswith("# ")]
    text = "\n".join(line for line in lines if not line.startswith("Who is told"))
    text = re.sub(r"\{(file|env): [^}]+\}", "secret", text)
    config = load(path, f"patients: [{{id: grandpa}}, {{id: grandma}}]\n{text}")
    assert config.mqtt is not None
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.tls) == ("broker.example", 8883, True)
    first, second = (topic.topic_map() for topic in config.mqtt.topics)
    assert first.match("sensors/strap/ecg") == ("grandma", "strap")
    assert first.mapping.samples == "data.ecg"
    assert second.match("ward3/cabinet/grandpa") == ("grandpa", "cabinet")
    # What may be left out is as it is shown.
    assert config.mqtt.limits == LimitsConfig()
    assert [contact.name for contact in config.alarms.contacts] == ["anna", "neighbour"]
    assert config.alarms.heartbeat is not None


def test_the_simulator_can_play_the_example() -> None:
    simulator = load_config(EXAMPLE).sources[0]
    assert isinstance(simulator, SimulatorConfig)
    for episode in simulator.script:
        Episode(EpisodeKind(episode.kind), episode.duration, **episode.settings)


def test_the_example_on_disk_is_the_one_the_command_prints() -> None:
    assert EXAMPLE.read_text(encoding="utf-8") == example()


def sections() -> list[type[BaseModel]]:
    return [
        value
        for module in (
            monitor.config.model,
            monitor.config.mqtt,
            monitor.config.alarms,
            monitor.config.rules,
        )
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, BaseModel)
        and value.__module__ == module.__name__
        and value.model_fields
    ]


def test_every_key_is_documented_and_appears_in_the_example() -> None:
    assert len(sections()) >= 24
    for section in sections():
        assert section.__doc__
        for key, field in section.model_fields.items():
            assert field.title, f"{section.__name__}.{key}"
            assert field.description, f"{section.__name__}.{key}"
            assert re.search(rf"\b{key}:", example()), f"{key} is not in the example"


def test_the_schema_is_json_and_says_what_may_stand_where() -> None:
    document = json.loads(json.dumps(schema()))
    assert document["$schema"].startswith("https://json-schema.org/")
    assert set(document["properties"]) == set(Config.model_fields)
    assert document["required"] == ["patients"]
    assert document["additionalProperties"] is False
    database = document["properties"]["database"]["anyOf"]
    assert [option.get("type") or option["$ref"] for option in database] == [
        "string",
        "#/$defs/FromEnv",
        "#/$defs/FromFile",
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("7500ms", 7.5), ("0.5m", 30), ("10", 10), ("10.5", 10.5), ("'8s'", 8)],
)
def test_durations(path: Path, text: str, seconds: float) -> None:
    assert load(path, f"{MINIMAL}window: {{length: {text}}}").window.length == seconds


def test_long_durations(path: Path) -> None:
    text = MINIMAL.replace("replay", "simulator").replace(
        "records: [monday.edf]", "script: [{kind: sinus_rhythm, duration: 24h}]"
    )
    (source,) = load(path, text).sources
    assert isinstance(source, SimulatorConfig)
    assert source.script[0].duration == 86_400
    assert source.seed == 1


@pytest.mark.parametrize(
    "text", ["10 s", "-5s", "5sec", "s", "1e1s", "true", "[5]", "''", "1_0s", "٣s"]
)
def test_what_is_no_duration(path: Path, text: str) -> None:
    assert problems(path, f"{MINIMAL}window: {{length: {text}}}") == [
        "window.length: expected a duration such as 10s, 500ms, 2m or 24h, or a number of seconds"
    ]


def test_a_byte_order_mark_does_no_harm(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_config(path).patients[0].id == "grandpa"


def test_the_configuration_cannot_be_changed(path: Path) -> None:
    config = load(path, MINIMAL)
    with pytest.raises(ValidationError):
        config.log.level = "debug"


# --- secrets and names

URL = "postgresql+psycopg://leadone:hunter2@db/leadone"


def test_the_database_from_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADONE_DATABASE", URL)
    config = load(path, MINIMAL + "database: {env: LEADONE_DATABASE}")
    assert config.database.get_secret_value() == URL


def test_the_database_from_a_file(path: Path) -> None:
    Path("url").write_text(URL + "\n", encoding="utf-8")
    config = load(path, MINIMAL + "database: {file: url}")
    assert config.database.get_secret_value() == URL


def test_a_secret_is_not_shown(path: Path) -> None:
    config = load(path, f"{MINIMAL}database: {URL}")
    assert config.database.get_secret_value() == URL
    for shown in (repr(config), str(config), config.model_dump_json(), f"{config.database}"):
        assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ("{env: NOT_SET}", "database: the environment variable 'NOT_SET' is not set"),
        ("{file: absent}", "database: the file 'absent' cannot be read: No such file or directory"),
        ("{file: .}", "database: the file '.' cannot be read: Is a directory"),
        (r'{file: "a\0b"}', r"database: the file 'a\x00b' is not a path"),
        ("{file: binary}", "database: the file 'binary' is not text"),
        ("{file: large}", "database: the file 'large' is longer than any secret"),
        ("{file: empty}", "database: must not be empty"),
        ("''", "database: must not be empty"),
        ("{env: A, file: b}", "database: expected text, {env: NAME OF A VARIABLE} or {file: PATH}"),
        ("{path: b}", "database: expected text, {env: NAME OF A VARIABLE} or {file: PATH}"),
        ("{env: 1}", "database: expected text, {env: NAME OF A VARIABLE} or {file: PATH}"),
        ("7", "database: expected text, {env: NAME OF A VARIABLE} or {file: PATH}"),
        (
            "mysql://root@db",
            "database: expected a URL that begins with sqlite:/// or postgresql+psycopg://",
        ),
        (
            "/var/lib/leadone.db",
            "database: expected a URL that begins with sqlite:/// or postgresql+psycopg://",
        ),
    ],
)
def test_a_secret_that_cannot_be_had(path: Path, database: str, expected: str) -> None:
    Path("binary").write_bytes(b"\xff\xfe")
    Path("large").write_bytes(b"a" * 70_000)
    Path("empty").write_bytes(b"\n")
    assert problems(path, f"{MINIMAL}database: {database}") == [expected]


@pytest.mark.parametrize(
    "database",
    [
        "mysql://root:hunter2@db",
        "[hunter2]",
        "{url: hunter2}",
        "{hunter2: x}",
        "!hunter2 x",
        "!<hunter2> x",
        "!hunter2!x y",
        "*hunter2",
        "&hunter2",
        "@hunter2",
        "%hunter2",
        "`hunter2`",
        '"hunter2',
        r'"\Uhunter2"',
        "a: hunter2: b",
        "{env: [hunter2]}",
        "!!int hunter2",
        "!!binary hunter2",
        "{a: hunter2",
        "|9hunter2",
        "%hunter2\n---",
    ],
)
def test_a_misplaced_secret_is_not_in_the_complaint(path: Path, database: str) -> None:
    path.write_text(f"{MINIMAL}database: {database}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_names_are_not_shown_and_are_listed_for_the_log(path: Path) -> None:
    patients = (
        "patients: [{id: grandpa, name: Karl Lindqvist}, {id: grandma, name: Grandma}, {id: aunt}]"
    )
    config = load(path, MINIMAL.replace("patients: [{id: grandpa}]", patients))
    assert config.patients[0].name == "Karl Lindqvist"
    assert "Lindqvist" not in repr(config)
    # Grandma is also an id, which is logged anyway
    assert config.private_names == {"Karl Lindqvist"}


# --- what is said of mistakes


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"patients": [{"id": "grandpa", "alarm": {}}]},
            ["patients[0].alarm: unknown key; did you mean 'alarms'?"],
        ),
        (
            {"frobnicate": 1},
            [f"frobnicate: unknown key; {KNOWN}"],
        ),
        (
            {"patients": [{"name": "x"}]},
            [f"patients[0].id: missing; expected: {ID}"],
        ),
        ({"patients": [{"id": False}]}, ["patients[0].id: expected text; put it in quotes"]),
        (
            {"patients": [{"id": "größe"}]},
            [f"patients[0].id: {IDENTIFIER}"],
        ),
        ({"patients": []}, ["patients: must not be empty"]),
        ({"patients": {}}, ["patients: expected a list"]),
        ({"patients": None}, ["patients: expected a list"]),
        ({"window": {"length": 4}}, ["window.length: must be from 5 s to 60 s"]),
        ({"window": {"length": "2m"}}, ["window.length: must be from 5 s to 60 s"]),
        ({"window": {"hop": "500ms"}}, ["window.hop: must be from 1 s to 60 s"]),
        ({"window": {"hop": float("inf")}}, ["window.hop: expected a finite number"]),
        ({"window": 10}, ["window: expected a mapping (key: value)"]),
        (
            {"window": {"length": 5, "hop": 5.1}},
            ["window.hop: must be at most the window's length, 5 s"],
        ),
        (
            {"patients": [{"id": "a"}, {"id": "grandpa"}, {"id": "a"}]},
            ["patients[2].id: is already the id of patients[0]"],
        ),
        (
            {"patients": [{"id": "grandma"}]},
            ["sources[0].patient: no patient has this id; did you mean 'grandma'?"],
        ),
        (
            {"patients": [{"id": "x"}]},
            ["sources[0].patient: no patient has this id"],
        ),
        (
            {
                "patients": [
                    {"id": "grandpa", "alarms": {"rate": {"low": 90, "high": 80}, "pause": "10s"}}
                ]
            },
            [
                "patients[0].alarms.rate.low: must be less than high, 80",
                f"patients[0].alarms.pause: {NEVER_SEEN}",
            ],
        ),
        (
            {"patients": [{"id": "grandpa", "alarms": {"rate": {"high": "fast", "low": 3}}}]},
            [
                "patients[0].alarms.rate.high: expected a number",
                "patients[0].alarms.rate.low: must be at least 15 – Low heart rate (per minute)",
            ],
        ),
        (
            {"patients": [{"id": "grandpa", "alarms": {"classes": {"AF": {"enabled": "no"}}}}]},
            ["patients[0].alarms.classes.AF.enabled: expected true or false"],
        ),
        (
            {"patients": [{"id": "grandpa", "alarms": {"classes": {"AF": False}}}]},
            ["patients[0].alarms.classes.AF: expected a mapping (key: value)"],
        ),
        ({"inference": {"threads": True}}, ["inference.threads: expected a whole number"]),
        ({"inference": {"threads": 10**400}}, ["inference.threads: must be at most 64 – Threads"]),
        ({"inference": {"threads": 65}}, ["inference.threads: must be at most 64 – Threads"]),
        ({"log": {"level": "INFO"}}, ["log.level: expected 'debug', 'info', 'warning' or 'error'"]),
        ({"bundle": ""}, ["bundle: must not be empty"]),
        ({1: 2}, ["[1]: a key must be text; put it in quotes"]),
        (
            {"a\nb": 1},
            [rf"'a\nb': unknown key; {KNOWN}"],
        ),
    ],
)
def test_one_line_for_each_problem(path: Path, change: dict[Any, Any], expected: list[str]) -> None:
    document = yaml.safe_load(MINIMAL) | change
    assert problems(path, yaml.safe_dump(document, allow_unicode=True)) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            {"type": "simulatr"},
            ["sources[0].type: expected one of replay, simulator; did you mean 'simulator'?"],
        ),
        ({}, ["sources[0].type: expected one of replay, simulator"]),
        ({"type": ["x"]}, ["sources[0].type: expected one of replay, simulator"]),
        (7, ["sources[0]: expected a mapping (key: value)"]),
        (
            {"type": "replay", "patient": "grandpa", "device": "d", "records": []},
            ["sources[0].records: must not be empty"],
        ),
        (
            {
                "type": "replay",
                "patient": "grandpa",
                "device": "d",
                "records": [1],
                "sped": 2,
                "speed": 0,
                "lead": "",
            },
            [
                "sources[0].records[0]: expected a path",
                "sources[0].lead: must not be empty",
                "sources[0].speed: must be more than 0 – Speed",
                "sources[0].sped: unknown key; did you mean 'speed'?",
            ],
        ),
        (
            {
                "type": "simulator",
                "patient": "grandpa",
                "device": "a/b",
                "seed": -1,
                "script": [{"kind": "sinus_rhythm"}, {"kind": 1, "duration": "1s"}],
            },
            [
                f"sources[0].device: {IDENTIFIER}",
                "sources[0].script[0].duration: missing; expected: How long it lasts, at least 1s.",
                "sources[0].script[1].kind: expected text; put it in quotes",
                "sources[0].seed: must be at least 0 – Seed",
            ],
        ),
    ],
)
def test_problems_of_sources(path: Path, source: object, expected: list[str]) -> None:
    document = yaml.safe_load(MINIMAL) | {"sources": [source]}
    assert problems(path, yaml.safe_dump(document)) == expected


def test_a_device_may_have_one_source_only(path: Path) -> None:
    document = yaml.safe_load(MINIMAL)
    document["sources"] *= 2
    assert problems(path, json.dumps(document)) == [
        "sources[1].device: is already the device of sources[0]"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("[1, 2]", "expected a mapping (key: value) at the top"),
        ("patients", "expected a mapping (key: value) at the top"),
        (
            "log:\n  level: info\n  level: debug\n",
            "line 3, column 3: the key 'level' is given twice",
        ),
        ("log: {level: info\n", "line 2, column 1: expected ',' or '}', but got '<stream end>'"),
        ("log: info: debug\n", "line 1, column 10: mapping values are not allowed here"),
        (
            "log:\n\tlevel: info\n",
            r"line 2, column 1: found character '\t' that cannot start any token",
        ),
        (
            "a: &x 1\nb: *x\n",
            "line 2, column 4: aliases (*name) are not supported; put text with a * in quotes",
        ),
        (
            "a: 2024-13-45",
            f"line 1, column 4: {NOT_A_VALUE}",
        ),
        (
            "a: {<<: {b: 1}, b: 2, b: 3}",
            "line 1, column 23: the key 'b' is given twice",
        ),
        ("[" * 5000, "is not YAML: nested too deeply"),
        (r'a: "\UFFFFFFFF"', r"is not YAML: an escape (\U) that is no character"),
        ("a: 1\nb: \x07\n", "line 2: a character that YAML does not allow"),
        (b"a: 1\nb: \xff\n", "line 2: is not UTF-8 text"),
        (b"#" * 1_000_001, "is larger than 1 MB; is this the configuration?"),
    ],
)
def test_a_file_that_is_no_configuration(path: Path, text: str | bytes, expected: str) -> None:
    assert problems(path, text) == [expected]


def test_a_file_that_cannot_be_read(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^leadone\.yaml: cannot be read: No such file"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match=r"is not a path$"):
        load_config(Path("a\0b"))


# --- whatever is in the file: a configuration or a ConfigError, and one line per problem


def check(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    lines = []
    try:
        load_config(scratch)
    except ConfigError as error:
        lines = list(error.problems)
        assert lines
    for line in lines:
        assert line.startswith(f"{scratch}: ")
        assert len(line) > len(f"{scratch}: ")
        assert len(line.splitlines()) == 1


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
@settings(max_examples=200, deadline=None)
def test_any_bytes(scratch: Path, content: bytes) -> None:
    check(scratch, content)


@given(
    st.lists(
        st.sampled_from(
            [*"{}[]:,-&*!|>%@`#'\"?<=~.\t\n ", "\n  ", ": ", "- ", "!!int ", "!!timestamp ",
             "!!omap ", "!!set ", "!!pairs ", "!!float ", "!!bool ", "<<: ", "0x", "0x_", "1:30",
             "2024-13-01", ".inf", "---\n", "id", "patients", "\\x", "1e999", "9" * 400,
             "0x" + "f" * 5000]
        ),
        max_size=30,
    ).map("".join)
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_yaml_punctuation(scratch: Path, text: str) -> None:
    check(scratch, text.encode())


KEYS = sorted({key for section in sections() for key in section.model_fields} | {"env", "file"})
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.text(max_size=8)
    | st.sampled_from(["10s", "grandpa", "simulator", "replay", "I", "info", "sqlite:///x"])
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8) | st.integers(), inner)
    ),
    max_leaves=12,
)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


@given(st.dictionaries(st.sampled_from(sorted(Config.model_fields)), TREES))
@settings(max_examples=150, deadline=None)
def test_any_structure(scratch: Path, document: dict[str, object]) -> None:
    check(
        scratch, yaml.dump(document, Dumper=_Dumper, allow_unicode=True).encode("utf-8", "replace")
    )


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_the_example_with_anything_in_one_place(scratch: Path, data: st.DataObject) -> None:
    document = yaml.safe_load(example())
    node: Any = document
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(TREES)
    check(
        scratch, yaml.dump(document, Dumper=_Dumper, allow_unicode=True).encode("utf-8", "replace")
    )
