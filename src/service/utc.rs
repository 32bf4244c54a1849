//! Points in time as people write them. Programs get milliseconds instead.
//!
//! It reads no clock and knows no time zone but UTC. Invariant: what it writes sorts by time.

use std::fmt;

use crate::types::UnixMillis;

/// A point in time as a date and a time of day.
#[derive(Clone, Copy, Debug)]
pub struct Utc(pub UnixMillis);

impl Utc {
    /// As APIs take it: RFC 3339 with milliseconds.
    #[must_use]
    pub fn rfc_3339(self) -> String {
        self.to_string().trim_end_matches(" UTC").replacen(' ', "T", 1) + "Z"
    }
}

impl fmt::Display for Utc {
    /// Days to civil dates after Howard Hinnant's "chrono-compatible low-level date algorithms".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (days, second) = (millis / 86_400_000, millis / 1000 % 86_400);
        // 719,468 days lie between 0000-03-01 and 1970-01-01; an era has 400 years.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03} UTC", millis % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::Utc;
    use crate::types::UnixMillis;

    #[test]
    fn points_in_time_are_civil_dates() {
        for (millis, text) in [
            (0, "1970-01-01 00:00:00.000 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00.000 UTC"),
            (1_700_000_000_123, "2023-11-14 22:13:20.123 UTC"),
            (4_107_542_399_999, "2100-02-28 23:59:59.999 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000 UTC"),
        ] {
            assert_eq!(Utc(UnixMillis::new(millis)).to_string(), text);
        }
        let api = Utc(UnixMillis::new(1_700_000_000_123)).rfc_3339();
        assert_eq!(api, "2023-11-14T22:13:20.123Z");
    }
}
