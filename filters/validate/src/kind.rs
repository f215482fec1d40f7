//! The types that a value can have. FreeSWITCH sends all values as text.

use serde::Deserialize;

/// A type.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Digits, perhaps after a `-`.
    Integer,
    /// An integer, perhaps with `.` and digits.
    Number,
    /// 36 characters: hex digits in groups of 8, 4, 4, 4 and 12.
    Uuid,
    /// Seconds or microseconds since 1970 of our time, 0 for never, or `2026-11-21 00:41:15`.
    Time,
}

impl Kind {
    pub(crate) fn fits(self, value: &str) -> bool {
        match self {
            Self::Integer => is_integer(value),
            Self::Number => match value.split_once('.') {
                Some((whole, fraction)) => is_integer(whole) && is_digits(fraction),
                None => is_integer(value),
            },
            Self::Uuid => {
                let groups = value.split('-').map(|group| {
                    let is_hex = group.bytes().all(|byte| byte.is_ascii_hexdigit());
                    is_hex.then_some(group.len())
                });
                groups.eq([8, 4, 4, 4, 12].map(Some))
            }
            Self::Time => is_epoch(value) || is_stamp(value),
        }
    }

    /// After "is": what a value that does not fit is not.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Uuid => "uuid",
            Self::Time => "time",
        }
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_integer(text: &str) -> bool {
    is_digits(text.strip_prefix('-').unwrap_or(text))
}

/// Ten digits are seconds from 2001 to 2286, sixteen are microseconds.
fn is_epoch(text: &str) -> bool {
    text == "0" || (is_digits(text) && matches!(text.len(), 10 | 16) && !text.starts_with('0'))
}

/// As in `Event-Date-Local` and the variables `…_stamp`.
fn is_stamp(text: &str) -> bool {
    let Some((date, time)) = text.split_once(' ') else {
        return false;
    };
    let parts = |text: &str, mark: char, ranges: [(usize, u32, u32); 3]| {
        let fits = |(part, (length, from, to)): (&str, (usize, u32, u32))| {
            let number = part.parse().ok().filter(|_| is_digits(part));
            part.len() == length && number.is_some_and(|number| (from..=to).contains(&number))
        };
        text.split(mark).count() == ranges.len() && text.split(mark).zip(ranges).all(fits)
    };
    // 60: a leap second.
    parts(date, '-', [(4, 1970, 9999), (2, 1, 12), (2, 1, 31)])
        && parts(time, ':', [(2, 0, 23), (2, 0, 59), (2, 0, 60)])
}

#[cfg(test)]
mod tests {
    use super::Kind::{self, Integer, Number, Time, Uuid};

    #[track_caller]
    fn check(kind: Kind, fitting: &[&str], others: &[&str]) {
        for value in fitting {
            assert!(kind.fits(value), "`{value}` is of type {}", kind.name());
        }
        for value in others {
            assert!(
                !kind.fits(value),
                "`{value}` is not of type {}",
                kind.name()
            );
        }
    }

    #[test]
    fn values_fit_their_types() {
        check(
            Integer,
            &["0", "-16", "00123"],
            &["", "-", "+49", "1.0", " 1", "१"],
        );
        check(
            Number,
            &["0", "-1.25", "100"],
            &["", ".5", "1.", "1.2.3", "1e3", "1,5"],
        );
        check(
            Uuid,
            &[
                "6fedf11d-0a31-422f-9395-44217280da00",
                "6FEDF11D-0A31-422F-9395-44217280DA00",
            ],
            &[
                "",
                "6fedf11d",
                "6fedf11d0a31422f939544217280da00",
                "6fedf11d-0a31-422f-9395-44217280da0g",
                "6fedf11d-0a31-422f-9395-44217280da00-",
            ],
        );
        check(
            Time,
            &["0", "1795221675", "1795221675789645", "2026-11-21 00:41:15"],
            &[
                "",
                "17952216757",
                "0000000001",
                "2026-13-01 00:00:00",
                "2026-11-21",
                "2026-11-21 00:41",
                "2026-11-21 24:00:00",
                "Sat, 21 Nov 2026 00:41:15 GMT",
            ],
        );
    }
}
