//! The calls as bytes: a version, a checksum, then each call with its length-prefixed parts. Bytes that are not exactly that are
//! no state: half of a call's knowledge would say something wrong of it.

use std::rc::Rc;

use crate::call::{Call, Id, State};

const VERSION: &[u8; 8] = b"ready\0\0\x01";

/// The calls as bytes; no calls, no bytes.
pub(crate) fn write<'a>(calls: impl ExactSizeIterator<Item = &'a Call>) -> Vec<u8> {
    if calls.len() == 0 {
        return Vec::new();
    }
    let mut bytes = VERSION.to_vec();
    bytes.extend([0; 8]);
    for call in calls {
        write_call(&mut bytes, call);
    }
    let checksum = fnv1a(bytes.get(16..).unwrap_or_default()).to_le_bytes();
    if let Some(place) = bytes.get_mut(8..16) {
        place.copy_from_slice(&checksum);
    }
    bytes
}

/// The calls, or nothing if these are not such bytes.
pub(crate) fn read(bytes: &[u8]) -> Option<Vec<Call>> {
    let (checksum, calls) = bytes.strip_prefix(VERSION)?.split_first_chunk()?;
    if fnv1a(calls) != u64::from_le_bytes(*checksum) {
        return None;
    }
    let mut rest = Rest(calls);
    let mut calls = Vec::new();
    while !rest.0.is_empty() {
        calls.push(rest.call()?);
    }
    Some(calls)
}

fn write_call(bytes: &mut Vec<u8>, call: &Call) {
    bytes.push(match call.state {
        State::Waiting => 0,
        State::Ready => 1,
        State::TimedOut => 2,
    });
    bytes.extend(call.until.to_le_bytes());
    let count = |bytes: &mut Vec<u8>, count: usize| bytes.push(count.try_into().unwrap_or(u8::MAX));
    let text = |bytes: &mut Vec<u8>, text: &str| {
        count(bytes, text.len());
        bytes.extend(text.as_bytes());
    };
    count(bytes, call.ids.len());
    for id in &call.ids {
        text(bytes, &id.text);
        bytes.push(u8::from(id.ended) << 1 | u8::from(id.started.is_some()));
        id.started
            .iter()
            .for_each(|at| bytes.extend(at.to_le_bytes()));
    }
    count(bytes, call.seen.len());
    for (need, at) in &call.seen {
        text(bytes, need);
        bytes.extend(at.to_le_bytes());
    }
    bytes.push(u8::from(call.declared.is_some()));
    let declared = call.declared.as_deref().unwrap_or_default();
    count(bytes, declared.len());
    declared.iter().for_each(|need| text(bytes, need));
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn call(&mut self) -> Option<Call> {
        let state = match self.byte()? {
            0 => State::Waiting,
            1 => State::Ready,
            2 => State::TimedOut,
            _ => return None,
        };
        let until = self.number()?;
        let ids = self.many(|rest| {
            let (text, flags) = (rest.text()?, rest.byte()?);
            Some(Id {
                text,
                started: match flags & 1 {
                    1 => Some(rest.number()?),
                    _ => None,
                },
                ended: flags & 2 == 2,
            })
        })?;
        let seen = self.many(|rest| Some((rest.text()?, rest.number()?)))?;
        let is_declared = self.byte()? == 1;
        let declared = self.many(Self::text)?;
        (!ids.is_empty()).then_some(Call {
            ids,
            seen,
            declared: is_declared.then_some(declared),
            state,
            until,
        })
    }

    fn many<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.byte()?).map(|_| one(self)).collect()
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn text(&mut self) -> Option<Rc<str>> {
        let length = self.byte()?;
        let (text, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        Some(std::str::from_utf8(text).ok()?.into())
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
