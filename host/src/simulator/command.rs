//! Reading commands from the bytes of a client, whole or in pieces.
//!
//! Knows nothing of what a command means; see `session`.

use bytes::{Buf, BytesMut};

/// Bytes from the client that are no whole command yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: BytesMut,
}

/// One command: its first line, the headers below it, and a body if a header gives its length.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) line: Vec<u8>,
    pub(super) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

impl Inbox {
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Whether no part of a command waits for its rest.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next whole command. It ends at an empty line, where carriage returns do not count; empty lines before it are skipped.
    pub(super) fn next(&mut self) -> Option<Command> {
        let blank = self
            .bytes
            .iter()
            .take_while(|byte| matches!(byte, b'\n' | b'\r'))
            .count();
        self.bytes.advance(blank);
        let mut newlines = 0;
        let end = self.bytes.iter().position(|byte| {
            match byte {
                b'\n' => newlines += 1,
                b'\r' => {}
                _ => newlines = 0,
            }
            newlines == 2
        })?;
        let mut lines = self
            .bytes
            .get(..end)?
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let line = lines.next()?.to_vec();
        let headers: Vec<_> = lines.filter_map(header).collect();
        let length = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
        let length = length
            .and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok())
            .unwrap_or(0);
        let body = self.bytes.get(end + 1..)?.get(..length)?.to_vec();
        self.bytes.advance(end + 1 + length);
        Some(Command {
            line,
            headers,
            body,
        })
    }
}

fn header(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    Some((name.to_vec(), value.get(1..)?.trim_ascii_start().to_vec()))
}

impl Command {
    /// The command as text, for the list that tests look at.
    pub(super) fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.line).into_owned();
        for (name, value) in &self.headers {
            text.push_str(&format!(
                "\n{}: {}",
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value)
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Inbox;

    #[test]
    fn commands_are_found_in_any_pieces() {
        let bytes = b"\n\nevent plain\r\n\r\nsendevent CUSTOM\nA: b\ncontent-length: 4\n\n\n\nxyapi status\r\n\nhalf";
        let mut inbox = Inbox::default();
        let mut found = Vec::new();
        for byte in bytes {
            inbox.buffer().extend_from_slice(&[*byte]);
            while let Some(command) = inbox.next() {
                found.push((command.text(), command.body));
            }
        }
        let expected = [
            ("event plain".to_owned(), b"".to_vec()),
            (
                "sendevent CUSTOM\nA: b\ncontent-length: 4".to_owned(),
                b"\n\nxy".to_vec(),
            ),
            ("api status".to_owned(), b"".to_vec()),
        ];
        assert_eq!(found, expected);
        assert!(!inbox.is_empty(), "half a command waits");
    }
}
