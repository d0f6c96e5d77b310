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

/// A name as it may be: shown in tables, put into URLs and filters, told apart from `any` and `@set`.
pub(super) fn check_name(kind: &str, name: &str, span: Span, walk: &mut Walk<'_>) {
    let problem = if name.is_empty() {
        "is empty".to_owned()
    } else if name == "any" {
        "cannot be \"any\", which means all of them".to_owned()
    } else if name.len() > MAX_NAME {
        format!("is longer than {MAX_NAME} bytes")
    } else if name.starts_with('@') {
        "cannot start with `@`, which marks a set".to_owned()
    } else if name.chars().any(char::is_control) || name.trim() != name {
        "has control characters, or blanks around it".to_owned()
    } else {
        return;
    };
    walk.error(
        span,
        format!("the name of a {kind} {problem}"),
        "write another name",
    );
}
