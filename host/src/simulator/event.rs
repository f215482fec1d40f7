//! An event as a test or the demo hands it in: a name, headers in order, perhaps a body.
//!
//! Names and values are bytes, because real ones are not always UTF-8. The core headers (Core-UUID, dates, Event-Sequence, …) are added
//! when the event is fired.

/// A header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One value. Text that begins with `ARRAY::` is an array, as in FreeSWITCH.
    Text(Vec<u8>),
    /// Several values under one header. An element that contains `|:` splits in two on the wire, as in FreeSWITCH.
    Array(Vec<Vec<u8>>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.as_bytes().to_vec())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text.into_bytes())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Value {
        Value::Text(bytes)
    }
}

impl Value {
    /// The value as FreeSWITCH holds it: an array is one text with a prefix and separators.
    pub(super) fn held(&self) -> Vec<u8> {
        match self {
            Value::Text(text) => text.clone(),
            Value::Array(elements) => [b"ARRAY::".to_vec(), elements.join(&b"|:"[..])].concat(),
        }
    }
}

/// An event to be fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's name. One that FreeSWITCH does not know becomes `CUSTOM`.
    pub name: String,
    /// Headers in order, duplicates kept. `Event-Subclass` of a CUSTOM event goes before the core headers; `Event-Calling-File`,
    /// `-Function` and `-Line-Number` take the place of the made-up ones; all others follow the core headers.
    pub headers: Vec<(Vec<u8>, Value)>,
    /// The body; an empty one is no body.
    pub body: Option<Vec<u8>>,
}

impl Event {
    /// An event without headers.
    pub fn new(name: impl Into<String>) -> Event {
        Event {
            name: name.into(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// Adds a header after those that are there.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl Into<Value>) -> Event {
        self.headers.push((name.as_ref().to_vec(), value.into()));
        self
    }

    /// Gives the event a body.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Event {
        self.body = Some(body.as_ref().to_vec());
        self
    }
}
