//! The names that a file defines, gathered before anything refers to them, so that a reference can be judged where it
//! stands.

use std::collections::BTreeMap;

use super::report::Report;
use super::section::Walk;
use super::tree::{Item, Span, Table, Value};

/// Names by kind, with the place of their first definition.
pub(super) struct Names {
    pub(super) zones: BTreeMap<String, Span>,
    pub(super) ports: BTreeMap<String, Span>,
    pub(super) address_sets: BTreeMap<String, Span>,
    pub(super) service_sets: BTreeMap<String, Span>,
}

/// Longest name, in bytes.
const MAX_NAME: usize = 64;
/// What the list of rules calls the packets that no rule matched (`GET /v1/rules`).
pub const IMPLICIT_DROP: &str = "implicit_drop";

impl Names {
    /// Everything that the tree names, as far as it has the right shape; names used twice are reported.
    pub(super) fn gather(root: &Table, report: &mut Report) -> Self {
        let mut zones = BTreeMap::new();
        for (text, span) in strings_at(root, "port", "zone") {
            zones.entry(text.to_owned()).or_insert(span);
        }
        for (name, span) in unique(root, "zone", report) {
            zones.entry(name).or_insert(span);
        }
        unique(root, "rule", report);
        Self {
            zones,
            ports: unique(root, "port", report),
            address_sets: keys(root, "address_sets"),
            service_sets: keys(root, "service_sets"),
        }
    }
}

/// The items of an array, if it is one.
fn items<'t>(root: &'t Table, array: &str) -> &'t [Item] {
    match root.get(array).map(|entry| &entry.item.value) {
        Some(Value::Array(items)) => items,
        _ => &[],
    }
}

/// The string at `key` of every table of an array of tables.
fn strings_at<'t>(root: &'t Table, array: &str, key: &str) -> impl Iterator<Item = (&'t str, Span)> {
    items(root, array)
        .iter()
        .filter_map(move |item| match &item.value {
            Value::Table(table) => match table.get(key).map(|entry| &entry.item) {
                Some(Item {
                    span,
                    value: Value::String(text),
                }) => Some((text.as_str(), *span)),
                _ => None,
            },
            _ => None,
        })
}

/// The names in an array of tables.
fn unique(root: &Table, array: &str, report: &mut Report) -> BTreeMap<String, Span> {
    let mut names = BTreeMap::new();
    for (name, span) in strings_at(root, array, "name") {
        match names.get(name) {
            None => {
                names.insert(name.to_owned(), span);
            }
            Some(first) => {
                report
                    .error(span, format!("{array} name \"{name}\" is used twice"))
                    .related(*first, "used here before")
                    .help(format!("give each {array} a name of its own"));
            }
        }
    }
    names
}

fn keys(root: &Table, table: &str) -> BTreeMap<String, Span> {
    match root.get(table).map(|entry| &entry.item.value) {
        Some(Value::Table(table)) => table
            .iter()
            .map(|(name, entry)| (name.clone(), entry.key))
            .collect(),
        _ => BTreeMap::new(),
    }
}

/// What a filter (`rule=a,b from=trust`), a packet in words or `--pcap PORT=FILE` would take for the end of a name, and
/// quotes, which nobody could tell from those around it.
const MARKS: [char; 5] = [',', '=', '"', '\'', '`'];

/// A name as it may be: shown in tables, put into URLs and filters, told apart from `any` and `@set`. A node's is only shown.
pub(super) fn check_name(kind: &str, name: &str, span: Span, walk: &mut Walk<'_>) {
    let is_mark = |c: char| kind != "node" && (c.is_whitespace() || MARKS.contains(&c));
    let problem = if name.is_empty() {
        "is empty".to_owned()
    } else if name == "any" {
        "cannot be \"any\", which means all of them".to_owned()
    } else if kind == "rule" && name == IMPLICIT_DROP {
        format!("cannot be \"{IMPLICIT_DROP}\", which counts what no rule matched")
    } else if name.len() > MAX_NAME {
        format!("is longer than {MAX_NAME} bytes")
    } else if name.starts_with('@') {
        "cannot start with `@`, which marks a set".to_owned()
    } else if name.chars().any(char::is_control) {
        "has control characters in it".to_owned()
    } else if name.trim() != name {
        "has blanks around it".to_owned()
    } else if let Some(mark) = name.chars().find(|c| is_mark(*c)) {
        match mark {
            _ if mark.is_whitespace() => "has a blank in it, which ends a name in a filter".to_owned(),
            ',' | '=' => format!("has a `{mark}` in it, which ends a name in a filter"),
            _ => "has a quote in it".to_owned(),
        }
    } else {
        return;
    };
    let is_bad = |c: char| c.is_control() || c.is_whitespace() || is_mark(c);
    let words: Vec<_> = name.split(is_bad).filter(|word| !word.is_empty()).collect();
    let plain = words.join("-");
    let help = match plain.is_empty() || plain == name || plain.len() > MAX_NAME {
        true => "write another name".to_owned(),
        false => format!("write another name, like \"{plain}\""),
    };
    walk.error(span, format!("the name of a {kind} {problem}"), help);
}
