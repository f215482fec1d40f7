//! Which event of FreeSWITCH has which name, as real ones were seen to come.

/// An event and its name.
pub(crate) struct Named {
    pub(crate) event: String,
    /// Of a CUSTOM event; any if `None`.
    pub(crate) subclass: Option<String>,
    pub(crate) name: String,
    pub(crate) subject: Subject,
}

/// Where it says what it is about.
#[derive(Clone, Copy)]
pub(crate) enum Subject {
    Header(&'static str),
    /// `user@host`
    Peer,
}

/// A leg of a call.
const LEG: Subject = Subject::Header("Unique-ID");

/// CHANNEL_HANGUP comes before CHANNEL_HANGUP_COMPLETE, which alone has the durations; each leg has exactly one of it.
const VOCABULARY: [(&str, &str, Subject); 9] = [
    ("CHANNEL_CREATE", "call.created", LEG),
    ("CHANNEL_PROGRESS", "call.ringing", LEG),
    ("CHANNEL_PROGRESS_MEDIA", "call.ringing", LEG),
    ("CHANNEL_ANSWER", "call.answered", LEG),
    ("CHANNEL_BRIDGE", "call.bridged", LEG),
    ("CHANNEL_HANGUP_COMPLETE", "call.ended", LEG),
    (
        "BACKGROUND_JOB",
        "job.completed",
        Subject::Header("Job-UUID"),
    ),
    ("CUSTOM sofia::register", "peer.registered", Subject::Peer),
    (
        "CUSTOM sofia::gateway_state",
        "trunk.state_changed",
        Subject::Header("Gateway"),
    ),
];

pub(crate) fn vocabulary() -> Vec<Named> {
    VOCABULARY
        .iter()
        .map(|(event, name, subject)| Named::new(event, name, *subject))
        .collect()
}

impl Named {
    fn new(event: &str, name: &str, subject: Subject) -> Self {
        let (event, subclass) = match event.split_once(' ') {
            Some((event, subclass)) => (event, Some(subclass.to_owned())),
            None => (event, None),
        };
        Self {
            event: event.to_owned(),
            subclass,
            name: name.to_owned(),
            subject,
        }
    }

    /// A name from the settings: of a leg, where the event has one.
    pub(crate) fn more(event: &str, name: &str) -> Self {
        Self::new(event, name, LEG)
    }

    /// As the manifest names it.
    pub(crate) fn wanted(&self) -> String {
        match &self.subclass {
            Some(subclass) => format!("{} {subclass}", self.event),
            None => self.event.clone(),
        }
    }
}
