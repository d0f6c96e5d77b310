//! Collects findings while files are read: the texts, and from byte offsets to lines and columns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use super::tree::Span;

/// A file that was read.
struct Text {
    path: PathBuf,
    text: String,
    /// Byte offsets at which lines start.
    line_starts: Vec<usize>,
    /// Lines with a syntax error: what else is found there only follows from it.
    broken_lines: BTreeSet<usize>,
}

/// The findings so far.
#[derive(Default)]
pub(super) struct Report {
    files: Vec<Text>,
    findings: Vec<(Option<Span>, Diagnostic)>,
    /// An included file could not be read: names that nothing defines may be defined there.
    pub(super) incomplete: bool,
}

impl Report {
    /// Adds a file; its number is what spans carry.
    pub(super) fn add_file(&mut self, path: &Path, text: String) -> usize {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        self.files.push(Text {
            path: path.to_owned(),
            line_starts: std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect(),
            text,
            broken_lines: BTreeSet::new(),
        });
        self.files.len() - 1
    }

    /// The path of a file, as it was named.
    pub(super) fn path(&self, file: usize) -> &Path {
        &self.files[file].path
    }

    /// An error at a place. Give the rest of it by the methods of the answer.
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) -> Finding<'_> {
        self.push(Severity::Error, span, message.into())
    }

    /// A warning at a place.
    pub(super) fn warning(&mut self, span: Span, message: impl Into<String>) -> Finding<'_> {
        self.push(Severity::Warning, span, message.into())
    }

    /// A key that should be there and is not; said only when all was read, because it may be in what was not.
    pub(super) fn missing(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        if !self.incomplete && self.files.iter().all(|file| file.broken_lines.is_empty()) {
            self.error(span, message).help(help);
        }
    }

    /// A name that nothing defines.
    pub(super) fn unknown(&mut self, span: Span, message: impl Into<String>) -> Finding<'_> {
        if self.incomplete {
            return Finding {
                report: self,
                index: None,
            };
        }
        self.error(span, message)
    }

    /// Does this place stand on a line with a syntax error?
    pub(super) fn is_broken(&self, span: Span) -> bool {
        let file = &self.files[span.file];
        let line = file.line_starts.partition_point(|start| *start <= span.start);
        file.broken_lines.contains(&line)
    }

    /// A syntax error: later findings on its line are not reported.
    pub(super) fn syntax(&mut self, span: Span, message: &str, help: &str) {
        self.error(span, message).help(help);
        let line = self.place(span).0.line;
        self.files[span.file].broken_lines.insert(line);
    }

    /// An error about a file that could not be read.
    pub(super) fn file_error(&mut self, place: Place, message: String, help: &str) {
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            place,
            message,
            help: Some(help.to_owned()),
            related: None,
            source: None,
        };
        self.findings.push((None, diagnostic));
    }

    fn push(&mut self, severity: Severity, span: Span, message: String) -> Finding<'_> {
        let (place, source) = self.place(span);
        if self.files[span.file].broken_lines.contains(&place.line) {
            return Finding {
                report: self,
                index: None,
            };
        }
        let diagnostic = Diagnostic {
            severity,
            place,
            message,
            help: None,
            related: None,
            source: Some(source),
        };
        self.findings.push((Some(span), diagnostic));
        let index = Some(self.findings.len() - 1);
        Finding { report: self, index }
    }

    /// Line and column of a span's start, the line, and how many characters of it the span takes.
    pub(super) fn place(&self, span: Span) -> (Place, (String, usize)) {
        let Text {
            path,
            text,
            line_starts,
            ..
        } = &self.files[span.file];
        let start = floor_char(text, span.start);
        let end = floor_char(text, span.end.max(span.start));
        let line = line_starts.partition_point(|line_start| *line_start <= start);
        let line_start = line_starts[line - 1];
        let line_end = line_starts.get(line).map_or(text.len(), |next| next - 1);
        let place = Place {
            file: path.clone(),
            line,
            column: text[line_start..start].chars().count() + 1,
        };
        let length = text[start..end.clamp(start, line_end)].trim_end().chars().count();
        (
            place,
            (
                text[line_start..line_end].trim_end_matches('\r').to_owned(),
                length,
            ),
        )
    }

    /// Everything, in the order of the files and of their lines; each finding once.
    pub(super) fn finish(&mut self) -> Diagnostics {
        let mut findings = std::mem::take(&mut self.findings);
        findings.sort_by_key(|(span, d)| (span.map(|s| (s.file, s.start)), d.severity));
        findings.dedup_by(|a, b| a.1 == b.1);
        Diagnostics::new(findings.into_iter().map(|(_, diagnostic)| diagnostic).collect())
    }
}

/// The nearest place at or before `offset` where a character starts.
fn floor_char(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// A finding that is being written.
pub(super) struct Finding<'r> {
    report: &'r mut Report,
    /// `None`: it is not reported.
    index: Option<usize>,
}

impl Finding<'_> {
    /// What to do about it.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        if let Some(index) = self.index {
            self.report.findings[index].1.help = Some(help.into());
        }
        self
    }

    /// "Did you mean", or else what there is.
    pub(super) fn help_nearest<'c>(
        self,
        word: &str,
        candidates: impl IntoIterator<Item = &'c str>,
        otherwise: &str,
    ) -> Self {
        let candidates: BTreeSet<&str> = candidates.into_iter().collect();
        match super::hint::nearest(word, candidates.iter().copied()) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None if candidates.is_empty() => self.help(format!("{otherwise}: none")),
            None => {
                let list = candidates.into_iter().collect::<Vec<_>>().join(", ");
                self.help(format!("{otherwise}: {list}"))
            }
        }
    }

    /// Another place that has to do with it, and how.
    pub(super) fn related(self, span: Span, how: &str) -> Self {
        if let Some(index) = self.index {
            let place = self.report.place(span).0;
            self.report.findings[index].1.related = Some((place, how.to_owned()));
        }
        self
    }
}
