//! Tables for a terminal, and numbers for people.

use std::fmt::Write as _;
use std::io::IsTerminal;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, Width, presets};

/// A column: its heading, on which side it is aligned, and whether it may be cut or left out when the terminal is
/// narrow.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    heading: &'static str,
    right: bool,
    /// Characters that always stay.
    keep: Option<u16>,
    /// The higher, the earlier it is left out; 0: never.
    spare: u8,
}

impl Column {
    /// One that is left out when the terminal is too narrow for all: the highest `order` first.
    #[must_use]
    pub const fn spare(self, order: u8) -> Self {
        Self { spare: order, ..self }
    }
}

/// A column of words, never cut.
#[must_use]
pub const fn words(heading: &'static str) -> Column {
    Column {
        heading,
        right: false,
        keep: None,
        spare: 0,
    }
}

/// A column of words, cut down to `keep` characters when the terminal is narrow.
#[must_use]
pub const fn cut(heading: &'static str, keep: u16) -> Column {
    Column {
        heading,
        right: false,
        keep: Some(keep),
        spare: 0,
    }
}

/// A column of numbers, never cut.
#[must_use]
pub const fn numbers(heading: &'static str) -> Column {
    Column {
        heading,
        right: true,
        keep: None,
        spare: 0,
    }
}

/// The width to print for: the terminal's; `None` when the output is not one, so that nothing is cut.
#[must_use]
pub fn terminal_width() -> Option<u16> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 => Some(size.ws_col),
        _ => Some(80),
    }
}

/// Blanks between columns.
const GAP: u16 = 2;

/// Lines of text, one a row, the headings first. In `width` characters columns that may be cut are, with an ellipsis,
/// and columns that are to spare are left out as far as it takes.
#[must_use]
pub fn render(columns: &[Column], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let needs: Vec<u16> = (0..columns.len())
        .map(|place| need(columns, &rows, place))
        .collect();
    let shown = fitting(columns, &needs, width);
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .force_no_tty()
        .set_truncation_indicator("…")
        .set_header(shown.iter().map(|place| columns[*place].heading.to_uppercase()))
        .set_content_arrangement(match width {
            Some(_) => ContentArrangement::Dynamic,
            None => ContentArrangement::Disabled,
        });
    if let Some(width) = width {
        table.set_width(width);
    }
    table.add_rows(rows.into_iter().map(|mut row| {
        let mut row = Row::from(
            shown
                .iter()
                .map(|place| row.get_mut(*place).map(std::mem::take).unwrap_or_default()),
        );
        row.max_height(1);
        row
    }));
    for (to, from) in shown.iter().enumerate() {
        let Some(column) = table.column_mut(to) else {
            continue;
        };
        column.set_padding((0, GAP));
        if columns[*from].right {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if width.is_some() {
            // Constraints count the padding.
            let least = least(columns[*from], needs[*from]) + GAP;
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Characters that a column's longest cell takes.
fn need(columns: &[Column], rows: &[Vec<String>], place: usize) -> u16 {
    let cells = rows.iter().filter_map(|row| row.get(place));
    let heading = columns[place].heading.chars().count();
    let widest = cells.map(|cell| cell.chars().count()).fold(heading, usize::max);
    u16::try_from(widest).unwrap_or(u16::MAX - GAP)
}

/// Characters that a column must have.
fn least(column: Column, need: u16) -> u16 {
    column
        .keep
        .map_or(need, |keep| need.min(keep))
        .min(u16::MAX - GAP)
}

/// The places of the columns that there is room for.
fn fitting(columns: &[Column], needs: &[u16], width: Option<u16>) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let Some(width) = width else {
        return shown;
    };
    loop {
        let least = |place: &usize| u64::from(least(columns[*place], needs[*place]) + GAP);
        let total: u64 = shown.iter().map(least).sum();
        let spare = shown.iter().copied().filter(|place| columns[*place].spare > 0);
        match spare.max_by_key(|place| columns[*place].spare) {
            Some(place) if total > u64::from(width) => shown.retain(|other| *other != place),
            _ => return shown,
        }
    }
}

/// Names and values, one a line, the values aligned.
#[must_use]
pub fn facts(facts: &[(&str, String)]) -> String {
    let widest = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in facts {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<widest$}  {value}");
    }
    text
}

/// `1234567` as `1.23M`: three digits that count.
#[must_use]
pub fn count(n: u64) -> String {
    scaled(n, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// `1234567` as `1.18MiB`: three digits that count.
#[must_use]
pub fn bytes(n: u64) -> String {
    scaled(n, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn scaled(n: u64, base: f64, units: &[&str]) -> String {
    let mut value = n as f64;
    let mut unit = 0;
    // 999.5 would be rounded to 1000.
    while value >= base.min(999.5) && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or("");
    if unit == 0 {
        format!("{n}{name}")
    } else if value < 9.995 {
        format!("{value:.2}{name}")
    } else if value < 99.95 {
        format!("{value:.1}{name}")
    } else {
        format!("{value:.0}{name}")
    }
}

/// Seconds as `950ms`, `4.2s`, `3m20s`, `2h5m`, `3d4h`: two units at most.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what a u64 holds"
)]
pub fn duration(seconds: f64) -> String {
    if seconds < 0.9995 {
        return format!("{:.0}ms", seconds.max(0.0) * 1000.0);
    }
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds.round().clamp(0.0, 1e15) as u64;
    let parts = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let Some(first) = parts.iter().position(|(unit, _)| whole >= *unit) else {
        return "0s".to_owned();
    };
    let mut text = String::new();
    let mut rest = whole;
    for (unit, name) in parts.iter().skip(first).take(2) {
        if rest >= *unit {
            let _ = write!(text, "{}{name}", rest / unit);
        }
        rest %= unit;
    }
    text
}

/// `0.1234` as `12.3%`.
#[must_use]
pub fn share(value: f64) -> String {
    format!("{:.1}%", value * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_three_digits() {
        let table = [
            (0, "0"),
            (999, "999"),
            (1000, "1.00k"),
            (9_994, "9.99k"),
            (9_996, "10.0k"),
            (123_456, "123k"),
            (999_499, "999k"),
            (999_500, "1.00M"),
            (u64::MAX, "18.4E"),
        ];
        for (n, text) in table {
            assert_eq!(count(n), text, "{n}");
        }
    }

    #[test]
    fn bytes_are_binary() {
        let table = [
            (0, "0B"),
            (1000, "0.98KiB"),
            (1024, "1.00KiB"),
            (1536 * 1024, "1.50MiB"),
            (u64::MAX, "16.0EiB"),
        ];
        for (n, text) in table {
            assert_eq!(bytes(n), text, "{n}");
        }
    }

    #[test]
    fn durations_have_two_units() {
        let table = [
            (-1.0, "0ms"),
            (0.0004, "0ms"),
            (0.95, "950ms"),
            (0.9999, "1.0s"),
            (4.24, "4.2s"),
            (9.96, "10s"),
            (59.6, "1m"),
            (200.0, "3m20s"),
            (7500.0, "2h5m"),
            (273_600.0, "3d4h"),
            (f64::INFINITY, "11574074074d1h"),
            (f64::NAN, "0s"),
        ];
        for (seconds, text) in table {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn a_narrower_terminal_leaves_out_what_is_to_spare() {
        let columns = [
            words("name"),
            words("zone").spare(1),
            numbers("packets"),
            words("driver").spare(2),
        ];
        let rows = vec![["wan", "untrust", "12", "net_af_xdp"].map(str::to_owned).to_vec()];
        let headings = |width| {
            let text = render(&columns, rows.clone(), width);
            let line = text.lines().next().unwrap_or_default().to_owned();
            line.split_ascii_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(headings(None), "NAME ZONE PACKETS DRIVER");
        assert_eq!(headings(Some(80)), "NAME ZONE PACKETS DRIVER");
        assert_eq!(headings(Some(30)), "NAME ZONE PACKETS");
        assert_eq!(headings(Some(20)), "NAME PACKETS");
        assert_eq!(headings(Some(15)), "NAME PACKETS");
    }

    #[test]
    fn a_narrow_terminal_cuts_only_what_may_be_cut() {
        let columns = [words("name"), cut("note", 6), numbers("packets")];
        let rows = vec![
            vec![
                "lan-out".to_owned(),
                "a long description of it".to_owned(),
                "12".to_owned(),
            ],
            vec!["x".to_owned(), "short".to_owned(), "123456".to_owned()],
        ];
        let wide = render(&columns, rows.clone(), None);
        assert!(wide.contains("a long description of it"), "{wide}");
        let narrow = render(&columns, rows, Some(32));
        assert!(narrow.lines().all(|l| l.chars().count() <= 32), "{narrow}");
        assert!(
            narrow.contains("lan-out") && narrow.contains("123456"),
            "{narrow}"
        );
        assert!(
            narrow.contains('…') && !narrow.contains("description of it"),
            "{narrow}"
        );
        assert_eq!(narrow.lines().count(), 3, "one line a row:\n{narrow}");
    }
}
