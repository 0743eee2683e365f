"""The commented example; ``examples/leadone.yaml`` is a copy of it."""

_EXAMPLE = """\
# Configuration of leadone. Everything but `patients` may be left out; the values shown are then the
# defaults. Durations are written 500ms, 10s, 2m, 24h, or as seconds.
#
#   leadone config check -c leadone.yaml     says what is wrong, line by line
#   leadone config schema                    every key, as a JSON schema

# Where everything is kept: SQLite, or PostgreSQL as postgresql+psycopg://user@host/leadone.
# A URL with a password belongs elsewhere:
#   database: {env: LEADONE_DATABASE}
#   database: {file: /run/secrets/leadone-database}
database: sqlite:////var/lib/leadone/leadone.db

# The model: name of a shipped bundle, or path of a folder. Left out: the shipped one.
# bundle: /srv/leadone/bundles/mine

# A window of this length is judged every `hop`.
window: {length: 10s, hop: 5s}

patients:
  - id: grandpa          # short, and used everywhere: also in logs and messages
    name: Karl Lindqvist # for the people who look after him; never logged
    alarms:              # only what is different for him
      classes:
        AF: {enabled: false}  # it is known, and permanent
      rate: {high: 140, low: 38}
      pause: 3s
  - id: grandma

# Chest straps are not named here but paired with somebody who is named above, and kept in the
# database: leadone scan, then leadone pair ADDRESS --patient grandpa. With straps alone, there are
# no `sources`.
sources:
  # A simulated heart, to try things out. The script starts again when it ends.
  - type: simulator
    patient: grandpa
    device: sim
    seed: 1
    script:
      - {kind: sinus_rhythm, duration: 2m, heart_rate: 64}
      - {kind: atrial_fibrillation, duration: 5m, heart_rate: 115}
      - {kind: sinus_arrest, duration: 1m, pause_s: 4.5}

  # Recordings (WFDB, EDF, CSV), played one after the other as if they were live.
  - type: replay
    patient: grandma
    device: holter
    records: [recordings/monday.edf, recordings/tuesday.edf]
    lead: I              # left out: lead I, or the first where there is none
    speed: 1             # 60 plays an hour in a minute

log:
  level: info            # debug, info, warning, error
  format: auto           # human, json, or auto: human on a terminal, json otherwise

inference:
  threads: 1             # processor threads the model may use
"""


def example() -> str:
    """A complete configuration file with comments, ready to be edited."""
    return _EXAMPLE
