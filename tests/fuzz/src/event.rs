//! The event: what is indexed is what a plain reading of the same bytes finds, edits change what they say and nothing else,
//! and what is written is a JSON object that reads as the same event again.
//!
//! The data is an event, read once as JSON and once as plain. Behind it, each after a zero byte, may stand edits:
//! `=NAME=VALUE` sets, `-PATTERN` removes, `+PATTERN,PATTERN` keeps, `@TEXT` replaces the body.

use bytes::Bytes;
use jackfield::event::{Event, Format, Name};
use jackfield::filter::{Derived, Edit};

use crate::object::{Held, Object};

const BODY: &str = "_body";

/// Names and values of an event; none where serde_json does not say what they are.
type Model = Option<Vec<(String, Held)>>;

/// Checks one event, and one that is derived with the same edits.
pub fn run(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let bytes = parts.next().unwrap_or_default();
    let edits: Vec<Edit> = parts.filter_map(edit).collect();

    if let Some((event, model)) = json(bytes) {
        check(event, model, &edits);
    }
    if let Some((event, model)) = plain(bytes) {
        check(event, Some(model), &edits);
    }
    let (name, value) = ("Event-Name".to_owned(), "DERIVED".to_owned());
    let derived = Derived {
        by: "10-filter".into(),
        name: value.clone(),
        headers: Vec::new(),
        body: None,
    };
    check(
        derived.event(),
        Some(vec![(name, Held::Text(value))]),
        &edits,
    );
    if data.contains(&0) {
        json(data);
        plain(data);
    }
}

fn edit(part: &[u8]) -> Option<Edit> {
    let text = String::from_utf8_lossy(part);
    let (what, rest) = (text.chars().next()?, text.get(1..)?);
    match what {
        '=' => rest.split_once('=').map(|(name, value)| Edit::Set {
            name: name.to_owned(),
            value: value.to_owned(),
        }),
        '-' => Some(Edit::Remove(rest.to_owned())),
        '+' => Some(Edit::Keep(rest.split(',').map(str::to_owned).collect())),
        '@' => Some(Edit::Body(rest.to_owned())),
        _ => None,
    }
}

/// An event of these bytes exactly where serde_json finds a flat object of strings and arrays of strings.
fn json(bytes: &[u8]) -> Option<(Event, Model)> {
    let text = String::from_utf8_lossy(bytes);
    let event = parse(Format::Json, bytes);
    let expected = Object::read(&text).map(Object::last_wins);
    match (event, expected) {
        (Some(event), Ok(Ok(model))) => Some((event, Some(model))),
        (Some(event), Err(error)) => {
            // serde_json has no way to say half of a character; FreeSWITCH cuts one in two.
            let surrogate = text.to_ascii_lowercase().contains("\\ud");
            assert!(surrogate, "serde_json says {error}: {text:?}");
            Some((event, None))
        }
        (Some(_), Ok(Err(_))) => panic!("no flat object, and yet an event: {text:?}"),
        (None, Ok(Ok(model))) => panic!("{model:?} is refused: {text:?}"),
        (None, _) => None,
    }
}

fn plain(bytes: &[u8]) -> Option<(Event, Vec<(String, Held)>)> {
    let event = parse(Format::Plain, bytes);
    let expected = read_plain(bytes);
    match (event, expected) {
        (Some(event), Some(model)) => Some((event, model)),
        (None, None) => None,
        (event, expected) => panic!("{event:?} where {expected:?} stands: {bytes:?}"),
    }
}

fn parse(format: Format, bytes: &[u8]) -> Option<Event> {
    match Event::parse(format, Bytes::copy_from_slice(bytes)) {
        Ok(event) => {
            if std::str::from_utf8(bytes).is_ok() {
                assert!(!event.repaired(), "nothing was to be repaired");
            }
            Some(event)
        }
        Err(error) => {
            // A repair makes the text longer, by two bytes for one at most.
            assert!(error.at <= bytes.len() * 3, "{error} of {}", bytes.len());
            None
        }
    }
}

/// A plain event by the rules of FreeSWITCH's serializer: lines, an empty line, a body as long as the last line says.
fn read_plain(bytes: &[u8]) -> Option<Vec<(String, Held)>> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let body = &bytes[end + 2..];
    let length = head.rsplit('\n').next()?.strip_prefix("Content-Length: ");
    let length = length.and_then(|digits| digits.parse::<usize>().ok());
    if length.unwrap_or(0) != body.len() {
        return None;
    }
    let mut members = Vec::new();
    for line in head.split('\n') {
        let Some((name, value)) = line.split_once(": ").or_else(|| tail_colon(line)) else {
            continue;
        };
        let value = percent_decoded(value);
        let held = match name {
            BODY => Held::Text(value),
            _ => Held::of_text(&value),
        };
        put(&mut members, name, held);
    }
    if members.is_empty() {
        return None;
    }
    if !body.is_empty() {
        let body = String::from_utf8_lossy(body).into_owned();
        put(&mut members, BODY, Held::Text(body));
    }
    Some(members)
}

/// A header without a value may lack the space behind its colon.
fn tail_colon(line: &str) -> Option<(&str, &str)> {
    line.strip_suffix(':').map(|name| (name, ""))
}

fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after
            .get(..2)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Checks the event as it came, and after each edit.
fn check(event: Event, model: Model, edits: &[Edit]) {
    let (mut event, mut model) = (event, model);
    let written = check_event(&event);
    if let Some(model) = &model {
        assert_eq!(&written, model, "names, values and their order");
    }
    for edit in edits {
        edit.apply(&mut event);
        let written = check_event(&event);
        if let Some(model) = &mut model {
            apply(edit, model);
            assert_eq!(sorted(written), sorted(model.clone()), "after {edit:?}");
        }
    }
}

/// Whatever the event is: all ways to read it agree. Returns what is written of it.
fn check_event(event: &Event) -> Vec<(String, Held)> {
    let text = write(event);
    let written = Object::read(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    let written = written.distinct();
    for (name, held) in &written {
        let value = event.get_str(name);
        assert_eq!(
            value.as_deref(),
            Some(held.text().as_str()),
            "value of {name:?}"
        );
        assert_eq!(event.get(&Name::new(name)), value);
    }

    let texts = |(name, held): &(String, Held)| (name.clone(), held.text());
    let fields = event.fields().into_iter().map(|(name, value)| {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("fields are text");
        (text(name), text(value))
    });
    assert!(
        fields.eq(written.iter().map(texts)),
        "fields are the members"
    );
    let headers = event
        .headers()
        .map(|(name, value)| (name.into_owned(), value.into_owned()));
    let named = written.iter().filter(|(name, _)| name != BODY).map(texts);
    assert!(
        headers.eq(named),
        "headers are the members without the body"
    );
    let value = |name: &str| {
        written
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, held)| held.text())
    };
    assert_eq!(event.body().map(|body| body.into_owned()), value(BODY));
    assert_eq!(
        event.name().into_owned(),
        value("Event-Name").unwrap_or_default()
    );
    assert_eq!(
        event.subclass().map(|subclass| subclass.into_owned()),
        value("Event-Subclass")
    );
    let timestamp = value("Event-Date-Timestamp").and_then(|text| text.parse().ok());
    assert_eq!(event.timestamp(), timestamp);

    let again =
        Event::parse(Format::Json, Bytes::from(text.clone())).expect("what is written is an event");
    assert!(!again.repaired(), "what is written is UTF-8");
    assert_eq!(
        write(&again),
        text,
        "what is written is written the same again"
    );
    written
}

fn write(event: &Event) -> String {
    let mut text = Vec::new();
    event.write_json(&mut text);
    String::from_utf8(text).expect("what is written is UTF-8")
}

fn apply(edit: &Edit, members: &mut Vec<(String, Held)>) {
    let covers = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    // Patterns spare these two.
    let spared = |name: &str| name == "Event-Name" || name == BODY;
    match edit {
        Edit::Set { name, value } if name == BODY => put(members, BODY, Held::Text(value.clone())),
        Edit::Set { name, value } => put(members, name, Held::of_text(value)),
        Edit::Remove(pattern) if pattern.ends_with('*') => {
            members.retain(|(name, _)| spared(name) || !covers(pattern, name));
        }
        Edit::Remove(name) => members.retain(|(other, _)| other != name),
        Edit::Keep(patterns) => {
            members.retain(|(name, _)| {
                spared(name) || patterns.iter().any(|pattern| covers(pattern, name))
            });
        }
        Edit::Body(body) => {
            put(
                members,
                "Content-Length",
                Held::Text(body.len().to_string()),
            );
            put(members, BODY, Held::Text(body.clone()));
        }
    }
}

fn put(members: &mut Vec<(String, Held)>, name: &str, held: Held) {
    members.retain(|(other, _)| other != name);
    members.push((name.to_owned(), held));
}

fn sorted(members: Vec<(String, Held)>) -> Vec<(String, Held)> {
    let mut members = members;
    members.sort_by(|(one, _), (other, _)| one.cmp(other));
    members
}
