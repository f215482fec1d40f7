//! The variables of Telephony Event Sync, the Go service that this router replaces: every one is known under its own
//! name, and this table is the only list of them. `docs/settings.md` tells users the same, and a test compares.

/// A variable of the Go service.
pub(super) struct DropIn {
    pub(super) name: &'static str,
    pub(super) effect: Effect,
}

/// What a variable of the Go service does here.
pub(super) enum Effect {
    /// It sets this key; above the file, below the key's own variable.
    Sets(&'static str),
    /// It is read with others, where they are put together.
    Part,
    /// It shapes the default streams, which `[[stream]]` tables replace.
    Stream,
    /// Nothing: accepted whatever its value, for this reason.
    Nothing(&'static str),
}

const REPLACED_BY_STREAMS: &str = "the [[stream]] tables of the configuration file take its place";
const ONE_READER: &str = "one thread reads the event socket, so that events keep their order";
const ONE_WRITER: &str =
    "one connection to Redis writes everything, in order, with one batch in flight";
const BATCHES: &str = "a batch is what has gathered while the one before it was in flight";
const NEVER_DROPPED: &str =
    "transport faults never drop events here, whatever the retry variables say";
const CONTINUOUS: &str = "the state of each connection is always current, without a timer";
const PULLED: &str = "metrics are current whenever /metrics is read";

const fn sets(name: &'static str, key: &'static str) -> DropIn {
    let effect = Effect::Sets(key);
    DropIn { name, effect }
}

const fn part(name: &'static str) -> DropIn {
    let effect = Effect::Part;
    DropIn { name, effect }
}

const fn stream(name: &'static str) -> DropIn {
    let effect = Effect::Stream;
    DropIn { name, effect }
}

const fn nothing(name: &'static str, why: &'static str) -> DropIn {
    let effect = Effect::Nothing(why);
    DropIn { name, effect }
}

/// Every variable that Telephony Event Sync knows, in the order of its own documentation.
pub(super) const DROP_INS: &[DropIn] = &[
    sets("ESL_HOST", "esl.host"),
    sets("ESL_PORT", "esl.port"),
    sets("ESL_PASSWORD", "esl.password"),
    sets("ESL_RECONNECT_DELAY", "esl.backoff.initial"),
    sets("ESL_MAX_RECONNECT_DELAY", "esl.backoff.max"),
    sets("ESL_HEALTH_CHECK_TIMEOUT", "esl.timeout"),
    part("REDIS_REMOTE_ADDR"),
    part("REDIS_REMOTE_PASSWORD"),
    part("REDIS_REMOTE_DB"),
    nothing("REDIS_REMOTE_POOL_SIZE", ONE_WRITER),
    nothing("REDIS_REMOTE_MIN_IDLE_CONNS", ONE_WRITER),
    nothing("REDIS_REMOTE_MAX_RETRIES", NEVER_DROPPED),
    sets("REDIS_REMOTE_DIAL_TIMEOUT", "redis.connect_timeout"),
    sets("REDIS_REMOTE_WRITE_TIMEOUT", "redis.timeout"),
    nothing("REDIS_REMOTE_POOL_TIMEOUT", ONE_WRITER),
    stream("STREAM_EVENTS"),
    stream("STREAM_JOBS"),
    stream("EVENTS_MAX_LEN"),
    stream("JOBS_MAX_LEN"),
    stream("EVENTS_EXPIRE_TIME"),
    stream("JOBS_EXPIRE_TIME"),
    sets("TRIM_INTERVAL", "redis.trim_interval"),
    nothing("READER_WORKERS", ONE_READER),
    nothing("READER_PROCESSING_WORKERS", ONE_READER),
    sets("READER_MAX_LATENCY", "limits.reader"),
    nothing(
        "READER_BLOCK_TIME",
        "the reader never waits with an event in hand",
    ),
    nothing("WRITER_WORKERS", ONE_WRITER),
    nothing("WRITER_BATCH_SIZE", BATCHES),
    nothing("WRITER_PIPELINE_TIMEOUT", BATCHES),
    sets("WRITER_MAX_LATENCY", "limits.writer"),
    sets("TOTAL_MAX_LATENCY", "limits.total"),
    sets("BUFFER_SIZE", "buffer.events"),
    nothing("WRITER_MAX_RETRIES", NEVER_DROPPED),
    nothing("WRITER_RETRY_QUEUE_SIZE", NEVER_DROPPED),
    nothing("WRITER_RETRY_PAUSE_AFTER", NEVER_DROPPED),
    nothing("WRITER_RETRY_TTL", NEVER_DROPPED),
    stream("EVENTS_TO_PUBLISH"),
    stream("EVENTS_TO_PUSH"),
    nothing("HEALTH_CHECK_INTERVAL", CONTINUOUS),
    nothing(
        "HEALTH_MAX_RETRIES",
        "reconnecting never gives up; esl.alarm_after says when it raises an alarm",
    ),
    part("HEALTH_PORT"),
    nothing("METRICS_PRINT_INTERVAL", PULLED),
    nothing("METRICS_UPDATE_INTERVAL", PULLED),
    sets("LOG_LEVEL", "log.level"),
    nothing("LOG_BUFFER_SIZE", "the log is written at once"),
];

/// The variable of the Go service that sets `key`.
pub(super) fn variable_of(key: &str) -> Option<&'static str> {
    DROP_INS
        .iter()
        .find(|drop_in| matches!(drop_in.effect, Effect::Sets(set) if set == key))
        .map(|drop_in| drop_in.name)
}

impl Effect {
    /// Why the variable has no effect, if it has none. `streams_in_file`: the file has `[[stream]]` tables.
    pub(super) fn why_nothing(&self, streams_in_file: bool) -> Option<&'static str> {
        match self {
            Self::Nothing(why) => Some(why),
            Self::Stream if streams_in_file => Some(REPLACED_BY_STREAMS),
            Self::Stream | Self::Sets(_) | Self::Part => None,
        }
    }
}
