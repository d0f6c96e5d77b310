//! Which sessions: `protocol=tcp destination_port=443 from=trust`, the same words in the API's query, `show sessions`
//! and `sessions kill`.
//!
//! A term is `FIELD=VALUE` or `FIELD!=VALUE`; a session has to meet all terms. VALUE may be a list with commas, of which
//! one has to fit. Addresses may be prefixes, numbers may be ranges (`1024-65535`, `100-`, `-10`), durations may have a unit.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

use super::node::{Owner, SessionInfo};
use super::view;
use crate::flow::SessionState;

/// A condition on sessions; the default matches all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionFilter {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    field: Field,
    negated: bool,
    /// As it was written, for messages and to be sent on.
    text: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Words(Vec<String>),
    Prefixes(Vec<IpNet>),
    Numbers(Vec<RangeInclusive<u64>>),
    Seconds(Vec<RangeInclusive<f64>>),
}

/// What a term looks at: the fields of [`SessionInfo`], and `address`, which is either end's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Protocol,
    Source,
    SourcePort,
    Destination,
    DestinationPort,
    Address,
    Vlan,
    State,
    Rule,
    From,
    To,
    Ingress,
    Egress,
    Nat,
    Packets,
    Bytes,
    Age,
    ExpiresIn,
    Worker,
    Owner,
}

const FIELDS: &[(&str, Field)] = &[
    ("protocol", Field::Protocol),
    ("source", Field::Source),
    ("source_port", Field::SourcePort),
    ("destination", Field::Destination),
    ("destination_port", Field::DestinationPort),
    ("address", Field::Address),
    ("vlan", Field::Vlan),
    ("state", Field::State),
    ("rule", Field::Rule),
    ("from", Field::From),
    ("to", Field::To),
    ("ingress", Field::Ingress),
    ("egress", Field::Egress),
    ("nat", Field::Nat),
    ("packets", Field::Packets),
    ("bytes", Field::Bytes),
    ("age_s", Field::Age),
    ("expires_in_s", Field::ExpiresIn),
    ("worker", Field::Worker),
    ("owner", Field::Owner),
];

/// A filter that cannot be understood; the text names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(pub String);

impl SessionFilter {
    /// The words that a term may start with.
    pub fn fields() -> impl Iterator<Item = &'static str> {
        FIELDS.iter().map(|(name, _)| *name)
    }

    /// Has it no term, so that every session matches?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Adds one condition. `key` may end in `!`: then the value must not fit.
    ///
    /// # Errors
    /// When there is no such field or the value cannot be one of it.
    pub fn push(&mut self, key: &str, value: &str) -> Result<(), FilterError> {
        let (name, negated) = match key.strip_suffix('!') {
            Some(name) => (name, true),
            None => (key, false),
        };
        let Some((_, field)) = FIELDS.iter().find(|(n, _)| *n == name) else {
            let known: Vec<_> = Self::fields().collect();
            return Err(FilterError(format!(
                "`{name}` is not a field of a session; the fields are {}",
                known.join(", ")
            )));
        };
        let test = Test::parse(*field, value)
            .map_err(|why| FilterError(format!("`{name}`: {why}, but it is `{value}`")))?;
        self.terms.push(Term {
            field: *field,
            negated,
            text: value.to_owned(),
            test,
        });
        Ok(())
    }

    /// From words of a command line, each `FIELD=VALUE` or `FIELD!=VALUE`.
    ///
    /// # Errors
    /// As [`SessionFilter::push`], and for a word without `=`.
    pub fn from_words<S: AsRef<str>>(words: &[S]) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for word in words.iter().flat_map(|w| w.as_ref().split_ascii_whitespace()) {
            let Some((key, value)) = word.split_once('=') else {
                return Err(FilterError(format!(
                    "`{word}` is not FIELD=VALUE, for example protocol=tcp destination_port=443 from=trust"
                )));
            };
            filter.push(key, value)?;
        }
        Ok(filter)
    }

    /// As pairs of a URL's query, not yet escaped.
    pub fn pairs(&self) -> impl Iterator<Item = (String, &str)> {
        self.terms.iter().map(|t| {
            let name = t.field.name();
            let key = if t.negated {
                format!("{name}!")
            } else {
                name.to_owned()
            };
            (key, t.text.as_str())
        })
    }

    /// Does the session meet all terms?
    #[must_use]
    pub fn matches(&self, session: &SessionInfo) -> bool {
        self.terms.iter().all(|t| t.fits(session) != t.negated)
    }
}

impl FromStr for SessionFilter {
    type Err = FilterError;

    fn from_str(s: &str) -> Result<Self, FilterError> {
        Self::from_words(&[s])
    }
}

impl fmt::Display for SessionFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.pairs().enumerate() {
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{key}={value}")?;
        }
        Ok(())
    }
}

impl Field {
    fn name(self) -> &'static str {
        FIELDS.iter().find(|(_, f)| *f == self).map_or("", |(n, _)| n)
    }
}

impl Term {
    fn fits(&self, s: &SessionInfo) -> bool {
        let test = &self.test;
        match self.field {
            Field::Protocol => test.word(&s.protocol),
            Field::Source => test.address(s.source),
            Field::SourcePort => test.number(s.source_port.into()),
            Field::Destination => test.address(s.destination),
            Field::DestinationPort => test.number(s.destination_port.into()),
            Field::Address => test.address(s.source) || test.address(s.destination),
            // An untagged session is VLAN 0.
            Field::Vlan if s.vlan.is_empty() => test.number(0),
            Field::Vlan => s.vlan.iter().any(|v| test.number((*v).into())),
            Field::State => test.word(&s.state),
            Field::Rule => test.word(&s.rule),
            Field::From => test.word(&s.from),
            Field::To => test.word(&s.to),
            Field::Ingress => test.word(&s.ingress),
            Field::Egress => test.word(&s.egress),
            Field::Nat => s.nat.as_ref().map_or_else(
                || test.word("null"),
                |n| test.address(n.source) || test.address(n.destination),
            ),
            Field::Packets => test.number(s.packets[0].saturating_add(s.packets[1])),
            Field::Bytes => test.number(s.bytes[0].saturating_add(s.bytes[1])),
            Field::Age => test.seconds(s.age_s),
            Field::ExpiresIn => test.seconds(s.expires_in_s),
            Field::Worker => test.number(s.worker.into()),
            Field::Owner => test.word(match s.owner {
                Owner::Local => "local",
                Owner::Peer => "peer",
            }),
        }
    }
}

impl Test {
    fn parse(field: Field, value: &str) -> Result<Self, String> {
        match field {
            Field::Source | Field::Destination | Field::Address => list(value, prefix).map(Self::Prefixes),
            Field::Nat if value == "null" => Ok(Self::Words(vec!["null".to_owned()])),
            Field::Nat => list(value, prefix).map(Self::Prefixes),
            Field::SourcePort | Field::DestinationPort => {
                list(value, |v| integers(v, u16::MAX.into())).map(Self::Numbers)
            }
            Field::Vlan => list(value, |v| integers(v, 4095)).map(Self::Numbers),
            Field::Worker => list(value, |v| integers(v, u16::MAX.into())).map(Self::Numbers),
            Field::Packets | Field::Bytes => list(value, |v| integers(v, u64::MAX)).map(Self::Numbers),
            Field::Age | Field::ExpiresIn => list(value, seconds).map(Self::Seconds),
            Field::Owner => list(value, |v| one_of(v, &["local", "peer"])).map(Self::Words),
            Field::Protocol => list(value, protocol).map(Self::Words),
            Field::State => list(value, state).map(Self::Words),
            Field::Rule | Field::From | Field::To | Field::Ingress | Field::Egress => {
                list(value, |v| Ok(v.to_owned())).map(Self::Words)
            }
        }
    }

    fn word(&self, word: &str) -> bool {
        matches!(self, Self::Words(words) if words.iter().any(|w| w == word))
    }

    fn address(&self, address: IpAddr) -> bool {
        matches!(self, Self::Prefixes(prefixes) if prefixes.iter().any(|p| p.contains(&address)))
    }

    fn number(&self, number: u64) -> bool {
        matches!(self, Self::Numbers(ranges) if ranges.iter().any(|r| r.contains(&number)))
    }

    fn seconds(&self, number: f64) -> bool {
        matches!(self, Self::Seconds(ranges) if ranges.iter().any(|r| r.contains(&number)))
    }
}

fn list<T>(value: &str, one: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    value
        .split(',')
        .map(|v| {
            if v.is_empty() {
                Err("it needs a value".to_owned())
            } else {
                one(v)
            }
        })
        .collect()
}

fn one_of(value: &str, words: &[&str]) -> Result<String, String> {
    if words.contains(&value) {
        Ok(value.to_owned())
    } else {
        Err(format!("it is one of {}", words.join(", ")))
    }
}

/// `tcp`, `6` and `47` are words for protocols; the word of a session is the one that [`view::protocol`] gives.
fn protocol(value: &str) -> Result<String, String> {
    view::protocol_number(value)
        .map(|number| view::protocol(number).into_owned())
        .ok_or_else(|| "it is tcp, udp, icmp, icmpv6 or a number from 0 to 255".to_owned())
}

fn state(value: &str) -> Result<String, String> {
    let states: Vec<_> = SessionState::ALL.iter().map(|state| state.name()).collect();
    one_of(value, &states)
}

fn prefix(value: &str) -> Result<IpNet, String> {
    value
        .parse::<IpNet>()
        .or_else(|_| value.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "it is an address or a prefix, like 10.0.0.0/8".to_owned())
}

fn integers(value: &str, max: u64) -> Result<RangeInclusive<u64>, String> {
    let what = || format!("it is a number from 0 to {max} or a range of them, like 10-20");
    let number = |s: &str| match s.parse::<u64>() {
        Ok(n) if n <= max => Ok(n),
        _ => Err(what()),
    };
    range(value, 0, max, number).and_then(|r| if r.is_empty() { Err(what()) } else { Ok(r) })
}

fn seconds(value: &str) -> Result<RangeInclusive<f64>, String> {
    let what = || "it is a duration or a range of them, like 90, 30s, 2h or 10m-1h".to_owned();
    let number = |s: &str| {
        let (digits, factor) = match s.strip_suffix("ms") {
            Some(digits) => (digits, 0.001),
            None => match s.as_bytes().last() {
                Some(b's') => (&s[..s.len() - 1], 1.0),
                Some(b'm') => (&s[..s.len() - 1], 60.0),
                Some(b'h') => (&s[..s.len() - 1], 3600.0),
                Some(b'd') => (&s[..s.len() - 1], 86400.0),
                _ => (s, 1.0),
            },
        };
        match digits.parse::<f64>() {
            Ok(n) if n.is_finite() && n >= 0.0 => Ok(n * factor),
            _ => Err(what()),
        }
    };
    // One duration alone means that whole second: nobody hits a fraction.
    if let (false, Ok(n)) = (value.contains('-'), number(value)) {
        return Ok(n..=n + 1.0);
    }
    range(value, 0.0, f64::INFINITY, number).and_then(|r| if r.is_empty() { Err(what()) } else { Ok(r) })
}

/// `a`, `a-b`, `a-` or `-b`.
fn range<T: Copy>(
    value: &str,
    min: T,
    max: T,
    number: impl Fn(&str) -> Result<T, String>,
) -> Result<RangeInclusive<T>, String> {
    match value.split_once('-') {
        None => number(value).map(|n| n..=n),
        Some((low, "")) => Ok(number(low)?..=max),
        Some(("", high)) => Ok(min..=number(high)?),
        Some((low, high)) => Ok(number(low)?..=number(high)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_filter_is_refused_with_the_field() {
        for (words, why) in [
            ("protocol", "`protocol` is not FIELD=VALUE"),
            ("colour=red", "`colour` is not a field of a session"),
            ("=tcp", "`` is not a field"),
            ("!=tcp", "`` is not a field"),
            ("protocol=", "`protocol`: it needs a value"),
            ("protocol=tcp,,udp", "`protocol`: it needs a value"),
            ("source=10.0.0.0/33", "`source`: it is an address or a prefix"),
            (
                "source_port=80-20",
                "`source_port`: it is a number from 0 to 65535",
            ),
            ("source_port=65536", "`source_port`"),
            ("vlan=4096", "`vlan`"),
            ("packets=-", "`packets`"),
            ("packets=1-2-3", "`packets`"),
            ("age_s=1w", "`age_s`: it is a duration"),
            ("age_s=2h-1h", "`age_s`"),
            ("age_s=NaN", "`age_s`"),
            ("age_s=1é", "`age_s`"),
            ("owner=us", "`owner`: it is one of local, peer"),
            (
                "protocol=ftp",
                "`protocol`: it is tcp, udp, icmp, icmpv6 or a number from 0 to 255",
            ),
            ("protocol=256", "`protocol`"),
            ("state=open", "`state`: it is one of syn_sent, "),
        ] {
            let error = SessionFilter::from_words(&[words]).unwrap_err().to_string();
            assert!(error.contains(why), "{words}: {error}");
        }
    }

    proptest! {
        /// Nothing that a client may send panics, and what is a filter stays the same one on its way over the wire.
        #[test]
        fn any_text_is_a_filter_or_refused(
            field in prop::sample::select(SessionFilter::fields().collect::<Vec<_>>()),
            not in any::<bool>(),
            value in "[0-9a-z:./,é-]{0,12}",
        ) {
            let key = format!("{field}{}", if not { "!" } else { "" });
            let mut filter = SessionFilter::default();
            if filter.push(&key, &value).is_ok() {
                let again: SessionFilter = filter.to_string().parse().unwrap();
                prop_assert_eq!(again, filter);
            } else {
                prop_assert!(filter.is_empty());
            }
        }
    }
}
