//! Shares of the session table: `"60%"`, `"0.5%"`.

use std::fmt;
use std::str::FromStr;

use super::diagnostic::{TextValue, ValueError};
use crate::policy::Share;

/// More of a table than anybody can mean.
const LARGEST: Share = Share(10 * Share::WHOLE.0);

impl TextValue for Share {
    const HELP: &'static str = "shares are written like \"60%\" or \"0.5%\"";
}

impl FromStr for Share {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some(number) = text.strip_suffix('%') else {
            return Err(match digits(text) {
                Some(_) => ValueError::with_help(format!("`{text}` has no unit"), format!("write `{text}%`")),
                None => "a share is a number and `%`".into(),
            });
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "00"));
        // Hundredths: one digit or two.
        let hundredths = match fraction.len() {
            1 => digits(fraction).map(|tenths| tenths * 10),
            2 => digits(fraction),
            _ => None,
        };
        let (Some(whole), Some(hundredths)) = (digits(whole), hundredths) else {
            return Err(format!("`{number}` is not a number with at most two decimals").into());
        };
        whole
            .checked_mul(100)
            .and_then(|share| share.checked_add(hundredths))
            .map(Self)
            .filter(|share| *share <= LARGEST)
            .ok_or_else(|| format!("more than {LARGEST}").into())
    }
}

fn digits(text: &str) -> Option<u32> {
    let all = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // A number that is too large is reported as one.
    all.then(|| text.parse().unwrap_or(u32::MAX / 100))
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, hundredths) if hundredths % 10 == 0 => write!(f, "{whole}.{}%", hundredths / 10),
            (whole, hundredths) => write!(f, "{whole}.{hundredths:02}%"),
        }
    }
}
