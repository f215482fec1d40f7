//! Every order in which the parts of a call can come, with some of them twice and some not at all: one outcome, never two.

use std::collections::BTreeMap;
use std::ops::Range;

use jackfield_sdk::Filter;
use jackfield_sdk::testing::{Incoming, filter, reload};

use super::{SECOND, linked, of, reported};
use crate::Ready;

/// Calls that one filter has at a time. They are told apart by their ids, and their events come one after the other in turn.
const AT_ONCE: usize = 500;

/// A part of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Start,
    /// On the leg with this number.
    Need(usize, usize),
    Link,
}

/// One order in which parts of a call come, and what must be said of it, as `(name, missing)`.
struct Order {
    parts: Vec<Part>,
    expected: Vec<(&'static str, String)>,
}

fn settings(needs: usize) -> String {
    let declared: String = (0..needs)
        .map(|need| format!("[[need]]\nname = \"n{need}\"\nevent = \"CUSTOM need::{need}\"\n"))
        .collect();
    let legs = 2 * AT_ONCE;
    format!("max_calls = {legs}\nlink = [\"CHANNEL_BRIDGE\"]\n{declared}")
}

fn parts(needs: usize) -> Vec<Part> {
    let needs = (0..needs).map(|need| Part::Need(need, 0));
    [Part::Start].into_iter().chain(needs).collect()
}

impl Part {
    fn event(self, call: usize) -> Incoming {
        let id = |leg: usize| format!("call {call} leg {leg}");
        match self {
            Part::Start => of("CHANNEL_CREATE", &id(0)),
            Part::Need(need, leg) => of(&format!("CUSTOM need::{need}"), &id(leg)),
            Part::Link => linked(&id(0), &id(1)),
        }
    }
}

fn permutations(parts: &[Part]) -> Vec<Vec<Part>> {
    if parts.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for place in 0..parts.len() {
        let mut rest = parts.to_vec();
        let first = rest.remove(place);
        for mut order in permutations(&rest) {
            order.insert(0, first);
            all.push(order);
        }
    }
    all
}

/// Each part a second time, at every place.
fn with_duplicates(order: &[Part]) -> Vec<Vec<Part>> {
    let mut all = vec![order.to_vec()];
    for part in order {
        for place in 0..=order.len() {
            let mut twice = order.to_vec();
            twice.insert(place, *part);
            all.push(twice);
        }
    }
    all
}

fn subsets(parts: &[Part]) -> impl Iterator<Item = Vec<Part>> {
    (1..1_u32 << parts.len()).map(|bits| {
        let kept = parts.iter().enumerate();
        let kept = kept.filter(|(place, _)| bits >> place & 1 == 1);
        kept.map(|(_, part)| *part).collect()
    })
}

/// What must be said of a call of which these parts came.
fn expected(seen: &[Part], needs: Range<usize>) -> (&'static str, String) {
    let start = (!seen.contains(&Part::Start)).then(|| "start".to_owned());
    let is_seen = |number: usize| {
        seen.iter()
            .any(|part| matches!(part, Part::Need(need, _) if *need == number))
    };
    let unseen = needs.filter(|number| !is_seen(*number));
    let missing: Vec<String> = start
        .into_iter()
        .chain(unseen.map(|n| format!("n{n}")))
        .collect();
    let name = if missing.is_empty() {
        "READY"
    } else {
        "READY_TIMEOUT"
    };
    (name, missing.join(","))
}

/// Runs the orders, `AT_ONCE` calls at a time with their events in turn, until nothing can be said any more.
/// Before step `swap`, if there is one, the filter is swapped for a new instance.
#[track_caller]
fn check(settings: &str, orders: &[Order], swap: Option<usize>) {
    for orders in orders.chunks(AT_ONCE) {
        let mut ready: Ready = filter(settings).unwrap();
        let mut said: BTreeMap<usize, Vec<(String, String)>> = BTreeMap::new();
        let mut hear = |derived: &[jackfield_sdk::Derived]| {
            for derived in derived {
                let id = derived.get("Unique-ID").unwrap();
                let call = id.split(' ').nth(1).unwrap().parse().unwrap();
                let missing = derived.get("Ready-Missing").unwrap_or_default();
                let outcome = (derived.name.clone(), missing.to_owned());
                said.entry(call).or_default().push(outcome);
            }
        };
        let steps = orders
            .iter()
            .map(|order| order.parts.len())
            .max()
            .unwrap_or(0);
        for step in 0..steps {
            if swap == Some(step) {
                ready = reload(&ready, settings).unwrap();
            }
            for (call, order) in orders.iter().enumerate() {
                if let Some(part) = order.parts.get(step) {
                    let handled = part.event(call).at(step as u64 * SECOND).run(&mut ready);
                    hear(&handled.derived);
                }
            }
        }
        if swap == Some(steps) {
            ready = reload(&ready, settings).unwrap();
        }
        for second in 0..60 {
            hear(&ready.tick((1 + second) * SECOND));
        }
        for (call, order) in orders.iter().enumerate() {
            let mut said = said.remove(&call).unwrap_or_default();
            said.sort();
            let said: Vec<(&str, &str)> = said.iter().map(|(n, m)| (&**n, &**m)).collect();
            let expected: Vec<(&str, &str)> = order
                .expected
                .iter()
                .map(|(name, missing)| (*name, &**missing))
                .collect();
            assert_eq!(said, expected, "{:?}, swapped before {swap:?}", order.parts);
        }
    }
}

/// Every order of every part of a call, with each twice at every place and with each set of them lost.
fn orders(needs: usize) -> Vec<Order> {
    let parts = parts(needs);
    let all = subsets(&parts).flat_map(|kept| {
        let expected = vec![expected(&kept, 0..needs)];
        let orders = permutations(&kept)
            .into_iter()
            .flat_map(|order| with_duplicates(&order));
        let orders: Vec<Order> = orders
            .map(|parts| Order {
                parts,
                expected: expected.clone(),
            })
            .collect();
        orders
    });
    all.collect()
}

#[test]
fn every_order_with_duplicates_and_loss_has_one_outcome() {
    for needs in 1..=5 {
        check(&settings(needs), &orders(needs), None);
    }
}

#[test]
fn a_swap_at_any_place_changes_nothing() {
    let (orders, settings) = (orders(3), settings(3));
    let longest = orders.iter().map(|order| order.parts.len()).max().unwrap();
    for place in 0..=longest {
        check(&settings, &orders, Some(place));
    }
}

/// The needs are spread over two legs, in every way; the link comes at every place, twice, or not at all.
#[test]
fn a_link_at_any_place_makes_one_call_of_two() {
    for needs in 1..=3 {
        let legs =
            |way: u32| (0..needs).map(move |need| Part::Need(need, (way >> need & 1) as usize));
        for way in 1..1 << needs {
            let apart: Vec<Part> = [Part::Start].into_iter().chain(legs(way)).collect();
            let (here, there): (Vec<Part>, Vec<Part>) = apart
                .iter()
                .partition(|part| !matches!(part, Part::Need(_, 1)));
            let together: Vec<Part> = apart.iter().copied().chain([Part::Link]).collect();
            let linked = permutations(&together)
                .into_iter()
                .flat_map(|order| with_duplicates(&order));
            let linked = linked.map(|parts| Order {
                parts,
                expected: vec![("READY", String::new())],
            });
            let unlinked = permutations(&apart).into_iter().map(|parts| {
                let mut both = vec![expected(&here, 0..needs), expected(&there, 0..needs)];
                both.sort();
                Order {
                    parts,
                    expected: both,
                }
            });
            let orders: Vec<Order> = linked.chain(unlinked).collect();
            for swap in [None, Some(2)] {
                check(&settings(needs), &orders, swap);
            }
        }
    }
}

#[test]
fn a_need_that_tells_its_name_comes_in_any_order_with_its_declaration() {
    let settings = "end = []\ndeclare = { event = \"CHANNEL_CREATE\", header = \"variable_needs\" }\n[[need]]\nname_from = \"Ready-Need\"\nevent = \"CUSTOM ready::seen\"\n";
    for order in permutations(&parts(3)) {
        let mut ready: Ready = filter(settings).unwrap();
        let derived: usize = order
            .iter()
            .map(|part| match part {
                Part::Need(need, _) => reported("a", &format!("n{need}")),
                _ => part
                    .event(0)
                    .header("Unique-ID", "a")
                    .header("variable_needs", "n0,n1,n2"),
            })
            .map(|event| event.run(&mut ready).derived.len())
            .sum();
        assert_eq!(derived, 1, "{order:?}");
    }
}
