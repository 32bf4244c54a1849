//! Arrivals: jobs with their times and sizes, read from lines of comma-separated values.
//!
//! It opens no file. Rules: the first field of a row is its time, in seconds or as a date; times never fall; a first
//! row whose first field is no time names the columns. A row is one job, or as many as its column `count` says,
//! spread evenly up to the next row. Invariant: jobs are in the order of their times, which begin at zero.

use std::iter::once;

/// The most jobs of one file: at 16 bytes each, 80 MB.
pub const MAX_JOBS: usize = 5_000_000;

/// One job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// When it arrives, in milliseconds after the first.
    pub at_ms: u64,
    /// How long a worker works on it, in milliseconds; at least one.
    pub work_ms: u64,
}

/// How long a job takes: a fixed part, and parts in proportion to numbers in its row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// The fixed part, in microseconds.
    pub base_us: u64,
    /// Columns, and microseconds for each of what they count.
    pub per: Vec<(String, u64)>,
}

/// Why a file has no arrivals, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {why}")]
pub struct ArrivalsError {
    /// The line, from 1.
    pub line: usize,
    /// The byte in the line, from 1.
    pub column: usize,
    /// What is wrong, and what is allowed.
    pub why: String,
}

/// A field of a row, and where it begins.
#[derive(Clone, Copy)]
struct Field<'a> {
    line: usize,
    column: usize,
    text: &'a str,
}

impl Field<'_> {
    fn refuse(&self, why: impl Into<String>) -> ArrivalsError {
        ArrivalsError { line: self.line, column: self.column, why: why.into() }
    }

    fn number(&self) -> Result<u64, ArrivalsError> {
        let why = || self.refuse(format!("{:?} is not a whole number of at most 18 digits", self.text));
        if self.text.len() > 18 { Err(why()) } else { self.text.parse().map_err(|_| why()) }
    }

    /// Milliseconds since some moment that is the same for the whole file.
    fn time_ms(&self) -> Result<u64, ArrivalsError> {
        seconds_ms(self.text).or_else(|| date_ms(self.text)).ok_or_else(|| {
            let form = "is no time: seconds such as 12.5, or a date such as 2023-11-16 18:17:03.97";
            self.refuse(format!("{:?} {form}", self.text))
        })
    }
}

/// Reads a file's text.
///
/// # Errors
/// [`ArrivalsError`] names the first thing that is wrong.
pub fn parse(text: &str, work: &Work) -> Result<Vec<Job>, ArrivalsError> {
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).peekable();
    let nothing = ArrivalsError { line: 1, column: 1, why: "there is no row".to_owned() };
    let Some((number, first)) = lines.peek().copied() else { return Err(nothing) };
    let heading = fields(number, first);
    let columns = if heading.first().is_some_and(|field| field.time_ms().is_err()) {
        lines.next();
        Columns::of(&heading, work)?
    } else if let Some((name, _)) = work.per.first() {
        let why = format!("there is no column {name}, because this row names none");
        return Err(ArrivalsError { line: number, column: 1, why });
    } else {
        Columns {
            names: vec![TIME, COUNT].into_iter().map(str::to_owned).collect(),
            count: Some(1),
            per: Vec::new(),
        }
    };
    let mut rows = Vec::new();
    for (number, line) in lines {
        rows.push(columns.row(number, line, work)?);
        let jobs = rows.len();
        if jobs > MAX_JOBS {
            let why = format!("there are more than {MAX_JOBS} rows");
            return Err(ArrivalsError { line: number, column: 1, why });
        }
    }
    for (earlier, later) in rows.iter().zip(rows.iter().skip(1)) {
        if later.at_ms < earlier.at_ms {
            let why = "this row's time is before the row above; times may not fall".to_owned();
            return Err(ArrivalsError { line: later.line, column: 1, why });
        }
    }
    if rows.is_empty() {
        return Err(nothing);
    }
    spread(&rows).ok_or_else(|| {
        let why = format!("there are no jobs in all rows together, or more than {MAX_JOBS}");
        ArrivalsError { why, ..nothing }
    })
}

const TIME: &str = "timestamp";
const COUNT: &str = "count";

struct Columns {
    names: Vec<String>,
    count: Option<usize>,
    per: Vec<(usize, u64)>,
}

struct Row {
    line: usize,
    at_ms: u64,
    count: u64,
    work_ms: u64,
}

impl Columns {
    fn of(heading: &[Field<'_>], work: &Work) -> Result<Self, ArrivalsError> {
        let names: Vec<String> = heading.iter().map(|field| field.text.to_owned()).collect();
        let place = |name: &str| names.iter().position(|column| column == name);
        let per = work.per.iter().map(|(name, us)| {
            place(name).map(|column| (column, *us)).ok_or_else(|| {
                let why = format!("there is no column {name}; the columns are {}", names.join(", "));
                ArrivalsError { line: heading[0].line, column: 1, why }
            })
        });
        Ok(Self { per: per.collect::<Result<_, _>>()?, count: place(COUNT), names })
    }

    fn row(&self, number: usize, line: &str, work: &Work) -> Result<Row, ArrivalsError> {
        let fields = fields(number, line);
        let most = self.names.len();
        if fields.len() > most {
            return Err(fields[most].refuse(format!("a row has {most} fields: {}", self.names.join(", "))));
        }
        let field = |place: usize| {
            fields.get(place).ok_or_else(|| ArrivalsError {
                line: number,
                column: line.len() + 1,
                why: format!("the field {} is missing", self.names[place]),
            })
        };
        let mut work_us = u128::from(work.base_us);
        for (place, us) in &self.per {
            work_us += u128::from(field(*place)?.number()?) * u128::from(*us);
        }
        let time = field(0)?;
        // A column of counts may be left out where no header names it.
        let count = match self.count {
            Some(place) => fields.get(place).map_or(Ok(1), Field::number)?,
            None => 1,
        };
        let Ok(work_ms) = u64::try_from((work_us / 1000).max(1)) else {
            return Err(time.refuse("the job takes longer than can be counted"));
        };
        Ok(Row { line: number, at_ms: time.time_ms()?, count, work_ms })
    }
}

fn fields(line: usize, text: &str) -> Vec<Field<'_>> {
    let mut column = 1;
    let field = |raw: &str| {
        let here = column;
        column += raw.len() + 1;
        here + raw.len() - raw.trim_start().len()
    };
    text.split(',')
        .map(field)
        .zip(text.split(','))
        .map(|(column, raw)| Field { line, column, text: raw.trim() })
        .collect()
}

/// Jobs of all rows; `None` when there are none, or too many.
fn spread(rows: &[Row]) -> Option<Vec<Job>> {
    let begin = rows.first()?.at_ms;
    let last = rows.len() - 1;
    let mut jobs = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let gap = match rows.get(place + 1) {
            Some(next) => next.at_ms - row.at_ms,
            None if last > 0 => row.at_ms - rows[last - 1].at_ms,
            None => 0,
        };
        for number in 0..row.count {
            let later = u128::from(gap) * u128::from(number) / u128::from(row.count);
            let at_ms = row.at_ms - begin + u64::try_from(later).expect("it is less than the gap");
            jobs.push(Job { at_ms, work_ms: row.work_ms });
            if jobs.len() > MAX_JOBS {
                return None;
            }
        }
    }
    (!jobs.is_empty()).then_some(jobs)
}

/// Whole or decimal seconds.
fn seconds_ms(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || whole.len() > 12 {
        return None;
    }
    let millis: String = fraction.chars().chain(once('0').cycle()).take(3).collect();
    Some(whole.parse::<u64>().ok()? * 1000 + millis.parse::<u64>().ok()?)
}

/// `2023-11-16 18:17:03.9799600`, with `T` between and `Z` behind or not, as milliseconds since year 0.
fn date_ms(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00")).unwrap_or(text);
    let (date, time) = text.split_once([' ', 'T'])?;
    let number = |text: &str, digits: usize, most: u64| {
        let value: u64 = text.parse().ok().filter(|_| text.len() == digits)?;
        (text.bytes().all(|byte| byte.is_ascii_digit()) && value <= most).then_some(value)
    };
    let [year, month, day] = split_in_three(date, '-')?;
    let (year, month) = (number(year, 4, 9999)?, number(month, 2, 12).filter(|month| *month > 0)?);
    let day = number(day, 2, 31).filter(|day| *day > 0)?;
    let [hours, minutes, seconds] = split_in_three(time, ':')?;
    let (hours, minutes) = (number(hours, 2, 23)?, number(minutes, 2, 59)?);
    let seconds = seconds_ms(seconds).filter(|millis| *millis < 61_000)?;
    // Days by the Gregorian calendar, with the year beginning in March so that the leap day is its last.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = years * 365 + years / 4 - years / 100 + years / 400 + (153 * months + 2) / 5 + day;
    Some(((days * 24 + hours) * 60 + minutes) * 60_000 + seconds)
}

fn split_in_three(text: &str, separator: char) -> Option<[&str; 3]> {
    let parts: Vec<&str> = text.split(separator).collect();
    parts.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::{Job, Work, parse};

    const fn job(at_ms: u64, work_ms: u64) -> Job {
        Job { at_ms, work_ms }
    }

    fn tokens() -> Work {
        Work { base_us: 0, per: vec![("In".to_owned(), 500), ("Out".to_owned(), 30_000)] }
    }

    #[test]
    fn dates_and_sizes_are_read_from_named_columns() {
        let text = "TIMESTAMP,In,Out\n2023-11-16 23:59:59.9799600,4808,10\n2023-11-17T00:00:00.08Z,1,0\n";
        assert_eq!(parse(text, &tokens()), Ok(vec![job(0, 2704), job(101, 1)]));
    }

    #[test]
    fn counts_are_spread_up_to_the_next_row() {
        let work = Work { base_us: 5_000_000, per: Vec::new() };
        let times = |text| -> Vec<u64> {
            parse(text, &work).expect("it is sound").iter().map(|job| job.at_ms).collect()
        };
        assert_eq!(times("0,2\n60,3\n120,0\n"), [0, 30_000, 60_000, 80_000, 100_000]);
        assert_eq!(times("timestamp,count\n10,1\n20,2\n"), [0, 10_000, 15_000]);
        assert_eq!(times("7.5\n7.75\n"), [0, 250]);
    }

    /// Each row: the text, and what is said of it.
    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let rows = [
            ("", "line 1, column 1: there is no row"),
            ("TIMESTAMP,In,Out\n", "line 1, column 1: there is no row"),
            (
                "TIMESTAMP,In\n1,2\n",
                "line 1, column 1: there is no column Out; the columns are TIMESTAMP, In",
            ),
            ("1,2\n", "line 1, column 1: there is no column In, because this row names none"),
            ("t,In,Out\n1, x,2\n", "line 2, column 4: \"x\" is not a whole number of at most 18 digits"),
            ("t,In,Out\n1,2\n", "line 2, column 4: the field Out is missing"),
            ("t,In,Out\n1,2,3,4\n", "line 2, column 7: a row has 3 fields: t, In, Out"),
            (
                "t,In,Out\n5,1,1\n4,1,1\n",
                "line 3, column 1: this row's time is before the row above; times may not fall",
            ),
            (
                "t,In,Out\n2023-13-01 00:00:00,1,1\n",
                "line 2, column 1: \"2023-13-01 00:00:00\" is no time: seconds such as 12.5, or a date such as \
                 2023-11-16 18:17:03.97",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(text, &tokens()).expect_err(text).to_string(), expected);
        }
    }
}
