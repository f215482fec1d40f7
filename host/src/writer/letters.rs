//! The local dead-letter file, `dead-letters.jsonl` in the journal's folder: for what even the dead-letter stream refuses.
//!
//! One JSON object a line, a letter's fields as texts. A line `{"replayed": 7}` says that the letter on line 7 above it is
//! done. Nothing is ever changed or removed: a letter's line is its number, and the host and `jackfield dead` append to
//! the same file at any time. Whoever wants the room back takes the file away; the next letter makes a new one.
//!
//! Knows nothing of Redis. Does not make the folder, which is the journal's.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::route::Entry;

const FILE: &str = "dead-letters.jsonl";
/// A thousand letters of the 64 KiB to which the writer cuts them: enough to see what is wrong, and a bound on the disk.
const MAX_BYTES: u64 = 64 << 20;

/// Where the host keeps what Redis refuses.
#[derive(Debug)]
pub struct Letters {
    dir: PathBuf,
}

/// The names and texts of a dead letter, in Redis and here: `event` or `frame`, `streams`, `filter`, `reason`, `time`, `lsn`.
pub type Fields = BTreeMap<String, String>;

/// A letter that was not replayed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its line in the file, from 1.
    pub number: u64,
    /// What it says.
    pub fields: Fields,
}

/// What the file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The letters that were not replayed yet, oldest first.
    pub letters: Vec<Letter>,
    /// Lines that are neither a letter nor a replay, such as one that a crash cut off.
    pub malformed: u64,
}

impl Letters {
    /// The file in `dir`, which appears with the first letter.
    pub fn open(dir: &Path) -> Letters {
        let dir = dir.to_owned();
        Letters { dir }
    }

    /// Appends a letter for each entry, and returns once they are on the disk. Bytes that are no UTF-8 are repaired.
    ///
    /// # Errors
    /// The letters do not fit, or the disk failed. Then they count as lost, though some may be in the file all the same.
    pub fn keep(&mut self, entries: &[&Entry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let lines: String = entries.iter().map(|entry| line(entry)).collect();
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.dir.join(FILE))?;
        let length = file.metadata()?.len();
        if length + lines.len() as u64 >= MAX_BYTES {
            let full = format!("{FILE} would be over {MAX_BYTES} bytes");
            return Err(io::Error::new(ErrorKind::FileTooLarge, full));
        }
        if length == 0 {
            // Before the first byte, so that a file which holds something is in its folder for certain.
            File::open(&self.dir)?.sync_all()?;
        }
        append(&file, &lines)
    }
}

/// How many letters there are, asked again and again: the file only grows, so it is read when it has.
#[derive(Debug)]
pub struct Count {
    dir: PathBuf,
    /// The file's length, and the letters in it.
    seen: Mutex<(u64, u64)>,
}

impl Count {
    /// Of the file in this folder.
    pub fn of(dir: &Path) -> Count {
        Count {
            dir: dir.to_owned(),
            seen: Mutex::default(),
        }
    }

    /// Letters that were not replayed yet; 0 for a file that cannot be read.
    pub fn now(&self) -> u64 {
        let length = fs::metadata(self.dir.join(FILE)).map_or(0, |file| file.len());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != length {
            let letters = read(&self.dir).map_or(0, |kept| kept.letters.len() as u64);
            *seen = (length, letters);
        }
        seen.1
    }
}

/// The letters in `dir` that were not replayed yet; none if there is no file.
///
/// # Errors
/// The file cannot be read.
pub fn read(dir: &Path) -> io::Result<Kept> {
    let text = match fs::read(dir.join(FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::default()),
        read => read?,
    };
    let mut letters = BTreeMap::new();
    let mut malformed = 0;
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(Line::Replayed { replayed }) => drop(letters.remove(&replayed)),
            Ok(Line::Letter(fields)) => drop(letters.insert(number, fields)),
            Err(_) => malformed += 1,
        }
    }
    let letters = letters.into_iter();
    Ok(Kept {
        letters: letters
            .map(|(number, fields)| Letter { number, fields })
            .collect(),
        malformed,
    })
}

/// Notes that the letter of this number was replayed, and returns once that is on the disk. It holds for lines further
/// up alone, so that it cannot hide a letter of a new file, should the old one have been taken away meanwhile.
///
/// # Errors
/// There is no file, or it cannot be written. A full one can.
pub fn replayed(dir: &Path, number: u64) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .open(dir.join(FILE))?;
    let line = json!({ "replayed": number });
    append(&file, &format!("{line}\n"))
}

/// A line of the file. The texts of a letter are strings, so none is taken for a replay.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Replayed { replayed: u64 },
    Letter(Fields),
}

fn line(entry: &Entry) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = entry.fields.iter();
    let fields = fields.map(|(name, value)| (text(name), Value::from(text(value))));
    let line = Value::Object(fields.collect::<Map<_, _>>());
    format!("{line}\n")
}

/// Appends whole lines in one write, below what a crash may have cut off.
fn append(mut file: &File, lines: &str) -> io::Result<()> {
    let mut last = [b'\n'];
    if let Some(end) = file.metadata()?.len().checked_sub(1) {
        file.read_exact_at(&mut last, end)?;
    }
    if last == [b'\n'] {
        file.write_all(lines.as_bytes())?;
    } else {
        file.write_all(format!("\n{lines}").as_bytes())?;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
    use tempfile::TempDir;

    use super::*;
    use crate::config::StreamFormat;
    use crate::route::Stream;

    fn entry(fields: &[(&str, &[u8])]) -> Entry {
        let stream = Stream {
            name: "dead".into(),
            max_len: 0,
            expire: None,
            format: StreamFormat::Json,
        };
        let owned = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let fields = fields.iter();
        Entry {
            stream: Arc::new(stream),
            fields: fields
                .map(|(name, value)| (owned(name.as_bytes()), owned(value)))
                .collect(),
        }
    }

    fn letter(number: u64, fields: &[(&str, &str)]) -> Letter {
        let fields = fields.iter();
        Letter {
            number,
            fields: fields
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
        }
    }

    /// Adds raw bytes, as a crash or a person would leave them.
    fn scribble(dir: &Path, bytes: &[u8]) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join(FILE))
            .unwrap();
        file.write_all(bytes).unwrap();
    }

    #[test]
    fn a_letter_is_kept_as_text_in_a_file_of_our_own() {
        let dir = TempDir::new().unwrap();
        let mut letters = Letters::open(dir.path());
        letters.keep(&[]).unwrap();
        let path = dir.path().join(FILE);
        assert!(!path.exists(), "without a letter there is no file");
        assert_eq!(read(dir.path()).unwrap(), Kept::default());

        let one = entry(&[("frame", b"a\xff\nb"), ("reason", b"no \"event\"")]);
        let two = entry(&[("event", b"{}")]);
        letters.keep(&[&one, &two]).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it has numbers and digits of callers");
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"frame\":\"a\u{fffd}\\nb\",\"reason\":\"no \\\"event\\\"\"}\n{\"event\":\"{}\"}\n"
        );
        let kept = read(dir.path()).unwrap();
        assert_eq!(
            kept.letters[0],
            letter(1, &[("frame", "a\u{fffd}\nb"), ("reason", "no \"event\"")])
        );
        assert_eq!(kept.letters[1], letter(2, &[("event", "{}")]));
    }

    #[test]
    fn a_torn_line_is_counted_and_spoils_nothing() {
        let dir = TempDir::new().unwrap();
        let mut letters = Letters::open(dir.path());
        letters.keep(&[&entry(&[("a", b"1")])]).unwrap();
        scribble(dir.path(), b"{\"a\":\"2");
        letters.keep(&[&entry(&[("a", b"3")])]).unwrap();
        scribble(dir.path(), b"\xff\n[]\n{\"a\":4}\n\n");
        let kept = read(dir.path()).unwrap();
        assert_eq!(
            kept.letters,
            [letter(1, &[("a", "1")]), letter(3, &[("a", "3")])]
        );
        assert_eq!(kept.malformed, 4, "the torn line and three of no meaning");
    }

    #[test]
    fn a_full_file_takes_no_letter_and_still_notes_a_replay() {
        let dir = TempDir::new().unwrap();
        let mut letters = Letters::open(dir.path());
        letters.keep(&[&entry(&[("a", b"1")])]).unwrap();
        let filler = vec![b'x'; usize::try_from(MAX_BYTES).unwrap() - 15];
        scribble(dir.path(), &filler);
        let error = letters.keep(&[&entry(&[("a", b"2")])]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert_eq!(
            read(dir.path()).unwrap().letters,
            [letter(1, &[("a", "1")])]
        );
        replayed(dir.path(), 1).unwrap();
        assert_eq!(read(dir.path()).unwrap().letters, []);
    }

    #[test]
    fn a_replay_of_a_file_that_was_taken_away_hides_no_later_letter() {
        let dir = TempDir::new().unwrap();
        let mut letters = Letters::open(dir.path());
        let error = replayed(dir.path(), 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "it makes no file");
        letters.keep(&[&entry(&[("a", b"1")])]).unwrap();
        replayed(dir.path(), 3).unwrap();
        letters.keep(&[&entry(&[("a", b"3")])]).unwrap();
        assert_eq!(
            read(dir.path()).unwrap().letters,
            [letter(1, &[("a", "1")]), letter(3, &[("a", "3")])]
        );
    }

    #[derive(Debug, Clone)]
    enum Step {
        Keep(Vec<String>),
        Tear(usize),
        Replay(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop::collection::vec(any::<String>(), 1..4).prop_map(Step::Keep),
            (0_usize..8).prop_map(Step::Tear),
            any::<prop::sample::Index>().prop_map(Step::Replay),
            Just(Step::Keep(vec!["{\"replayed\":1}\n".to_owned()])),
        ]
    }

    proptest! {
        #[test]
        fn what_was_kept_and_not_replayed_is_read_whatever_crashes_left(steps in prop::collection::vec(step(), 0..12)) {
            let dir = TempDir::new().unwrap();
            let mut letters = Letters::open(dir.path());
            let mut expected: Vec<String> = Vec::new();
            for step in steps {
                match step {
                    Step::Keep(texts) => {
                        let entries: Vec<_> = texts.iter().map(|text| entry(&[("event", text.as_bytes())])).collect();
                        letters.keep(&entries.iter().collect::<Vec<_>>()).unwrap();
                        expected.extend(texts);
                    }
                    Step::Tear(bytes) => {
                        let torn = line(&entry(&[("event", b"torn")]));
                        scribble(dir.path(), &torn.as_bytes()[..bytes]);
                    }
                    Step::Replay(_) if expected.is_empty() => {}
                    Step::Replay(index) => {
                        let at = index.index(expected.len());
                        let number = read(dir.path()).unwrap().letters[at].number;
                        replayed(dir.path(), number).unwrap();
                        expected.remove(at);
                    }
                }
                let kept = read(dir.path()).unwrap().letters;
                let found: Vec<_> = kept.iter().map(|letter| letter.fields["event"].clone()).collect();
                assert_eq!(found, expected);
            }
        }
    }
}
