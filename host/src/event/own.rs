//! The host's own events: `Event-Name: JACKFIELD`, told apart by `Event-Subclass`, in the form of FreeSWITCH's.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::JACKFIELD;

/// The subclasses, all of them.
pub mod subclass {
    /// A link is in another state.
    pub const LINK_STATE_CHANGED: &str = "link.state_changed";
    /// A link is up again.
    pub const LINK_RECONNECTED: &str = "link.reconnected";
    /// A link cannot be made, again and again.
    pub const LINK_ALARM: &str = "link.alarm";
    /// Every link that the host needs is up again.
    pub const LINKS_RESTORED: &str = "links.restored";
    /// FreeSWITCH was started anew.
    pub const FREESWITCH_RESTARTED: &str = "freeswitch.restarted";
    /// A call ended unheard.
    pub const CALL_LOST: &str = "call.lost";
    /// A call began unheard.
    pub const CALL_FOUND: &str = "call.found";
}

/// An event of the host's own: its subclass, and headers in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// One of [`subclass`].
    pub subclass: &'static str,
    /// Without `Event-Name`.
    pub headers: Vec<(String, String)>,
}

impl Own {
    /// An event of that time, in microseconds since the epoch.
    pub fn new(subclass: &'static str, at_us: u64) -> Own {
        let own = Own {
            subclass,
            headers: Vec::new(),
        };
        own.with("Event-Subclass", subclass)
            .with("Event-Date-Timestamp", at_us.to_string())
    }

    /// Adds a header; one without a value is left out, as FreeSWITCH does.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Own {
        let value = value.into();
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value));
        }
        self
    }

    /// As FreeSWITCH would send it.
    pub fn json(&self) -> Bytes {
        let name = ("Event-Name".to_owned(), Value::from(JACKFIELD));
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        let all = Map::from_iter(std::iter::once(name).chain(headers));
        Value::Object(all).to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::{Own, subclass};
    use crate::event::{Event, Format};

    #[test]
    fn it_reads_as_any_other_event() {
        let own = Own::new(subclass::LINK_ALARM, 7).with("Link", "esl");
        let own = own.with("Error", "a \"quoted\" text").with("Empty", "");
        let event = Event::parse(Format::Json, own.json()).unwrap();
        assert_eq!(event.name(), "JACKFIELD");
        assert_eq!(event.subclass().as_deref(), Some("link.alarm"));
        assert_eq!(event.timestamp(), Some(7));
        assert_eq!(event.get_str("Error").as_deref(), Some("a \"quoted\" text"));
        assert_eq!(event.get_str("Empty"), None);
    }
}
