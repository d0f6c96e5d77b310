//! Reads a file and what it includes into one tree.

use std::io;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::diagnostic::Place;
use super::report::Report;
use super::source::{Files, NotUtf8};
use super::tree::{self, Span, Table, Value};

/// A file that was read or is being read.
struct Visit {
    identity: PathBuf,
    /// The `include` member that named it; `None`: the file that was asked for.
    by: Option<Span>,
    /// It is being read: to include it now is a circle.
    open: bool,
}

/// The merged tree; `None` when the first file cannot be read.
pub(super) fn read_all(files: &dyn Files, path: &Path, report: &mut Report) -> Option<Table> {
    let mut reader = Reader {
        files,
        visits: Vec::new(),
    };
    let text = match files.read(path) {
        Ok(text) => text,
        Err(error) => {
            let bad = error.get_ref().and_then(|e| e.downcast_ref::<NotUtf8>());
            let place = Place {
                file: path.to_owned(),
                line: bad.map_or(0, |bad| bad.line),
                column: bad.map_or(0, |bad| bad.column),
            };
            report.file_error(
                place,
                format!("cannot read it: {error}"),
                help(&error, "check the path and who may read it"),
            );
            return None;
        }
    };
    Some(reader.read(path, text, None, report))
}

/// What to do about a file that cannot be read.
fn help<'h>(error: &io::Error, otherwise: &'h str) -> &'h str {
    match error.kind() {
        io::ErrorKind::InvalidData => "save it as UTF-8",
        io::ErrorKind::InvalidInput => "write the configuration to a file and name that",
        _ => otherwise,
    }
}

/// A configuration has no more files: what includes more is a mistake.
const MAX_FILES: usize = 256;

struct Reader<'f> {
    files: &'f dyn Files,
    visits: Vec<Visit>,
}

impl Reader<'_> {
    fn read(&mut self, path: &Path, text: String, by: Option<Span>, report: &mut Report) -> Table {
        let visit = self.visits.len();
        self.visits.push(Visit {
            identity: self.files.identity(path),
            by,
            open: true,
        });
        let mut own = parse(path, text, report);
        let mut merged = Table::new();
        if let Some(include) = own.remove("include") {
            for (name, span) in members(&include.item, report) {
                self.include(path, &name, span, &mut merged, report);
            }
        }
        merge_into(&mut merged, own, report);
        self.visits[visit].open = false;
        merged
    }

    /// Reads the file `name`, which `from` includes, into `merged`.
    fn include(&mut self, from: &Path, name: &str, span: Span, merged: &mut Table, report: &mut Report) {
        let path = from.parent().unwrap_or(Path::new("")).join(name);
        let identity = self.files.identity(&path);
        if let Some(before) = self.visits.iter().find(|visit| visit.identity == identity) {
            let message = if before.open {
                format!("`{name}` is included in a circle")
            } else {
                format!("`{name}` is included twice")
            };
            let finding = report
                .error(span, message)
                .help("include each file once, from one place");
            if let Some(by) = before.by {
                finding.related(by, "included here before");
            }
            return;
        }
        if self.visits.len() == MAX_FILES {
            report.incomplete = true;
            report
                .error(span, format!("more than {MAX_FILES} files"))
                .help("put more into each file");
            return;
        }
        match self.files.read(&path) {
            Ok(text) => {
                let table = self.read(&path, text, Some(span), report);
                merge_into(merged, table, report);
            }
            Err(error) => {
                report.incomplete = true;
                report
                    .error(span, format!("cannot read `{}`: {error}", path.display()))
                    .help(help(&error, "the path is relative to the file that it stands in"));
            }
        }
    }
}

fn merge_into(into: &mut Table, from: Table, report: &mut Report) {
    let mut conflicts = Vec::new();
    tree::merge(into, from, "", &mut conflicts);
    for conflict in conflicts {
        report
            .error(
                conflict.second,
                format!("`{}` is set in two files", conflict.path),
            )
            .related(conflict.first, "set here before")
            .help("keep one of them");
    }
}

/// The paths that `include` lists.
fn members(include: &tree::Item, report: &mut Report) -> Vec<(String, Span)> {
    let Value::Array(items) = &include.value else {
        report.incomplete = true;
        report
            .error(
                include.span,
                format!("`include` is an array of strings, not {}", include.value.kind()),
            )
            .help("write `include = [\"pair.toml\"]`");
        return Vec::new();
    };
    let mut paths = Vec::new();
    for item in items {
        match &item.value {
            Value::String(path) => paths.push((path.clone(), item.span)),
            other => {
                report.incomplete = true;
                report
                    .error(item.span, format!("expected a path, found {}", other.kind()))
                    .help("write `include = [\"pair.toml\"]`");
            }
        }
    }
    paths
}

/// One file's own tree, as much as could be parsed of it.
fn parse(path: &Path, text: String, report: &mut Report) -> Table {
    let (table, errors) = DeTable::parse_recoverable(&text);
    let file = report.add_file(path, text.clone());
    for error in errors {
        let end = text.len();
        let span = Span::new(file, error.span().unwrap_or(end..end));
        match (error.message(), text.get(span.start..span.end)) {
            ("duplicate key", Some(key)) => {
                let message = format!("`{key}` is set twice");
                report.syntax(
                    span,
                    &message,
                    "a key, or the header of a table, stands once in a file",
                );
            }
            (message, _) => report.syntax(span, message, "the syntax is TOML: https://toml.io"),
        }
    }
    let mut table = tree::from_toml(file, table.get_ref());
    tree::prune(&mut table, &|entry| report.is_broken(entry.key));
    table
}
