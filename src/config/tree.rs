//! The file as a tree of values that know where they stand.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Bytes `start..end` of a file (its place in the loader's list of files).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) file: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    pub(super) fn new(file: usize, range: Range<usize>) -> Self {
        Self {
            file,
            start: range.start,
            end: range.end,
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) span: Span,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    /// `None`: more than 64 bits.
    Integer(Option<i64>),
    Float,
    Boolean(bool),
    Datetime,
    Array(Vec<Item>),
    Table(Table),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Span,
    pub(super) item: Item,
}

pub(super) type Table = BTreeMap<String, Entry>;

impl Value {
    /// What it is, for "expected a string, found ...".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }

    /// Is it an array of tables (`[[name]]`, or the same written inline)?
    fn is_tables(&self) -> bool {
        matches!(self, Self::Array(items) if !items.is_empty()
            && items.iter().all(|item| matches!(item.value, Self::Table(_))))
    }
}

/// The parser's table as one of ours.
pub(super) fn from_toml(file: usize, table: &DeTable<'_>) -> Table {
    table
        .iter()
        .map(|(key, value)| {
            let entry = Entry {
                key: Span::new(file, key.span()),
                item: item(file, value),
            };
            (key.get_ref().to_string(), entry)
        })
        .collect()
}

fn item(file: usize, value: &Spanned<DeValue<'_>>) -> Item {
    Item {
        span: Span::new(file, value.span()),
        value: match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(int) => Value::Integer(i64::from_str_radix(int.as_str(), int.radix()).ok()),
            DeValue::Float(_) => Value::Float,
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(items) => Value::Array(items.iter().map(|value| item(file, value)).collect()),
            DeValue::Table(table) => Value::Table(from_toml(file, table)),
        },
    }
}

/// Removes the keys that `broken` says are.
pub(super) fn prune(table: &mut Table, broken: &dyn Fn(&Entry) -> bool) {
    table.retain(|_, entry| !broken(entry));
    for entry in table.values_mut() {
        match &mut entry.item.value {
            Value::Table(table) => prune(table, broken),
            Value::Array(items) => {
                for item in items {
                    if let Value::Table(table) = &mut item.value {
                        prune(table, broken);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A leaf key that two files set: its path and both places, the first first.
pub(super) struct Conflict {
    pub(super) path: String,
    pub(super) first: Span,
    pub(super) second: Span,
}

/// Adds `from` to `into`: tables key by key, arrays of tables one behind the other, everything else once.
pub(super) fn merge(into: &mut Table, from: Table, path: &str, conflicts: &mut Vec<Conflict>) {
    for (key, entry) in from {
        let path = join(path, &key);
        let Some(before) = into.get_mut(&key) else {
            into.insert(key, entry);
            continue;
        };
        let both_arrays_of_tables = before.item.value.is_tables() && entry.item.value.is_tables();
        match (&mut before.item.value, entry.item.value) {
            (Value::Table(before), Value::Table(table)) => merge(before, table, &path, conflicts),
            (Value::Array(before), Value::Array(items)) if both_arrays_of_tables => before.extend(items),
            _ => conflicts.push(Conflict {
                path,
                first: before.key,
                second: entry.key,
            }),
        }
    }
}

/// `path.key`, the key quoted where TOML would have it quoted.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}
