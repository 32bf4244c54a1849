//! Recorded series as CSV text: a header `timestamp,value`, then one sample a line. It reads no file and
//! detects nothing. Invariant: text that is wrong anywhere gives no samples, only where and why.

use std::fmt;

use crate::{
    analyze::series::Sample,
    types::{Quantity, UnixMillis},
};

const HEADER: &str = "timestamp,value";

/// One row: the sample, and its time as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row<'a> {
    pub(super) timestamp: &'a str,
    pub(super) sample: Sample,
}

/// What is wrong, and where: line and column count from 1, the column in characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {wrong}")]
pub(super) struct Wrong {
    line: usize,
    column: usize,
    wrong: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    NotUtf8,
    Header(String),
    NoSamples,
    Fields(usize),
    Timestamp(String),
    Value(String),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("a byte that is not UTF-8; allowed is plain text"),
            Self::Header(found) => write!(f, "the header is {found:?}; allowed is {HEADER:?} alone"),
            Self::NoSamples => f.write_str("there are no samples; at least one line must follow the header"),
            Self::Fields(found) => {
                write!(
                    f,
                    "{found} field(s); each line has two, a timestamp and a value, with one comma between"
                )
            }
            Self::Timestamp(found) => write!(
                f,
                "the timestamp {found:?} is none; allowed are a time in UTC such as 2026-12-01 14:30:00, with T, fraction or Z if you like, and whole seconds since 1970"
            ),
            Self::Value(found) => write!(
                f,
                "the value {found:?} is no number; allowed is a finite decimal number of at most 1e29 either way, such as 12.5 or -3e-4"
            ),
        }
    }
}

/// The rows of a recording.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Row<'_>>, Wrong> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let last = valid.rsplit('\n').next().unwrap_or_default();
        Wrong {
            line: valid.matches('\n').count() + 1,
            column: last.chars().count() + 1,
            wrong: What::NotUtf8,
        }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().zip(1..);
    let (header, _) = lines.next().unwrap_or(("", 1));
    if header.trim_end() != HEADER {
        return Err(Wrong { line: 1, column: 1, wrong: What::Header(shown(header)) });
    }
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut newest = UnixMillis::ZERO;
    // Only the end of a file may be blank.
    let length = text.trim_end().lines().count();
    for (line, number) in lines.take_while(|(_, number)| *number <= length) {
        let row = parse_row(line, newest).map_err(|(column, wrong)| Wrong { line: number, column, wrong })?;
        newest = row.sample.at;
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(Wrong { line: 2, column: 1, wrong: What::NoSamples });
    }
    Ok(rows)
}

/// One line. Samples count in the order of the lines: a time before `newest` counts as that.
fn parse_row(line: &str, newest: UnixMillis) -> Result<Row<'_>, (usize, What)> {
    let fields = line.split(',').count();
    let Some((timestamp, value)) = line.split_once(',').filter(|_| fields == 2) else {
        return Err((1, What::Fields(fields)));
    };
    let timestamp = timestamp.trim();
    let at = parse_time(timestamp).ok_or_else(|| (1, What::Timestamp(shown(timestamp))))?;
    let wrong = || {
        let before = line.len() - value.trim_start().len();
        (line[..before].chars().count() + 1, What::Value(shown(value.trim())))
    };
    let number: f64 = value.trim().parse().map_err(|_| wrong())?;
    let value = Quantity::from_f64(number).map_err(|_| wrong())?;
    Ok(Row { timestamp, sample: Sample { at: at.max(newest), value } })
}

/// What is shown of a wrong text: enough to find it.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

fn parse_time(text: &str) -> Option<UnixMillis> {
    if !text.is_empty() && text.len() <= 11 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds: u64 = text.parse().ok()?;
        return Some(UnixMillis::new(seconds * 1000));
    }
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (text, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if bytes.len() != 19
        || separators.iter().any(|(place, separator)| bytes[*place] != *separator)
        || !matches!(bytes[10], b' ' | b'T')
        || fraction.is_empty()
        || fraction.len() > 9
        || !fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let number = |from: usize, until: usize| -> Option<u64> {
        let digits = text.get(from..until)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year < 1970 || !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_before_year(year) + (1..month).map(|month| days_of(year, month)).sum::<u64>() + day - 1;
    let millis: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(UnixMillis::new((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis))
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970 to the beginning of a year from 1970 on.
fn days_before_year(year: u64) -> u64 {
    let leaps = |before: u64| before / 4 - before / 100 + before / 400;
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::service::utc::Utc;

    #[test]
    fn times_are_read_as_they_are_written_elsewhere() {
        for (text, utc) in [
            ("1970-01-01 00:00:00", "1970-01-01 00:00:00.000 UTC"),
            ("2000-02-29T23:59:59Z", "2000-02-29 23:59:59.000 UTC"),
            ("2023-11-14T22:13:20.123456", "2023-11-14 22:13:20.123 UTC"),
            ("2100-03-01 00:00:00.5", "2100-03-01 00:00:00.500 UTC"),
            ("1700000000", "2023-11-14 22:13:20.000 UTC"),
        ] {
            let file = format!("timestamp,value\n{text},1\n");
            let rows = parse(file.as_bytes()).expect(text);
            assert_eq!(Utc(rows[0].sample.at).to_string(), utc);
            assert_eq!(rows[0].timestamp, text);
        }
    }

    #[test]
    fn a_time_that_goes_back_counts_as_the_one_before_and_blank_ends_are_no_rows() {
        let file = b"timestamp,value\r\n20,1\r\n10,-2.5e1\r\n30,3\r\n\r\n\n";
        let rows = parse(file).expect("it is right");
        let seen: Vec<_> =
            rows.iter().map(|row| (row.sample.at.as_millis(), row.sample.value.to_string())).collect();
        let expected = [(20_000, "1"), (20_000, "-25"), (30_000, "3")];
        assert_eq!(seen, expected.map(|(at, value)| (at, value.to_owned())));
    }

    #[test]
    fn whatever_is_wrong_is_told_with_its_line_its_column_and_what_is_allowed() {
        let row = |row: &str| format!("timestamp,value\n1,1\n{row}\n2,2\n").into_bytes();
        let table: [(Vec<u8>, &str, &str); 17] = [
            (Vec::new(), "line 1, column 1: the header is \"\"", "\"timestamp,value\" alone"),
            (b"time,value\n1,1".to_vec(), "line 1, column 1: the header is \"time,value\"", "alone"),
            (b"timestamp,value".to_vec(), "line 2, column 1: there are no samples", "at least one line"),
            (b"timestamp,value\n\n".to_vec(), "line 2, column 1: there are no samples", "at least one line"),
            (row(""), "line 3, column 1: 1 field(s)", "each line has two"),
            (row("1"), "line 3, column 1: 1 field(s)", "each line has two"),
            (row("1,2,3"), "line 3, column 1: 3 field(s)", "each line has two"),
            (row("yesterday,2"), "line 3, column 1: the timestamp \"yesterday\"", "2026-12-01 14:30:00"),
            (row("2023-02-29 00:00:00,2"), "the timestamp \"2023-02-29 00:00:00\"", "in UTC"),
            (row("2023-02-28 24:00:00,2"), "the timestamp", "in UTC"),
            (row("2023-02-2\u{e9} 4:00:00,2"), "the timestamp", "in UTC"),
            (row("1969-12-31 00:00:00,2"), "the timestamp", "in UTC"),
            (row("2023-02-28 00:00:00,"), "line 3, column 21: the value \"\"", "12.5"),
            (row("2023-02-28 00:00:00, x"), "line 3, column 22: the value \"x\"", "12.5"),
            (row("1,NaN"), "line 3, column 3: the value \"NaN\"", "finite"),
            (row("1,1e30"), "line 3, column 3: the value \"1e30\"", "at most 1e29"),
            (
                b"timestamp,value\n1,\xff\n".to_vec(),
                "line 2, column 3: a byte that is not UTF-8",
                "plain text",
            ),
        ];
        for (file, what, allowed) in table {
            let told = parse(&file).expect_err(what).to_string();
            assert!(told.contains(what) && told.contains(allowed), "{told}");
        }
    }
}
