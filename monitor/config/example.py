"""The commented example; ``examples/leadone.yaml`` is a copy of it."""

_EXAMPLE = """\
# Configuration of leadone. Everything but `patients` may be left out; the values shown are then the
# defaults. Durations are written 500ms, 10s, 2m, 24h, 7d, or as seconds.
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
    # In the messages that he may be dying: what whoever comes must know.
    # emergency_note: "Storgatan 5, third floor, door code 4711. Has an ICD."
    alarms:              # only what is different for him
      chronic: [AF]      # it is known, and permanent
      # classes: {AF: {enabled: false}}   # not known, and no alarm all the same
      rate: {high: 140, low: 38}
      pause: 3s
      # contacts: [anna] # who is told of his alarms; left out: everybody
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
      # Every rhythm there is, and what imitates one, is in docs/simulator.md:
      # - {kind: ventricular_fibrillation, duration: 1m, amplitude_uv: 300}
      # - {kind: sinus_rhythm, duration: 2m, noise: {brushing_uv: 300}}

  # Recordings (WFDB, EDF, CSV), played one after the other as if they were live.
  - type: replay
    patient: grandma
    device: holter
    records: [recordings/monday.edf, recordings/tuesday.edf]
    lead: I              # left out: lead I, or the first where there is none
    speed: 1             # 60 plays an hour in a minute

# A broker that ECG comes from, and that is told what is seen (docs/mqtt.md).
# mqtt:
#   url: mqtts://broker.example:8883   # mqtt:// is not encrypted
#   protocol: 5          # or 3.1.1
#   client_id: leadone
#   username: leadone
#   password: {file: /etc/leadone/mqtt-password}
#   ca: /etc/leadone/ca.crt            # left out: the system's authorities
#   certificate: /etc/leadone/client.crt
#   key: /etc/leadone/client.key
#   topics:              # left out: leadone/v1/{patient}/{device}/ecg alone
#     - topic: sensors/{device}/ecg
#       patient: grandma
#       format: json     # json, cbor, or auto
#       fields: {samples: data.ecg, t0: ts, fs: rate, seq: n}
#       time: ms         # iso text, or ns, ms, s since 1970; left out: iso or ns
#       fs: 250          # where the payload does not say
#       unit: 2.4        # uV, mV, V or microvolts per count, likewise
#     - topic: +/cabinet/{patient}
#       device: cabinet
#   limits: {payload: 262144, samples: 20000, rate: [50, 1000], per_second: 20, ahead: 60s,
#            age: 7d, devices: 8}
#   home_assistant: homeassistant      # its discovery prefix; null: no discovery

# Who is told of alarms, how and when (docs/alarms.md). Without contacts they are logged and shown.
# alarms:
#   rules:               # for everybody; try them first: leadone alarms simulate RECORD… -c FILE
#     classes:
#       AF: {threshold: 0.6, k: 5, n: 8}
#     rate: {high: 140, low: 35}
#     pause: 5s
#   contacts:
#     - name: anna
#       channels:
#         - {type: apprise, url: {file: /etc/leadone/anna-ntfy}}
#         - {type: sound}
#     - name: neighbour
#       channels:
#         - {type: webhook, url: https://example.org/alarm, secret: {env: LEADONE_WEBHOOK}}
#         - {type: command, command: [/usr/local/bin/ring, twice]}
#   escalation:          # left out: everybody at once
#     high:
#       steps:
#         - {after: 0s, contacts: [anna]}
#         - {after: 10m, contacts: [neighbour]}
#       repeat: 5m       # remind until somebody answers
#     medium: {repeat: 30m}
#     low: {}
#     lethal: {repeat: 30s}            # vf, vt, asystole; steps as for high, a minute apart at most
#   emergency_number: "112"
#   quiet_hours: {start: "22:00", end: "07:00", timezone: Europe/Berlin}   # for low priority only
#   heartbeat: {every: day, at: "09:00", timezone: Europe/Berlin, contacts: [anna]}
#   dead_man: {url: {file: /etc/leadone/dead-man}, every: 60s}

log:
  level: info            # debug, info, warning, error
  format: auto           # human, json, or auto: human on a terminal, json otherwise

inference:
  threads: 1             # processor threads the model may use
"""


def example() -> str:
    """A complete configuration file with comments, ready to be edited."""
    return _EXAMPLE
