//! The inputs that have no decision yet, while a journal is read from its start to its end.
//!
//! Both come in ascending order, and gaps are rare. So the inputs are kept as runs of numbers: a backlog of millions takes a few
//! words. An input that was passed over because its decision was damaged may still be decided by a later start of the host.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::journal::Lsn;

/// Inputs, each until its decision comes.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    /// Ascending; nearly always the backlog alone.
    runs: VecDeque<RangeInclusive<Lsn>>,
    last_input: Lsn,
    last_decided: Lsn,
    count: u64,
}

impl Undecided {
    /// Adds an input. One that is not above those before it is a copy.
    pub(super) fn add(&mut self, lsn: Lsn) {
        if lsn <= self.last_input {
            return;
        }
        self.last_input = lsn;
        self.count += 1;
        match self.runs.back_mut() {
            Some(run) if *run.end() == lsn - 1 => *run = *run.start()..=lsn,
            _ => self.runs.push_back(lsn..=lsn),
        }
    }

    /// Takes out the input that was decided. False: there is none. A decision that is not above those before it may be a copy,
    /// so that one is never false.
    pub(super) fn decide(&mut self, lsn: Lsn) -> bool {
        let may_be_copy = lsn <= self.last_decided;
        self.last_decided = self.last_decided.max(lsn);
        let place = self.runs.partition_point(|run| *run.end() < lsn);
        let Some(run) = self.runs.get_mut(place).filter(|run| run.contains(&lsn)) else {
            return may_be_copy;
        };
        self.count -= 1;
        let (start, end) = (*run.start(), *run.end());
        match (lsn == start, lsn == end) {
            (true, true) => drop(self.runs.remove(place)),
            (true, false) => *run = lsn + 1..=end,
            (false, true) => *run = start..=lsn - 1,
            (false, false) => {
                *run = start..=lsn - 1;
                self.runs.insert(place + 1, lsn + 1..=end);
            }
        }
        true
    }

    /// How many inputs were not decided, whatever was decided after them.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::Undecided;

    #[test]
    fn a_backlog_is_one_run_and_a_gap_makes_another() {
        let mut undecided = Undecided::default();
        (1..=1_000_000).for_each(|lsn| undecided.add(lsn));
        (2_000_000..2_000_010).for_each(|lsn| undecided.add(lsn));
        assert_eq!((undecided.runs.len(), undecided.count()), (2, 1_000_010));
        assert!((1..=1_000).all(|lsn| undecided.decide(lsn)), "all there");
        assert_eq!((undecided.runs.len(), undecided.count()), (2, 999_010));
        assert!(!undecided.decide(1_000_001), "it is in the gap");
    }

    #[test]
    fn what_was_passed_over_can_be_decided_later() {
        let mut undecided = Undecided::default();
        (1..=9).for_each(|lsn| undecided.add(lsn));
        for lsn in [1, 2, 4, 5, 3, 4, 5, 6] {
            assert!(undecided.decide(lsn), "{lsn} is there, or a copy");
        }
        assert_eq!(undecided.count(), 3);
    }

    #[test]
    fn copies_change_nothing() {
        let mut undecided = Undecided::default();
        (5..=9).for_each(|lsn| undecided.add(lsn));
        assert!(undecided.decide(6), "the first decision");
        (5..=9).for_each(|lsn| undecided.add(lsn));
        assert!(undecided.decide(6), "its copy");
        assert_eq!(undecided.count(), 4);
    }

    proptest! {
        #[test]
        fn it_does_as_a_set_does(
            steps in prop::collection::vec((any::<bool>(), 1_u64..4, 0_u64..60), 0..200),
        ) {
            let (mut undecided, mut set) = (Undecided::default(), BTreeSet::new());
            let (mut input, mut newest) = (0, 0);
            for (is_input, by, back) in steps {
                if is_input {
                    input += by;
                    undecided.add(input);
                    set.insert(input);
                } else if let Some(decision) = input.checked_sub(back) {
                    let was_there = set.remove(&decision);
                    let expected = was_there || decision <= newest;
                    prop_assert_eq!(undecided.decide(decision), expected);
                    newest = newest.max(decision);
                }
                prop_assert_eq!(undecided.count(), set.len() as u64);
            }
        }
    }
}
