//! What can happen to a journal's files while no process has it open, and what cannot happen but is put up with.

use std::collections::BTreeSet;

use super::disk::{File, MemoryDisk};
use super::layout::{forged_header, forged_record};
use super::script::Step;

/// Forged files and copies end here.
const MOST_BYTES: usize = 1 << 18;

/// Does what a step says to the files that are there.
pub(super) fn damage(disk: &MemoryDisk, step: &Step) {
    let names = disk.names();
    if step.letter == 'N' {
        let name = format!("{:016x}.jnl", step.number(0));
        if !names.contains(&name) {
            disk.put(&name, File::default());
        }
        return;
    }
    let pick = |place| names.get(step.below(place, names.len())).cloned();
    let Some(name) = pick(0) else {
        return;
    };
    let mut file = disk.file(&name);
    let length = file.bytes.len();
    match step.letter {
        'F' => {
            let bit = step.below(1, length * 8);
            if let Some(byte) = file.bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
        'O' => {
            let from = step.below(1, length);
            let to = length.min(from + step.below(2, length + 1));
            file.bytes[from..to].fill(u8::try_from(step.below(3, 256)).expect("a byte"));
        }
        'X' => {
            let from = step.below(1, length);
            let to = length.min(from + step.below(2, length + 1));
            file.bytes.drain(from..to);
        }
        'T' => file.bytes.truncate(step.below(1, length + 1)),
        'R' => {
            disk.take(&name);
            return;
        }
        'S' => {
            let other = pick(1).unwrap_or_default();
            disk.put(&name, disk.file(&other));
            disk.put(&other, file);
            return;
        }
        'C' => {
            let from = step.below(1, length);
            let copy = file.bytes[from..length.min(from + step.below(2, length + 1))].to_vec();
            let other = pick(3).unwrap_or_default();
            let mut file = disk.file(&other);
            let at = step.below(4, file.bytes.len() + 1);
            put_at(&mut file.bytes, at, &copy);
            disk.put(&other, file);
            return;
        }
        'B' => file.bad = BTreeSet::from([step.below(1, length / 4096 + 1)]),
        'V' => {
            let kind = u16::try_from(step.below(2, 1 << 16)).expect("two bytes");
            let payload = vec![b'v'; step.below(4, 1 << 16)];
            let at = step.below(1, length + 1).next_multiple_of(8);
            put_at(
                &mut file.bytes,
                at,
                &forged_record(kind, step.number(3), &payload),
            );
        }
        'H' => {
            let version = u32::try_from(step.below(1, 3)).expect("a small number");
            let router = vec![b'r'; step.below(4, 1 << 16)];
            let header = forged_header(version, step.number(2), step.number(3), &router);
            put_at(&mut file.bytes, 0, &header);
        }
        _ => return,
    }
    disk.put(&name, file);
}

fn put_at(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    let end = at + what.len();
    if end > MOST_BYTES {
        return;
    }
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(what);
}
