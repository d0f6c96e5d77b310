//! Reads a table of the file key by key. A section knows which keys were asked for, so what remains is unknown; that same
//! record is compared with the JSON Schema in a test.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::diagnostic::TextValue;
use super::report::Report;
use super::tree::{Entry, Item, Span, Table, Value, join};
use super::value::Matcher;

/// What reading needs besides the tree.
pub(super) struct Walk<'r> {
    pub(super) report: &'r mut Report,
    /// The keys that were asked for, by section.
    pub(super) grammar: BTreeMap<String, BTreeSet<&'static str>>,
    /// Errors that reading found (not syntax).
    pub(super) errors: usize,
    /// The key file that a node will want to read, and where it is named.
    pub(super) key_file: Option<(PathBuf, Span)>,
}

impl<'r> Walk<'r> {
    pub(super) fn new(report: &'r mut Report) -> Self {
        Self {
            report,
            grammar: BTreeMap::new(),
            errors: 0,
            key_file: None,
        }
    }

    /// An error whose only hint is `help`.
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.errors += 1;
        self.report.error(span, message).help(help);
    }
}

/// A table of the file, or the lack of one.
pub(super) struct Section<'t> {
    table: Option<&'t Table>,
    /// `node`, `conntrack.timeouts`, `port` (for each of them): the path without places in arrays.
    pub(super) path: String,
    /// Where it starts.
    pub(super) span: Span,
    /// It is there but not a table, which is reported: its keys are not missed.
    broken: bool,
    asked: BTreeSet<&'static str>,
    refused: BTreeSet<&'static str>,
}

impl<'t> Section<'t> {
    pub(super) fn root(table: &'t Table) -> Self {
        let start = Span {
            file: 0,
            start: 0,
            end: 0,
        };
        Self::new(Some(table), String::new(), start)
    }

    fn new(table: Option<&'t Table>, path: String, span: Span) -> Self {
        Self {
            table,
            path,
            span,
            broken: false,
            asked: BTreeSet::new(),
            refused: BTreeSet::new(),
        }
    }

    /// The key with its value.
    pub(super) fn entry(&mut self, key: &'static str) -> Option<&'t Entry> {
        self.asked.insert(key);
        self.table?.get(key)
    }

    /// All entries of a table whose keys are names.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'t String, &'t Entry)> {
        self.table.into_iter().flatten()
    }

    /// Where the key's value stands; where the section starts when it has none.
    pub(super) fn span_of(&self, key: &str) -> Span {
        self.table
            .and_then(|table| table.get(key))
            .map_or(self.span, |entry| entry.item.span)
    }

    /// Is the key there?
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    fn full(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Keys of features that are not there yet are refused by name, whatever their value.
    pub(super) fn refuse(&mut self, keys: &[(&'static str, &str)], walk: &mut Walk<'_>) {
        for (key, feature) in keys {
            self.refused.insert(key);
            if let Some(entry) = self.table.and_then(|table| table.get(*key)) {
                walk.error(
                    entry.key,
                    format!("`{}` is not supported yet", self.full(key)),
                    format!("remove the key; a later version has {feature}"),
                );
            }
        }
    }

    /// Likewise one word that a key may have later.
    pub(super) fn refuse_word(&self, key: &str, word: &str, feature: &str, walk: &mut Walk<'_>) {
        let Some(entry) = self.table.and_then(|table| table.get(key)) else {
            return;
        };
        if matches!(&entry.item.value, Value::String(text) if text == word) {
            walk.error(
                entry.item.span,
                format!("`{}` \"{word}\" is not supported yet", self.full(key)),
                format!("write another word; a later version has {feature}"),
            );
        }
    }

    /// Says that a key is missing.
    pub(super) fn missing(&self, key: &str, example: &str, walk: &mut Walk<'_>) {
        if self.broken {
            return;
        }
        walk.errors += 1;
        let of = if self.path.is_empty() {
            String::new()
        } else {
            format!(" in `{}`", self.path)
        };
        walk.report.missing(
            self.span,
            format!("`{key}` is missing{of}"),
            format!("add `{key} = {example}`"),
        );
    }

    /// A string.
    pub(super) fn string(&mut self, key: &'static str, walk: &mut Walk<'_>) -> Option<(&'t str, Span)> {
        let entry = self.entry(key)?;
        let text = expect_string(&entry.item, &self.full(key), walk)?;
        Some((text, entry.item.span))
    }

    /// A string that must be there; `example` is what a hint shows in its place.
    pub(super) fn required(
        &mut self,
        key: &'static str,
        example: &str,
        walk: &mut Walk<'_>,
    ) -> Option<(&'t str, Span)> {
        if self.entry(key).is_none() {
            self.missing(key, example, walk);
        }
        self.string(key, walk)
    }

    /// A string with a grammar of its own.
    pub(super) fn text<T: TextValue>(&mut self, key: &'static str, walk: &mut Walk<'_>) -> Option<T> {
        let (text, span) = self.string(key, walk)?;
        parse(text, span, walk)
    }

    /// An integer in a range.
    pub(super) fn integer<T: TryFrom<i64>>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<i64>,
        walk: &mut Walk<'_>,
    ) -> Option<T> {
        let entry = self.entry(key)?;
        let (first, last) = (range.start(), range.end());
        let help = format!("a whole number from {first} to {last}");
        match &entry.item.value {
            Value::Integer(number) => {
                let value = number
                    .filter(|n| range.contains(n))
                    .and_then(|n| T::try_from(n).ok());
                if value.is_none() {
                    walk.error(
                        entry.item.span,
                        format!("`{}` is out of range", self.full(key)),
                        help,
                    );
                }
                value
            }
            other => {
                let help = match other {
                    Value::String(text) if text.parse::<i64>().is_ok() => {
                        format!("without quotes: `{key} = {text}`")
                    }
                    _ => help,
                };
                wrong_type(&entry.item, &self.full(key), "an integer", help, walk);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, walk: &mut Walk<'_>) -> Option<bool> {
        let entry = self.entry(key)?;
        if let Value::Boolean(value) = entry.item.value {
            return Some(value);
        }
        let help = format!("write `{key} = true` or `{key} = false`");
        wrong_type(&entry.item, &self.full(key), "true or false", help, walk);
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        walk: &mut Walk<'_>,
    ) -> Option<T> {
        let (text, span) = self.string(key, walk)?;
        let found = choices
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        if found.is_none() {
            walk.errors += 1;
            let words = choices.iter().map(|(word, _)| *word);
            walk.report
                .error(span, format!("`{}` cannot be \"{text}\"", self.full(key)))
                .help_nearest(text, words, "it is one of");
        }
        found
    }

    /// A table in this one.
    pub(super) fn section(&mut self, key: &'static str, walk: &mut Walk<'_>) -> Section<'t> {
        let path = self.full(key);
        let Some(entry) = self.entry(key) else {
            return Self::new(None, path, self.span);
        };
        if let Value::Table(table) = &entry.item.value {
            return Self::new(Some(table), path, entry.item.span);
        }
        let help = match &entry.item.value {
            Value::Array(_) => format!("there is one of it: write `[{path}]`, not `[[{path}]]`"),
            _ => format!("write `[{path}]` and its keys below"),
        };
        wrong_type(&entry.item, &path, "a table", help, walk);
        Self {
            broken: true,
            ..Self::new(None, path, entry.item.span)
        }
    }

    /// The tables of an array of tables.
    pub(super) fn sections(&mut self, key: &'static str, walk: &mut Walk<'_>) -> Vec<Section<'t>> {
        let path = self.full(key);
        let Some(entry) = self.entry(key) else {
            return Vec::new();
        };
        let Value::Array(items) = &entry.item.value else {
            let help = format!("there may be several: write `[[{path}]]`");
            wrong_type(&entry.item, &path, "an array of tables", help, walk);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items {
            match &item.value {
                Value::Table(table) => sections.push(Self::new(Some(table), path.clone(), item.span)),
                _ => wrong_type(
                    item,
                    &path,
                    "a table",
                    format!("write `[[{path}]]` for each"),
                    walk,
                ),
            }
        }
        sections
    }

    /// "any", a string or an array of strings, each read by `member`.
    pub(super) fn matcher<T>(
        &mut self,
        key: &'static str,
        walk: &mut Walk<'_>,
        mut member: impl FnMut(&'t str, Span, &mut Walk<'_>) -> Option<T>,
    ) -> Matcher<T> {
        let Some(entry) = self.entry(key) else {
            return Matcher::Any;
        };
        let path = self.full(key);
        let strings = strings(&entry.item, &path, walk);
        if matches!(&entry.item.value, Value::Array(items) if items.is_empty()) {
            walk.error(
                entry.item.span,
                format!("`{path}` is empty and would match nothing"),
                "leave the key out, or write \"any\", to match everything",
            );
        }
        let any = strings
            .iter()
            .find(|(text, _)| *text == "any")
            .map(|(_, span)| *span);
        if let Some(span) = any.filter(|_| strings.len() > 1) {
            walk.error(
                span,
                format!("`{path}` has \"any\" beside other members"),
                "\"any\" covers the others: keep it alone, or remove it",
            );
        }
        let others = strings.into_iter().filter(|(text, _)| *text != "any");
        let members: Vec<T> = others
            .filter_map(|(text, span)| member(text, span, walk))
            .collect();
        if any.is_some() || members.is_empty() {
            Matcher::Any
        } else {
            Matcher::OneOf(members)
        }
    }

    /// A string or an array of strings, each read by `member`; none where the key is not there.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        walk: &mut Walk<'_>,
        mut member: impl FnMut(&'t str, Span, &mut Walk<'_>) -> Option<T>,
    ) -> Vec<T> {
        let Some(entry) = self.entry(key) else {
            return Vec::new();
        };
        strings(&entry.item, &self.full(key), walk)
            .into_iter()
            .filter_map(|(text, span)| member(text, span, walk))
            .collect()
    }

    /// Reports what nobody asked for, and records what was.
    pub(super) fn finish(&self, walk: &mut Walk<'_>) {
        for (key, entry) in self.entries() {
            if self.asked.contains(key.as_str()) || self.refused.contains(key.as_str()) {
                continue;
            }
            walk.errors += 1;
            let of = if self.path.is_empty() {
                "the keys are"
            } else {
                "its keys are"
            };
            walk.report
                .error(entry.key, format!("unknown key `{}`", self.full(key)))
                .help_nearest(key, self.asked.difference(&self.refused).copied(), of);
        }
        // What is asked for and refused is the grammar of a later version.
        walk.grammar
            .entry(self.path.clone())
            .or_default()
            .extend(self.asked.difference(&self.refused));
    }
}

/// Reads a string with a grammar of its own.
pub(super) fn parse<T: TextValue>(text: &str, span: Span, walk: &mut Walk<'_>) -> Option<T> {
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            walk.error(
                span,
                error.message,
                error.help.unwrap_or_else(|| T::HELP.to_owned()),
            );
            None
        }
    }
}

/// The string of an item.
pub(super) fn expect_string<'t>(item: &'t Item, path: &str, walk: &mut Walk<'_>) -> Option<&'t str> {
    if let Value::String(text) = &item.value {
        return Some(text);
    }
    let help = match &item.value {
        Value::Integer(Some(number)) => format!("in quotes: \"{number}\""),
        Value::Boolean(boolean) => format!("in quotes: \"{boolean}\""),
        _ => "write it in quotes".to_owned(),
    };
    wrong_type(item, path, "a string", help, walk);
    None
}

/// The strings of an array, or the one string that stands in its place.
pub(super) fn strings<'t>(item: &'t Item, path: &str, walk: &mut Walk<'_>) -> Vec<(&'t str, Span)> {
    match &item.value {
        Value::Array(items) => items
            .iter()
            .filter_map(|item| expect_string(item, path, walk).map(|text| (text, item.span)))
            .collect(),
        _ => expect_string(item, path, walk)
            .map(|text| (text, item.span))
            .into_iter()
            .collect(),
    }
}

fn wrong_type(item: &Item, path: &str, expected: &str, help: String, walk: &mut Walk<'_>) {
    walk.error(
        item.span,
        format!("`{path}`: expected {expected}, found {}", item.value.kind()),
        help,
    );
}
