//! Token buckets, at most so many. Each is the time at which it will be full again, which says how many tokens are missing now.
//! (The generic cell rate algorithm of ATM networks.)

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::key::Key;

/// The first byte of the saved state. Another layout gets another number.
const VERSION: u8 = 1;
const KEY_BYTES: usize = size_of::<Key>();
/// A key and a bucket.
const ENTRY_BYTES: usize = KEY_BYTES + size_of::<u64>();

/// FreeSWITCH's events are late by seconds at worst. Where more seems to be missing than a bucket holds, the clock was set back,
/// or the event is one of the past, and the bucket begins anew.
const LATE_NS: u64 = 10_000_000_000;

/// The buckets of the keys used last.
pub(crate) struct Buckets {
    /// One token comes back in this time.
    token_ns: u64,
    /// An empty bucket is full again after this time.
    full_ns: u64,
    max_keys: usize,
    buckets: HashMap<Key, Bucket>,
    /// By the number of their last use.
    used: BTreeMap<u64, Key>,
    uses: u64,
}

#[derive(Clone, Copy)]
struct Bucket {
    full_at_ns: u64,
    use_number: u64,
}

/// What there was.
#[derive(Debug, PartialEq)]
pub(crate) enum Taken {
    Token,
    Nothing,
}

impl Buckets {
    /// `rate` tokens come back `per` so much time, and a bucket holds `burst` of them.
    pub(crate) fn new(rate: u32, per: Duration, burst: u32, max_keys: usize) -> Self {
        let per_ns = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        let token_ns = per_ns / u64::from(rate).max(1);
        Self {
            token_ns,
            full_ns: token_ns.saturating_mul(burst.into()),
            max_keys,
            buckets: HashMap::new(),
            used: BTreeMap::new(),
            uses: 0,
        }
    }

    /// Takes a token for this key, if there is one; and whether a bucket that was not yet full had to go.
    pub(crate) fn take(&mut self, key: Key, now_us: u64) -> (Taken, bool) {
        let now_ns = now_us.saturating_mul(1_000);
        let full_at_ns = self.buckets.get(&key).map_or(0, |bucket| bucket.full_at_ns);
        let missing_ns = match full_at_ns.saturating_sub(now_ns) {
            missing if missing > self.full_ns.saturating_add(LATE_NS) => 0,
            missing => missing,
        };
        let after_ns = missing_ns.saturating_add(self.token_ns);
        if after_ns > self.full_ns {
            self.put(key, full_at_ns);
            return (Taken::Nothing, false);
        }
        self.put(key, now_ns.saturating_add(after_ns));
        (Taken::Token, self.make_room(now_ns))
    }

    fn put(&mut self, key: Key, full_at_ns: u64) {
        self.uses += 1;
        let bucket = Bucket {
            full_at_ns,
            use_number: self.uses,
        };
        if let Some(before) = self.buckets.insert(key, bucket) {
            self.used.remove(&before.use_number);
        }
        self.used.insert(self.uses, key);
    }

    fn make_room(&mut self, now_ns: u64) -> bool {
        if self.buckets.len() <= self.max_keys {
            return false;
        }
        let oldest = self.used.pop_first();
        let oldest = oldest.and_then(|(_, key)| self.buckets.remove(&key));
        oldest.is_some_and(|bucket| bucket.full_at_ns > now_ns)
    }

    pub(crate) fn save(&self) -> Vec<u8> {
        let mut saved = Vec::with_capacity(1 + self.used.len() * ENTRY_BYTES);
        saved.push(VERSION);
        for key in self.used.values() {
            if let Some(bucket) = self.buckets.get(key) {
                saved.extend_from_slice(key);
                saved.extend_from_slice(&bucket.full_at_ns.to_le_bytes());
            }
        }
        saved
    }

    /// The buckets of a saved state that were used last, as many as there is room for.
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
            if let Some((key, full_at)) = entry.split_first_chunk::<KEY_BYTES>()
                && let Some(full_at) = full_at.first_chunk()
            {
                self.put(*key, u64::from_le_bytes(*full_at));
            }
        }
        Ok(())
    }
}
