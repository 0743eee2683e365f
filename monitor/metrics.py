"""What the daemon counts about itself, for Prometheus to read."""

from prometheus_client import Counter, Gauge

SEGMENTS_STORED = Counter("leadone_segments_stored", "Raw segments made durable")
SEGMENTS_REPEATED = Counter("leadone_segments_repeated", "Raw segments that were there already")
WINDOWS_STORED = Counter("leadone_windows_stored", "Window results made durable")
WRITE_FAILURES = Counter("leadone_write_failures", "Attempts to write that the database refused")
WRITE_QUEUE = Gauge("leadone_write_queue_records", "Records waiting to be made durable")
SAMPLES_REPEATED = Counter(
    "leadone_samples_repeated", "Samples delivered again, and not counted twice"
)
SAMPLES_FILLED_LATE = Counter(
    "leadone_samples_filled_late", "Samples that came late into their gap"
)
CHUNKS_REFUSED = Counter("leadone_chunks_refused", "Chunks that could not be made durable")
RESULTS_REFUSED = Counter("leadone_results_refused", "Results or gaps that could not be stored")
SOURCE_FAILURES = Counter("leadone_source_failures", "Times a source failed", ["source"])
WINDOWS_FAILED = Counter("leadone_windows_failed", "Windows whose analysis failed")
WINDOWS_SKIPPED = Counter(
    "leadone_windows_skipped", "Windows stored unread because inference could not keep up"
)
RHYTHMS_FAILED = Counter(
    "leadone_rhythms_failed", "Chunks at which the watch for lethal rhythms failed and began anew"
)
CHUNKS_FAILED = Counter("leadone_chunks_failed", "Stored chunks that could not be cut into windows")
CHUNKS_LEFT_TO_BACKLOG = Counter(
    "leadone_chunks_left_to_backlog",
    "Stored chunks that came while an older backlog was read, and are left to the background",
)
CHUNKS_UNREADABLE = Counter(
    "leadone_chunks_unreadable", "Stored chunks whose samples could not be decoded"
)
BACKLOG = Gauge(
    "leadone_backlog_seconds",
    "Time of stored signal that is still to be looked through for what has no window",
)
BACKLOG_WINDOWS = Counter(
    "leadone_backlog_windows", "Windows of old signal that were made up for in the background"
)
CLOCK_UNMENDED = Counter(
    "leadone_clock_unmended",
    "Rows that were stored by a clock which may be wrong, and will not be moved when it is set",
)
WINDOW_QUEUE = Gauge("leadone_window_queue", "Windows waiting for inference")
RECORDINGS_REFUSED = Counter("leadone_recordings_refused", "Recordings that could not be read")
STRAP_CONNECTED = Gauge(
    "leadone_strap_connected", "Whether a paired strap is connected", ["patient", "device"]
)
STRAP_BATTERY = Gauge(
    "leadone_strap_battery_percent", "Battery of a paired strap", ["patient", "device"]
)
NOTIFICATIONS_WAITING = Gauge(
    "leadone_notifications_waiting", "Messages about alarms that are still to be delivered"
)
NOTIFICATIONS_SENT = Counter(
    "leadone_notifications_sent", "Messages about alarms that a channel took", ["channel"]
)
NOTIFICATION_FAILURES = Counter(
    "leadone_notification_failures", "Attempts to deliver that failed", ["channel"]
)
SPOOLED = Counter(
    "leadone_spooled_groups", "Groups of records kept in the spool while the database was away"
)
SPOOL_BYTES = Gauge("leadone_spool_bytes", "Size of the spool, of what the database has not taken")
SPOOL_DAMAGED = Counter(
    "leadone_spool_damaged", "Places in spool files that could not be read, or whole files"
)
SPOOL_UNKNOWN = Counter(
    "leadone_spool_unknown", "Spooled records, or fields of them, that this version does not know"
)
SPOOL_REFUSED = Counter(
    "leadone_spooled_groups_refused", "Spooled groups of records that the database refused for good"
)
RECORDS_LOST = Counter(
    "leadone_records_lost", "Records that were accepted and could be kept neither here nor there"
)
CONTROL_REFUSED = Counter(
    "leadone_control_refused", "Requests on the local socket by somebody who may not ask"
)
