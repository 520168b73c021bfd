//! Dates and times of day as strftime(3) writes them, in UTC and English.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A moment, taken apart.
pub struct Moment {
    /// Seconds since 1970.
    pub unix: u64,
    pub nanos: u32,
    year: u64,
    /// From 0.
    month: usize,
    day: u64,
    /// Days of the year before this one.
    year_day: u64,
    /// 0 is Sunday.
    week_day: u64,
    /// Days since 1970.
    days: u64,
}

impl Moment {
    /// A moment before 1970 is taken for the begin of it.
    pub fn new(time: SystemTime) -> Moment {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = since.as_secs();
        let days = unix / 86_400;
        let (year, year_day) = year_of(days);
        let mut month = 0;
        let mut day = year_day;
        for days in month_days(year) {
            if day < days {
                break;
            }
            day -= days;
            month += 1;
        }
        Moment {
            unix,
            nanos: since.subsec_nanos(),
            year,
            month,
            day: day + 1,
            year_day,
            // 1970 began on a Thursday.
            week_day: (days + 4) % 7,
            days,
        }
    }

    /// Whether strftime's `%` and `conversion` is known here.
    pub fn knows(conversion: char) -> bool {
        "aAbBcCdDeFgGhHIjklmMnNpPrRsStTuUVwWxXyYzZ%@".contains(conversion)
    }

    /// Appends what strftime's `%` and `conversion` stand for; `N` are the
    /// nanoseconds.
    ///
    /// Nothing for one that is not [known](Moment::knows).
    pub fn write(&self, conversion: char, out: &mut String) {
        let (hour, minute, second) = (self.unix / 3600 % 24, self.unix / 60 % 60, self.unix % 60);
        let hour12 = (hour + 11) % 12 + 1;
        let week_day = DAYS[self.week_day as usize];
        let month_name = MONTHS[self.month];
        let (year, month, day) = (self.year, self.month + 1, self.day);
        let half = if hour < 12 { "AM" } else { "PM" };
        // The week, and the year it is of, are those of its Thursday (ISO 8601).
        let iso_day = (self.week_day + 6) % 7;
        let (iso_year, thursday) = year_of(self.days + 3 - iso_day);
        // Writing to a String cannot fail.
        _ = match conversion {
            'a' => write!(out, "{}", &week_day[..3]),
            'A' => write!(out, "{week_day}"),
            'b' | 'h' => write!(out, "{}", &month_name[..3]),
            'B' => write!(out, "{month_name}"),
            'c' => write!(
                out,
                "{} {} {day:2} {hour:02}:{minute:02}:{second:02} {year}",
                &week_day[..3],
                &month_name[..3]
            ),
            'C' => write!(out, "{:02}", year / 100),
            'd' => write!(out, "{day:02}"),
            'D' | 'x' => write!(out, "{month:02}/{day:02}/{:02}", year % 100),
            'e' => write!(out, "{day:2}"),
            'F' => write!(out, "{year}-{month:02}-{day:02}"),
            'g' => write!(out, "{:02}", iso_year % 100),
            'G' => write!(out, "{iso_year}"),
            'H' => write!(out, "{hour:02}"),
            'I' => write!(out, "{hour12:02}"),
            'j' => write!(out, "{:03}", self.year_day + 1),
            'k' => write!(out, "{hour:2}"),
            'l' => write!(out, "{hour12:2}"),
            'm' => write!(out, "{month:02}"),
            'M' => write!(out, "{minute:02}"),
            'n' => writeln!(out),
            'N' => write!(out, "{:09}", self.nanos),
            'p' => write!(out, "{half}"),
            'P' => write!(out, "{}", half.to_lowercase()),
            'r' => write!(out, "{hour12:02}:{minute:02}:{second:02} {half}"),
            'R' => write!(out, "{hour:02}:{minute:02}"),
            's' => write!(out, "{}", self.unix),
            'S' => write!(out, "{second:02}"),
            't' => write!(out, "\t"),
            'T' | 'X' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            'u' => write!(out, "{}", iso_day + 1),
            'U' => write!(out, "{:02}", (self.year_day + 7 - self.week_day) / 7),
            'V' => write!(out, "{:02}", thursday / 7 + 1),
            'w' => write!(out, "{}", self.week_day),
            'W' => write!(out, "{:02}", (self.year_day + 7 - iso_day) / 7),
            'y' => write!(out, "{:02}", year % 100),
            'Y' => write!(out, "{year}"),
            'z' => write!(out, "+0000"),
            'Z' => write!(out, "UTC"),
            '%' | '@' => write!(out, "{conversion}"),
            _ => Ok(()),
        };
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_days(year: u64) -> [u64; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// The year of a day that is counted from 1970, and the days in it before.
fn year_of(days: u64) -> (u64, u64) {
    // A first guess that is not too late, for the years that a clock shows.
    let mut year = 1970 + days / 366;
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let begin = |year: u64| (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    while begin(year + 1) <= days {
        year += 1;
    }
    (year, days - begin(year))
}
