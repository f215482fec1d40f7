//! A custom section of a Wasm file: bytes that the file carries along and that mean nothing to Wasm.
//!
//! Reads and writes the outermost list of sections alone, so it works on components and core modules alike. Does not
//! validate what is in the sections; the engine does.

use std::ops::Range;

use thiserror::Error;

/// `\0asm`, and four bytes of version and layer.
const PREAMBLE: usize = 8;
const MAGIC: &[u8] = b"\0asm";
/// The id of custom sections.
const CUSTOM: u8 = 0;

/// The file's list of sections cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not a Wasm file: no section at byte {0}")]
pub(super) struct NotWasm(usize);

struct Section {
    /// With its id and its length.
    whole: Range<usize>,
    content: Range<usize>,
    custom: bool,
}

/// What the section of this name holds, if there is one.
pub(super) fn read<'a>(file: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, NotWasm> {
    let sections = sections(file)?;
    Ok(sections
        .iter()
        .find_map(|section| named(file, section, name)))
}

/// The file with this section at its end, and no other one of that name.
pub(super) fn write(file: &[u8], name: &str, data: &[u8]) -> Result<Vec<u8>, NotWasm> {
    let mut written = file.get(..PREAMBLE).unwrap_or_default().to_vec();
    for section in sections(file)? {
        if named(file, &section, name).is_none() {
            written.extend_from_slice(file.get(section.whole).unwrap_or_default());
        }
    }
    let mut content = length(name.len());
    content.extend_from_slice(name.as_bytes());
    content.extend_from_slice(data);
    written.push(CUSTOM);
    written.extend(length(content.len()));
    written.extend(content);
    Ok(written)
}

fn sections(file: &[u8]) -> Result<Vec<Section>, NotWasm> {
    if !file.starts_with(MAGIC) || file.len() < PREAMBLE {
        return Err(NotWasm(0));
    }
    let mut sections = Vec::new();
    let mut at = PREAMBLE;
    while let Some(id) = file.get(at) {
        let (start, size) = number(file, at + 1).ok_or(NotWasm(at))?;
        let end = start
            .checked_add(size)
            .filter(|end| *end <= file.len())
            .ok_or(NotWasm(at))?;
        sections.push(Section {
            whole: at..end,
            content: start..end,
            custom: *id == CUSTOM,
        });
        at = end;
    }
    Ok(sections)
}

/// What the section holds if it is a custom one of this name.
fn named<'a>(file: &'a [u8], section: &Section, name: &str) -> Option<&'a [u8]> {
    if !section.custom {
        return None;
    }
    let content = file.get(section.content.clone())?;
    let (start, size) = number(content, 0)?;
    let end = start.checked_add(size)?;
    (content.get(start..end)? == name.as_bytes())
        .then(|| content.get(end..))
        .flatten()
}

/// The unsigned LEB128 number of 32 bits at a place, and the place after it.
fn number(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut number = 0_u64;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((at, usize::try_from(u32::try_from(number).ok()?).ok()?));
        }
    }
    None
}

fn length(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{NotWasm, read, write};

    /// An empty component.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn a_section_is_read_as_it_was_written_and_replaced_by_the_next() {
        let file = write(EMPTY, "other", b"stays").unwrap();
        assert_eq!(read(&file, "ours"), Ok(None));
        let long = vec![7; 70_000];
        let first = write(&file, "ours", &long).unwrap();
        assert_eq!(read(&first, "ours"), Ok(Some(long.as_slice())));
        let second = write(&first, "ours", b"short").unwrap();
        assert_eq!(read(&second, "ours"), Ok(Some(b"short".as_slice())));
        assert_eq!(read(&second, "other"), Ok(Some(b"stays".as_slice())));
        assert_eq!(
            second.len(),
            file.len() + 2 + 1 + "ours".len() + "short".len(),
            "the first one is gone"
        );
    }

    #[test]
    fn what_is_no_wasm_or_cut_short_is_refused() {
        assert_eq!(read(b"hello, world", "ours"), Err(NotWasm(0)));
        assert_eq!(read(b"\0asm", "ours"), Err(NotWasm(0)));
        let file = write(EMPTY, "ours", b"data").unwrap();
        assert_eq!(read(&file[..file.len() - 1], "ours"), Err(NotWasm(8)));
        assert!(write(&file[..file.len() - 1], "ours", b"").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in any::<Vec<u8>>()) {
            let file = [EMPTY, &bytes].concat();
            drop((read(&file, "ours"), write(&file, "ours", b"data")));
        }
    }
}
