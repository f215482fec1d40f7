//! The event names that FreeSWITCH knows, as bits of a mask.
//!
//! Names that it does not know are ignored in subscriptions, and an event fired under one becomes a CUSTOM event.

/// Every name of release 1.11, in no order that matters but for CUSTOM, which is first. `ALL` is no event and not here.
const NAMES: [&str; 93] = [
    "CUSTOM",
    "CLONE",
    "CHANNEL_CREATE",
    "CHANNEL_DESTROY",
    "CHANNEL_STATE",
    "CHANNEL_CALLSTATE",
    "CHANNEL_ANSWER",
    "CHANNEL_HANGUP",
    "CHANNEL_HANGUP_COMPLETE",
    "CHANNEL_EXECUTE",
    "CHANNEL_EXECUTE_COMPLETE",
    "CHANNEL_HOLD",
    "CHANNEL_UNHOLD",
    "CHANNEL_BRIDGE",
    "CHANNEL_UNBRIDGE",
    "CHANNEL_PROGRESS",
    "CHANNEL_PROGRESS_MEDIA",
    "CHANNEL_OUTGOING",
    "CHANNEL_PARK",
    "CHANNEL_UNPARK",
    "CHANNEL_APPLICATION",
    "CHANNEL_ORIGINATE",
    "CHANNEL_UUID",
    "API",
    "LOG",
    "INBOUND_CHAN",
    "OUTBOUND_CHAN",
    "STARTUP",
    "SHUTDOWN",
    "PUBLISH",
    "UNPUBLISH",
    "TALK",
    "NOTALK",
    "SESSION_CRASH",
    "MODULE_LOAD",
    "MODULE_UNLOAD",
    "DTMF",
    "MESSAGE",
    "PRESENCE_IN",
    "NOTIFY_IN",
    "PRESENCE_OUT",
    "PRESENCE_PROBE",
    "MESSAGE_WAITING",
    "MESSAGE_QUERY",
    "ROSTER",
    "CODEC",
    "BACKGROUND_JOB",
    "DETECTED_SPEECH",
    "DETECTED_TONE",
    "PRIVATE_COMMAND",
    "HEARTBEAT",
    "TRAP",
    "ADD_SCHEDULE",
    "DEL_SCHEDULE",
    "EXE_SCHEDULE",
    "RE_SCHEDULE",
    "RELOADXML",
    "NOTIFY",
    "PHONE_FEATURE",
    "PHONE_FEATURE_SUBSCRIBE",
    "SEND_MESSAGE",
    "RECV_MESSAGE",
    "REQUEST_PARAMS",
    "CHANNEL_DATA",
    "GENERAL",
    "COMMAND",
    "SESSION_HEARTBEAT",
    "CLIENT_DISCONNECTED",
    "SERVER_DISCONNECTED",
    "SEND_INFO",
    "RECV_INFO",
    "RECV_RTCP_MESSAGE",
    "SEND_RTCP_MESSAGE",
    "CALL_SECURE",
    "NAT",
    "RECORD_START",
    "RECORD_STOP",
    "PLAYBACK_START",
    "PLAYBACK_STOP",
    "CALL_UPDATE",
    "FAILURE",
    "SOCKET_DATA",
    "MEDIA_BUG_START",
    "MEDIA_BUG_STOP",
    "CONFERENCE_DATA_QUERY",
    "CONFERENCE_DATA",
    "CALL_SETUP_REQ",
    "CALL_SETUP_RESULT",
    "CALL_DETAIL",
    "DEVICE_STATE",
    "TEXT",
    "SHUTDOWN_REQUESTED",
    "CERT_RELOAD",
];

/// One known event name, or a set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mask(u128);

impl Mask {
    pub(super) const NONE: Mask = Mask(0);
    pub(super) const EVERY: Mask = Mask((1 << NAMES.len()) - 1);
    pub(super) const CUSTOM: Mask = Mask(1);

    /// The bit of a name, in any case of letters.
    pub(super) fn named(name: &str) -> Option<Mask> {
        let place = NAMES
            .iter()
            .position(|known| known.eq_ignore_ascii_case(name))?;
        Some(Mask(1 << place))
    }

    pub(super) fn with(self, other: Mask) -> Mask {
        Mask(self.0 | other.0)
    }

    pub(super) fn without(self, other: Mask) -> Mask {
        Mask(self.0 & !other.0)
    }

    pub(super) fn has(self, other: Mask) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Mask;

    #[test]
    fn names_are_found_in_any_case() {
        assert_eq!(Mask::named("channel_answer"), Mask::named("CHANNEL_ANSWER"));
        assert_eq!(Mask::named("CUSTOM"), Some(Mask::CUSTOM));
        assert_eq!(Mask::named("BOGUS"), None, "unknown");
        assert!(
            Mask::EVERY.has(Mask::named("CERT_RELOAD").unwrap()),
            "the last one too"
        );
    }
}
