//! The keys that came, each with its time: at most so many, and none longer than the window.

use std::collections::{HashMap, VecDeque};

use crate::key::Key;

/// The first byte of the saved state. Another layout gets another number.
const VERSION: u8 = 1;
const KEY_BYTES: usize = size_of::<Key>();
/// A key and its time.
const ENTRY_BYTES: usize = KEY_BYTES + size_of::<u64>();

/// What was remembered.
pub(crate) struct Memory {
    window_us: u64,
    max_keys: usize,
    seen: HashMap<Key, u64>,
    /// In order of arrival. It has all of `seen`, and what a later arrival of the same key replaced there.
    order: VecDeque<(Key, u64)>,
}

/// What the memory says of an event.
#[derive(Debug, PartialEq)]
pub(crate) enum Noted {
    Before,
    New,
    /// New, and the oldest key was forgotten before its time.
    NewForOldest,
}

impl Memory {
    pub(crate) fn new(window_us: u64, max_keys: usize) -> Self {
        Self {
            window_us,
            max_keys,
            seen: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Time only makes old: an event that comes late, or from the past, takes nothing away.
    pub(crate) fn note(&mut self, key: Key, now: u64) -> Noted {
        while let Some((_, at)) = self.order.front()
            && at.saturating_add(self.window_us) < now
        {
            self.forget_oldest();
        }
        let before = self.seen.get(&key);
        if before.is_some_and(|at| at.abs_diff(now) <= self.window_us) {
            return Noted::Before;
        }
        let full = self.order.len() >= self.max_keys;
        if full {
            self.forget_oldest();
        }
        self.remember(key, now);
        if full {
            Noted::NewForOldest
        } else {
            Noted::New
        }
    }

    fn remember(&mut self, key: Key, at: u64) {
        self.seen.insert(key, at);
        self.order.push_back((key, at));
    }

    fn forget_oldest(&mut self) {
        if let Some((key, at)) = self.order.pop_front()
            && self.seen.get(&key) == Some(&at)
        {
            self.seen.remove(&key);
        }
    }

    pub(crate) fn save(&self) -> Vec<u8> {
        let mut saved = Vec::with_capacity(1 + self.order.len() * ENTRY_BYTES);
        saved.push(VERSION);
        for (key, at) in &self.order {
            saved.extend_from_slice(key);
            saved.extend_from_slice(&at.to_le_bytes());
        }
        saved
    }

    /// The newest keys of a saved state, as many as there is room for.
    pub(crate) fn restore(&mut self, saved: &[u8]) -> Result<(), String> {
        let Some((&VERSION, entries)) = saved.split_first() else {
            return Err(format!("it is not of version {VERSION}"));
        };
        let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(format!("{} bytes end within an entry", saved.len()));
        }
        let too_many = entries.len().saturating_sub(self.max_keys);
        for entry in entries.iter().skip(too_many) {
            if let Some((key, at)) = entry.split_first_chunk::<KEY_BYTES>()
                && let Some(at) = at.first_chunk()
            {
                self.remember(*key, u64::from_le_bytes(*at));
            }
        }
        Ok(())
    }
}
