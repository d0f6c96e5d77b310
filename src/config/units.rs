//! Values with a unit: durations (`"2h4m"`) and rates (`"100/s"`).

use std::fmt;
use std::str::FromStr;

use super::diagnostic::{TextValue, ValueError};
use crate::base::{Nanos, Tick};
use crate::flow::StateTimeouts;

/// A duration of the file, at least 1 ms and at most 200 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(pub Nanos);

/// A rate: so many a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u32);

/// Milliseconds of the units, the largest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
/// The longest time span, in milliseconds.
const LONGEST_MS: u64 = 200 * 86_400_000;

// A longer one would be cut short in silence by the session table's clock.
const _: () = assert!(LONGEST_MS * 1_000_000 < (StateTimeouts::MAX_TICKS as u64) * Tick::NANOS);

impl TimeSpan {
    /// A whole number of seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Nanos::from_secs(secs))
    }
}

impl TextValue for TimeSpan {
    const HELP: &'static str = "durations are written like \"30s\", \"2h4m\", \"50ms\"";
}

impl FromStr for TimeSpan {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::parse(text).map_err(|error| {
            // `2 hours` as `2h`, if that is what it can only mean.
            match short(text).filter(|short| Self::parse(short).is_ok()) {
                Some(short) => ValueError::with_help(error.message, format!("write `{short}`")),
                None => error,
            }
        })
    }
}

impl TimeSpan {
    fn parse(text: &str) -> Result<Self, ValueError> {
        if text.contains(char::is_whitespace) {
            return Err("a duration has no blanks in it".into());
        }
        let mut rest = text;
        let mut total_ms = 0_u64;
        let mut last_unit_ms = u64::MAX;
        if rest.is_empty() {
            return Err("a duration is missing".into());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let unit_len = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
            let (number, unit) = (&rest[..digits], &rest[digits..digits + unit_len]);
            if digits == 0 {
                return Err("a duration is numbers with units".into());
            }
            if unit.is_empty() {
                return Err(ValueError::with_help(
                    format!("`{number}` has no unit"),
                    format!("write `{number}s` for seconds"),
                ));
            }
            let Some(&(_, unit_ms)) = UNITS.iter().find(|(name, _)| *name == unit) else {
                return Err(format!("`{unit}` is not a unit of time").into());
            };
            if unit_ms >= last_unit_ms {
                return Err("units go from the largest to the smallest, each once".into());
            }
            last_unit_ms = unit_ms;
            total_ms = number
                .parse::<u64>()
                .ok()
                .and_then(|n| n.checked_mul(unit_ms))
                .and_then(|ms| total_ms.checked_add(ms))
                .filter(|ms| *ms <= LONGEST_MS)
                .ok_or("longer than 200 days")?;
            rest = &rest[digits + unit_len..];
        }
        if total_ms == 0 {
            return Err("a duration must be longer than nothing".into());
        }
        Ok(Self(Nanos::from_millis(total_ms)))
    }
}

/// A duration as people say it, with blanks and whole words, in the form of the file; `None`: it has words of other kinds.
fn short(text: &str) -> Option<String> {
    let mut short = String::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        let behind = behind.trim_start();
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (word, behind) = behind.split_at(letters);
        let unit = match word.to_ascii_lowercase().as_str() {
            "d" | "day" | "days" => "d",
            "h" | "hr" | "hrs" | "hour" | "hours" => "h",
            "m" | "min" | "mins" | "minute" | "minutes" => "m",
            "s" | "sec" | "secs" | "second" | "seconds" => "s",
            "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => "ms",
            _ => return None,
        };
        short.push_str(number);
        short.push_str(unit);
        rest = behind.trim_start();
    }
    Some(short)
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left_ms = self.0.0 / 1_000_000;
        for (unit, unit_ms) in UNITS {
            // Days are read but never written: "2h4m" and "48h" are what people compare.
            if unit != "d" && left_ms >= unit_ms {
                write!(f, "{}{unit}", left_ms / unit_ms)?;
                left_ms %= unit_ms;
            }
        }
        Ok(())
    }
}

impl TextValue for Rate {
    const HELP: &'static str = "rates are written like \"100/s\"";
}

impl FromStr for Rate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((count, unit)) = text.split_once('/') else {
            return Err("a rate is a number, a slash and `s`".into());
        };
        if unit != "s" {
            return Err(format!("a rate is per second: `/s`, not `/{unit}`").into());
        }
        if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("`{count}` is not a whole number").into());
        }
        count
            .parse()
            .map(Self)
            .map_err(|_| format!("more than {} a second", u32::MAX).into())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}
