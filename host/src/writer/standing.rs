//! Where this process stands with its cursor, and what a look at it means.
//!
//! `judge` compares what Redis says with what is remembered: claim, go on, heal, wait for another owner, or leave. It alone
//! decides whose the streams' cursor is. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acknowledged::Acknowledged;
use super::cursor::{Cursor, Owner, Place};
use crate::journal::Lsn;

/// How often a cursor of another owner is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// An owner who is still there after this long stays: twice the time in which a dead one expires.
const PATIENCE: Duration = Duration::from_secs(30);
/// The bits of an LSN that count within one open of the journal; the higher ones jump at each open.
const WITHIN_OPEN: u64 = (1 << 40) - 1;

/// What of the journal can still be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retained {
    /// The first LSN that is still there.
    pub(super) oldest: Lsn,
    /// Nothing was ever deleted.
    pub(super) is_complete: bool,
}

/// Why the cursor is to be written although nothing is sent with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// There is none, and there never was.
    First,
    /// It is another's, who is gone; this is what it said.
    Adopt(String),
    /// It is gone, and the streams are as remembered.
    Restore,
    /// It is gone, and so are entries; not of these streams, which have all up to `written`.
    Refill {
        intact: BTreeSet<Arc<str>>,
        written: Lsn,
    },
    /// It stands here, where this journal has never been: the files that had these numbers are gone.
    Outdated(Lsn),
}

/// A cursor to be written under the watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) at: Lsn,
    pub(super) why: Why,
}

/// What a look at the cursor means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is ours and stands here.
    Held(Place),
    /// It can be had.
    Claim(Claim),
    /// It is gone: ask the streams why.
    Probe,
    /// Another's, who is there: look again then.
    Wait { owner: String, until: Instant },
    /// Another's, for good.
    Foreign { owner: String },
}

/// What is remembered.
#[derive(Debug)]
pub(super) struct Standing {
    /// Before the first LSN of the journal.
    pub(super) begin: Lsn,
    /// The first LSN of this process.
    pub(super) first: Lsn,
    pub(super) acknowledged: Acknowledged,
    /// The highest LSN that was ever acknowledged.
    pub(super) high: Lsn,
    /// The cursor was ours once in this process.
    pub(super) held: bool,
    /// Streams that have everything up to here, which is more than the cursor says: others are being filled again.
    ahead: BTreeMap<Arc<str>, Lsn>,
    /// Since when another's cursor is in the way.
    foreign_since: Option<Instant>,
}

impl Standing {
    pub(super) fn new(begin: Lsn, first: Lsn, mark: Acknowledged) -> Standing {
        Standing {
            begin,
            first,
            high: mark.lsn,
            acknowledged: mark,
            held: false,
            ahead: BTreeMap::new(),
            foreign_since: None,
        }
    }

    /// Everything up to here is in Redis; what comes after it is to be sent.
    pub(super) fn position(&self) -> Lsn {
        match self.acknowledged.lsn {
            0 => self.begin,
            lsn => lsn,
        }
    }

    pub(super) fn judge(&mut self, now: Instant, cursor: Cursor, owner: Owner) -> Verdict {
        let takeover = match cursor {
            Cursor::Foreign(text) => Claim {
                at: self.position(),
                why: Why::Adopt(text),
            },
            // Everything older is in Redis; what this process will send is not, whatever numbers it has.
            Cursor::Ours(place) if !self.held && place.lsn >= self.first => Claim {
                at: self.first - 1,
                why: Why::Outdated(place.lsn),
            },
            Cursor::Ours(place) => {
                self.held = true;
                self.foreign_since = None;
                return Verdict::Held(place);
            }
            Cursor::Missing if self.acknowledged == Acknowledged::default() => {
                let (at, why) = (self.begin, Why::First);
                return Verdict::Claim(Claim { at, why });
            }
            Cursor::Missing => return Verdict::Probe,
        };
        let since = *self.foreign_since.get_or_insert(now);
        match owner {
            Owner::Other(owner) if self.held || now.duration_since(since) >= PATIENCE => {
                Verdict::Foreign { owner }
            }
            Owner::Other(owner) => {
                let until = now + LOOK_AGAIN;
                Verdict::Wait { owner, until }
            }
            Owner::Nobody | Owner::Us if self.held => {
                let owner = "a host that is gone".to_owned();
                Verdict::Foreign { owner }
            }
            Owner::Nobody | Owner::Us => Verdict::Claim(takeover),
        }
    }

    /// Everything up to here is in Redis.
    pub(super) fn acknowledge(&mut self, through: Lsn) {
        self.acknowledged.lsn = through;
        self.high = self.high.max(through);
        self.ahead.retain(|_, ahead| *ahead > through);
    }

    /// Whether a stream is known to have what it got of this input, although the cursor does not say so.
    pub(super) fn has(&self, stream: &str, lsn: Lsn) -> bool {
        self.ahead.get(stream).is_some_and(|ahead| lsn <= *ahead)
    }

    /// Redis came back with less: what comes after `to` is to be sent again.
    pub(super) fn rewind(&mut self, to: Lsn) {
        self.acknowledged.lsn = to;
        self.acknowledged.forget_ids();
        // They are older than when they were looked at.
        self.ahead.clear();
    }

    /// Streams are gone: all that is retained is to be sent again, but not to those that are intact and have all up to `written`.
    pub(super) fn refill(&mut self, to: Lsn, intact: &BTreeSet<Arc<str>>, written: Lsn) {
        self.acknowledged.lsn = to;
        self.acknowledged
            .ids
            .retain(|stream, _| intact.contains(stream));
        self.ahead.retain(|stream, _| intact.contains(stream));
        for stream in intact {
            let ahead = self.ahead.entry(Arc::clone(stream)).or_insert(written);
            *ahead = written.max(*ahead);
        }
    }
}

impl Retained {
    /// How many LSNs after `after` are gone for good; at least so many, where the journal was opened in between.
    pub(super) fn missing_after(&self, after: Lsn) -> u64 {
        if self.is_complete || self.oldest <= after.saturating_add(1) {
            return 0;
        }
        if self.oldest & !WITHIN_OPEN == after & !WITHIN_OPEN {
            self.oldest - after - 1
        } else {
            (self.oldest & WITHIN_OPEN).max(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Acknowledged, Claim, Cursor, Owner, Place, Retained, Standing, Verdict, Why};

    const BEGIN: u64 = (1 << 40) - 1;
    const FIRST: u64 = 2 << 40;

    fn standing(lsn: u64) -> Standing {
        let mark = Acknowledged {
            lsn,
            ..Acknowledged::default()
        };
        Standing::new(BEGIN, FIRST, mark)
    }

    fn other() -> Owner {
        Owner::Other("b".to_owned())
    }

    fn foreign() -> Cursor {
        Cursor::Foreign("x:1".to_owned())
    }

    #[test]
    fn a_missing_cursor_is_claimed_once_and_then_asked_after() {
        let now = Instant::now();
        let claim = Claim {
            at: BEGIN,
            why: Why::First,
        };
        let verdict = standing(0).judge(now, Cursor::Missing, Owner::Nobody);
        assert_eq!(verdict, Verdict::Claim(claim));
        let verdict = standing(BEGIN + 5).judge(now, Cursor::Missing, Owner::Nobody);
        assert_eq!(verdict, Verdict::Probe, "it was there before");
        let mut half_written = standing(0);
        half_written.acknowledged.remember_stream("a");
        let verdict = half_written.judge(now, Cursor::Missing, Owner::Nobody);
        assert_eq!(verdict, Verdict::Probe, "with a part of the first batch");
    }

    #[test]
    fn a_living_owner_is_waited_for_and_then_left_alone() {
        let (mut standing, now) = (standing(0), Instant::now());
        for seconds in [0, 1, 29] {
            let now = now + Duration::from_secs(seconds);
            let wait = Verdict::Wait {
                owner: "b".to_owned(),
                until: now + Duration::from_secs(1),
            };
            assert_eq!(standing.judge(now, foreign(), other()), wait);
        }
        let leave = Verdict::Foreign {
            owner: "b".to_owned(),
        };
        let later = now + Duration::from_secs(30);
        assert_eq!(standing.judge(later, foreign(), other()), leave);
    }

    #[test]
    fn an_owner_who_is_gone_is_succeeded_where_we_stand() {
        let now = Instant::now();
        for (lsn, at) in [(0, BEGIN), (BEGIN + 9, BEGIN + 9)] {
            let claim = Claim {
                at,
                why: Why::Adopt("x:1".to_owned()),
            };
            let verdict = standing(lsn).judge(now, foreign(), Owner::Nobody);
            assert_eq!(verdict, Verdict::Claim(claim));
        }
    }

    #[test]
    fn a_cursor_that_was_ours_is_not_taken_back() {
        let (mut standing, now) = (standing(0), Instant::now());
        let place = Place {
            lsn: BEGIN,
            letters: false,
        };
        let held = standing.judge(now, Cursor::Ours(place), Owner::Us);
        assert_eq!(held, Verdict::Held(place));
        for owner in [other(), Owner::Nobody, Owner::Us] {
            let verdict = standing.judge(now, foreign(), owner);
            assert!(matches!(verdict, Verdict::Foreign { .. }), "{verdict:?}");
        }
    }

    #[test]
    fn a_cursor_that_this_journal_never_wrote_is_no_reason_to_send_nothing() {
        let now = Instant::now();
        let ours = |lsn| {
            Cursor::Ours(Place {
                lsn,
                letters: false,
            })
        };
        let verdict = standing(BEGIN + 5).judge(now, ours(FIRST - 1), Owner::Us);
        assert!(matches!(verdict, Verdict::Held(_)), "of an earlier process");
        for lsn in [FIRST, FIRST + 7, 9 << 40] {
            let mut standing = standing(BEGIN + 5);
            let claim = Claim {
                at: FIRST - 1,
                why: Why::Outdated(lsn),
            };
            let wait = standing.judge(now, ours(lsn), other());
            assert!(matches!(wait, Verdict::Wait { .. }), "a twin: {wait:?}");
            let verdict = standing.judge(now, ours(lsn), Owner::Us);
            assert_eq!(verdict, Verdict::Claim(claim));
            let verdict = standing.judge(now, ours(FIRST - 1), Owner::Us);
            assert!(matches!(verdict, Verdict::Held(_)), "the claim itself");
            let verdict = standing.judge(now, ours(FIRST), Owner::Us);
            assert!(matches!(verdict, Verdict::Held(_)), "what it sends then");
        }
    }

    #[test]
    fn what_can_not_be_healed_is_counted() {
        let missing = |oldest, is_complete, after| {
            let retained = Retained {
                oldest,
                is_complete,
            };
            retained.missing_after(after)
        };
        assert_eq!(missing(100, false, 50), 49);
        assert_eq!(missing(51, false, 50), 0);
        assert_eq!(
            missing(100, true, 50),
            0,
            "a gap in a complete journal is none"
        );
        assert_eq!(
            missing((2 << 40) + 7, false, 1 << 40),
            7,
            "not the jump between opens"
        );
    }
}
