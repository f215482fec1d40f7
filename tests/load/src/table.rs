//! The table: what must be, what is aimed at, and what was measured, as the median of the rounds with the least and the most.

use std::fmt::Write;

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// In the words of a reader.
    pub what: &'static str,
    pub unit: &'static str,
    /// The bounds, where there are any.
    pub bounds: Option<Bounds>,
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    pub must: f64,
    pub aim: f64,
    pub better: Better,
}

/// Which way a figure improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
}

/// Whether the median keeps the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Aim,
    Must,
    Missed,
}

/// Lines in the order of their first figures.
#[derive(Default)]
pub struct Table {
    rows: Vec<(String, Line, Vec<f64>)>,
}

impl Bounds {
    /// Less is better.
    pub const fn under(must: f64, aim: f64) -> Option<Bounds> {
        Some(Bounds {
            must,
            aim,
            better: Better::Less,
        })
    }

    /// More is better.
    pub const fn over(must: f64, aim: f64) -> Option<Bounds> {
        Some(Bounds {
            must,
            aim,
            better: Better::More,
        })
    }

    fn verdict(&self, measured: f64) -> Verdict {
        let keeps = |bound: f64| match self.better {
            Better::Less => measured <= bound,
            Better::More => measured >= bound,
        };
        match (keeps(self.must), keeps(self.aim)) {
            (true, true) => Verdict::Aim,
            (true, false) => Verdict::Must,
            (false, _) => Verdict::Missed,
        }
    }
}

impl Table {
    /// Another figure for a line; the line's own words, or those with the name of whoever was measured.
    pub fn add(&mut self, what: &str, line: Line, figure: f64) {
        match self.rows.iter_mut().find(|(name, _, _)| name == what) {
            Some((_, _, figures)) => figures.push(figure),
            None => self.rows.push((what.to_owned(), line, vec![figure])),
        }
    }

    /// As Markdown: what has bounds, and after it what there is to read it by.
    pub fn markdown(&self) -> String {
        let mut text =
            "| what | must | aim | measured | least to most | |\n|---|---|---|---|---|---|\n"
                .to_owned();
        let bounded = |row: &&(String, Line, Vec<f64>)| row.1.bounds.is_some();
        let (with, without): (Vec<_>, Vec<_>) = self.rows.iter().partition(bounded);
        for (what, line, figures) in with.into_iter().chain(without) {
            let Line { unit, bounds, .. } = line;
            let (low, middle, high) = spread(figures);
            let of = |bound: fn(&Bounds) -> f64| {
                let bounds = bounds.as_ref();
                bounds.map_or_else(String::new, |bounds| {
                    with_unit(&trimmed(bound(bounds)), unit)
                })
            };
            let (must, aim) = (of(|bounds| bounds.must), of(|bounds| bounds.aim));
            let verdict = bounds.map_or("", |bounds| match bounds.verdict(middle) {
                Verdict::Aim => "aim",
                Verdict::Must => "must",
                Verdict::Missed => "**missed**",
            });
            let measured = with_unit(&shown(middle), unit);
            let rounds = match figures.len() {
                1 => "once".to_owned(),
                _ => format!("{} to {}", shown(low), shown(high)),
            };
            writeln!(
                text,
                "| {what} | {must} | {aim} | {measured} | {rounds} | {verdict} |"
            )
            .expect("a String takes all");
        }
        text
    }
}

fn with_unit(number: &str, unit: &str) -> String {
    match unit {
        "" | "×" | "%" => format!("{number}{unit}"),
        _ => format!("{number} {unit}"),
    }
}

/// Least, median, most.
pub fn spread(figures: &[f64]) -> (f64, f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let last = sorted.len().saturating_sub(1);
    let middle = (at(last / 2) + at(last - last / 2)) / 2.0;
    (at(0), middle, at(last))
}

/// Three digits, which is more than any of these figures is worth.
fn shown(figure: f64) -> String {
    let size = figure.abs();
    let text = match size {
        _ if size >= 1_000.0 => grouped(figure),
        _ if size >= 100.0 => format!("{figure:.0}"),
        _ if size >= 10.0 => format!("{figure:.1}"),
        _ if size >= 0.1 || size == 0.0 => format!("{figure:.2}"),
        _ => format!("{figure:.4}"),
    };
    match text.as_str() {
        "0.00" => "0".to_owned(),
        _ => text,
    }
}

fn grouped(figure: f64) -> String {
    let digits = format!("{:.0}", figure.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if figure < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

/// A bound, as it was given.
fn trimmed(bound: f64) -> String {
    format!("{bound}")
}

const BEGIN: &str = "<!-- measured by `make bench` -->";
const END: &str = "<!-- end of what was measured -->";

/// The text with what stands between its marks replaced; `None` where it has no marks.
pub fn replaced(text: &str, measured: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{measured}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::{Better, Bounds, Line, Table, Verdict, grouped, replaced, shown, spread};

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), (1.0, 2.0, 3.0));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), (1.0, 2.5, 4.0));
        assert_eq!(spread(&[7.0]), (7.0, 7.0, 7.0));
    }

    #[test]
    fn bounds_belong_to_what_they_allow() {
        let less = Bounds::under(10.0, 6.0).unwrap();
        let more = Bounds::over(0.5, 0.7).unwrap();
        assert_eq!((less.better, more.better), (Better::Less, Better::More));
        assert_eq!(
            [6.0, 6.1, 10.0, 10.1].map(|figure| less.verdict(figure)),
            [Verdict::Aim, Verdict::Must, Verdict::Must, Verdict::Missed]
        );
        assert_eq!(
            [0.7, 0.69, 0.5, 0.49].map(|figure| more.verdict(figure)),
            [Verdict::Aim, Verdict::Must, Verdict::Must, Verdict::Missed]
        );
        assert_eq!(
            less.verdict(f64::NAN),
            Verdict::Missed,
            "no figure keeps no bound"
        );
    }

    #[test]
    fn a_line_shows_median_spread_and_verdict() {
        let line = Line {
            what: "one call",
            unit: "µs",
            bounds: Bounds::under(1.0, 0.6),
        };
        let mut table = Table::default();
        for figure in [0.9, 0.7, 0.8] {
            table.add(line.what, line, figure);
        }
        let peer = Line {
            bounds: None,
            ..line
        };
        table.add("one call of a peer", peer, 1_234.5);
        let text = table.markdown();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| one call | 1 µs | 0.6 µs | 0.80 µs | 0.70 to 0.90 | must |",
                "| one call of a peer |  |  | 1,234 µs | once |  |"
            ]
        );
    }

    #[test]
    fn figures_are_shown_with_what_they_are_worth() {
        assert_eq!(
            [0.0, 0.05, 0.123, 12.34, 123.4].map(shown),
            ["0", "0.0500", "0.12", "12.3", "123"]
        );
        assert_eq!(
            [1_000.0, 123_456.0, 1_234_567.0].map(grouped),
            ["1,000", "123,456", "1,234,567"]
        );
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text =
            "a\n<!-- measured by `make bench` -->\nold\n<!-- end of what was measured -->\nb\n";
        let new = replaced(text, "new\n").unwrap();
        assert!(
            new.starts_with("a\n<!--") && new.ends_with("-->\nb\n"),
            "{new}"
        );
        assert!(new.contains("\nnew\n") && !new.contains("old"), "{new}");
        assert_eq!(
            replaced(&new, "new\n").as_deref(),
            Some(new.as_str()),
            "again"
        );
        assert_eq!(replaced("no marks", "new"), None);
    }
}
