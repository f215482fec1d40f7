//! The switch's clock as events show it: microseconds, and the two dates, in steps of some milliseconds.
//!
//! FreeSWITCH reads a cached clock, so several events share one timestamp; so they do here. Dates are UTC in both headers.

use crate::clock;

/// How old the cached time may become; the real one was seen to move in steps of 10 to 20 ms.
const STEP_US: u64 = 12_000;

/// A moment with its dates written out.
#[derive(Debug, Clone, Default)]
pub(super) struct Stamp {
    pub(super) micros: u64,
    pub(super) local: String,
    pub(super) gmt: String,
}

impl Stamp {
    pub(super) fn now() -> Stamp {
        Stamp::at(clock::now_us())
    }

    /// Moves on when the cached time has become too old.
    pub(super) fn refresh(&mut self) {
        let now = clock::now_us();
        if now.abs_diff(self.micros) < STEP_US {
            return;
        }
        if now / 1_000_000 == self.micros / 1_000_000 {
            self.micros = now;
        } else {
            *self = Stamp::at(now);
        }
    }

    fn at(micros: u64) -> Stamp {
        let date = Date::at(micros / 1_000_000);
        Stamp {
            micros,
            local: date.local(),
            gmt: date.gmt(),
        }
    }
}

/// A second, taken apart.
pub(super) struct Date {
    year: u64,
    month: usize,
    day: u64,
    weekday: usize,
    second_of_day: u64,
}

impl Date {
    /// Seconds since 1970 to a civil date; 400 years have 146,097 days, and years are counted from March so that a leap day comes last.
    pub(super) fn at(seconds: u64) -> Date {
        let days = seconds / 86_400;
        let since_0000_march = days + 719_468;
        let era = since_0000_march / 146_097;
        let day_of_era = since_0000_march % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let months_since_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
        let month = (months_since_march + 2) % 12;
        let year = era * 400 + year_of_era + u64::from(month < 2);
        Date {
            year,
            month: usize::try_from(month).unwrap_or(0),
            day,
            weekday: usize::try_from((days + 4) % 7).unwrap_or(0),
            second_of_day: seconds % 86_400,
        }
    }

    /// `2026-11-21 00:41:13`
    pub(super) fn local(&self) -> String {
        let (hour, minute, second) = self.time();
        format!(
            "{:04}-{:02}-{:02} {hour:02}:{minute:02}:{second:02}",
            self.year,
            self.month + 1,
            self.day
        )
    }

    /// `Sat, 21 Nov 2026 00:41:13 GMT`
    pub(super) fn gmt(&self) -> String {
        const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let (hour, minute, second) = self.time();
        format!(
            "{}, {:02} {} {:04} {hour:02}:{minute:02}:{second:02} GMT",
            WEEKDAYS.get(self.weekday).unwrap_or(&""),
            self.day,
            MONTHS.get(self.month).unwrap_or(&""),
            self.year
        )
    }

    fn time(&self) -> (u64, u64, u64) {
        let second = self.second_of_day;
        (second / 3_600, second / 60 % 60, second % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::Date;

    #[test]
    fn dates_are_those_of_the_captures() {
        let date = Date::at(1_795_221_673);
        assert_eq!(date.local(), "2026-11-21 00:41:13");
        assert_eq!(date.gmt(), "Sat, 21 Nov 2026 00:41:13 GMT");
        assert_eq!(Date::at(0).gmt(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(
            Date::at(951_782_400).local(),
            "2000-02-29 00:00:00",
            "a leap day"
        );
        assert_eq!(Date::at(1_798_761_599).local(), "2026-12-31 23:59:59");
    }
}
