//! Tables for a terminal, and numbers for people.

use std::fmt::Write as _;
use std::io::IsTerminal;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A column: its heading, on which side it is aligned, and how it may give way when the terminal is narrow.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    heading: &'static str,
    right: bool,
    cut: Cut,
    /// The higher, the earlier it is left out; 0: never.
    spare: u8,
    /// It is left out when even the least of the others leaves no room for it, not before they are cut.
    dear: bool,
}

/// How cells may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Never,
    /// At their ends, down to so many characters.
    End(u16),
    /// In the middle: names that begin alike stay apart.
    Middle(u16),
    /// An address in its middle; its port stays.
    Address(u16),
}

impl Column {
    /// One that is left out when the terminal is too narrow for all: the highest `order` first, those of one together.
    #[must_use]
    pub const fn spare(self, order: u8) -> Self {
        Self { spare: order, ..self }
    }

    /// One that is left out when nothing else helps.
    #[must_use]
    pub const fn dear(self) -> Self {
        Self {
            spare: 1,
            dear: true,
            ..self
        }
    }

    /// Characters that it must have, of the `need` that its longest cell has: to be read with ease, or (`tight`) at all.
    fn least(self, need: u16, tight: bool) -> u16 {
        let keep = match self.cut {
            Cut::Never => return need,
            Cut::End(keep) | Cut::Middle(keep) | Cut::Address(keep) if !tight => keep,
            Cut::End(keep) | Cut::Middle(keep) => keep.min(SHORTEST),
            Cut::Address(keep) => keep.min(SHORTEST_ADDRESS),
        };
        need.min(keep)
    }

    /// A cell in at most `width` characters.
    fn fit(self, cell: &str, width: u16) -> String {
        let width = usize::from(width);
        if cell.chars().count() <= width {
            return cell.to_owned();
        }
        match self.cut {
            Cut::Never => cell.to_owned(),
            Cut::End(_) => cell.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
            Cut::Middle(_) => cut_middle(cell, width),
            Cut::Address(_) => cut_address(cell, width),
        }
    }
}

/// Characters to which what may be cut is cut before the table is wider than the terminal.
const SHORTEST: u16 = 8;
/// An address's first and last group and its port.
const SHORTEST_ADDRESS: u16 = 13;

const fn column(heading: &'static str, right: bool, cut: Cut) -> Column {
    Column {
        heading,
        right,
        cut,
        spare: 0,
        dear: false,
    }
}

/// A column of words, never cut.
#[must_use]
pub const fn words(heading: &'static str) -> Column {
    column(heading, false, Cut::Never)
}

/// A column of words, cut down to `keep` characters when the terminal is narrow.
#[must_use]
pub const fn cut(heading: &'static str, keep: u16) -> Column {
    column(heading, false, Cut::End(keep))
}

/// A column of names that have to be told apart: like [`cut`], but in the middle.
#[must_use]
pub const fn names(heading: &'static str, keep: u16) -> Column {
    column(heading, false, Cut::Middle(keep))
}

/// A column of addresses with or without a port (`10.0.0.5:80`, `[2001:db8::1]:80`), cut in the middle of the address.
#[must_use]
pub const fn addresses(heading: &'static str, keep: u16) -> Column {
    column(heading, false, Cut::Address(keep))
}

/// A column of numbers, never cut.
#[must_use]
pub const fn numbers(heading: &'static str) -> Column {
    column(heading, true, Cut::Never)
}

/// The width to print for: the terminal's; where the output is none, `COLUMNS` of the environment; `None`: nobody says, so
/// that nothing is cut.
#[must_use]
pub fn terminal_width() -> Option<u16> {
    if !std::io::stdout().is_terminal() {
        let columns = std::env::var("COLUMNS").ok()?;
        return columns.parse().ok().filter(|columns| *columns > 0);
    }
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 => Some(size.ws_col),
        _ => Some(80),
    }
}

/// Blanks between columns.
const GAP: u16 = 2;

/// Lines of text, one a row, the headings first. In `width` characters columns that are to spare are left out, and those
/// that may be cut are, with an ellipsis, as far as it takes.
#[must_use]
pub fn render(columns: &[Column], mut rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    for cell in rows.iter_mut().flatten() {
        // A description of two lines.
        if cell.contains(char::is_control) {
            *cell = cell.replace(char::is_control, " ");
        }
    }
    let needs: Vec<u16> = (0..columns.len())
        .map(|place| need(columns, &rows, place))
        .collect();
    let shown = match width {
        Some(width) => fitting(columns, &needs, width),
        None => needs.iter().copied().enumerate().collect(),
    };
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .force_no_tty()
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(
            shown
                .iter()
                .map(|(place, width)| cut("", 0).fit(&columns[*place].heading.to_uppercase(), *width)),
        );
    table.add_rows(rows.into_iter().map(|row| {
        let cell = |(place, width): &(usize, u16)| {
            let cell = row.get(*place).map(String::as_str);
            columns[*place].fit(cell.unwrap_or_default(), *width)
        };
        shown.iter().map(cell).collect::<Vec<_>>()
    }));
    for (to, (from, _)) in shown.iter().enumerate() {
        let Some(column) = table.column_mut(to) else {
            continue;
        };
        column.set_padding((0, GAP));
        if columns[*from].right {
            column.set_cell_alignment(CellAlignment::Right);
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
    u16::try_from(widest).unwrap_or(u16::MAX)
}

/// The places of the columns that there is room for, each with its width.
fn fitting(columns: &[Column], needs: &[u16], width: u16) -> Vec<(usize, u16)> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    // No gap follows the last one.
    let room = u64::from(width) + u64::from(GAP);
    let sum = |shown: &[usize], cell: &dyn Fn(usize) -> u16| -> u64 {
        shown
            .iter()
            .map(|place| u64::from(cell(*place)) + u64::from(GAP))
            .sum()
    };
    let least = |place: usize, tight| columns[place].least(needs[place], tight);
    for tight in [false, true] {
        while sum(&shown, &|place| least(place, tight)) > room {
            let spare = shown.iter().map(|place| columns[*place]);
            let spare = spare.filter(|column| column.spare > 0 && (tight || !column.dear));
            let Some(first) = spare.map(|column| column.spare).max() else {
                break;
            };
            shown.retain(|place| columns[*place].spare != first);
        }
    }
    let tight = sum(&shown, &|place| least(place, false)) > room;
    // What is left goes to the narrowest first, so that only the longest are cut, and all of them to one width.
    let widths = |level: u16| move |place: usize| least(place, tight).max(needs[place].min(level));
    let (mut level, mut too_much) = (0, width.saturating_add(1));
    while level + 1 < too_much {
        let middle = level + (too_much - level) / 2;
        match sum(&shown, &widths(middle)) <= room {
            true => level = middle,
            false => too_much = middle,
        }
    }
    shown
        .into_iter()
        .map(|place| (place, widths(level)(place)))
        .collect()
}

/// `a-rather-long-name` as `a-rat…-name`.
fn cut_middle(text: &str, width: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    let kept = width.saturating_sub(1);
    let (head, tail) = (kept.div_ceil(2), letters.len() - kept / 2);
    let (head, tail) = (&letters[..head], &letters[tail..]);
    head.iter().chain(&['…']).chain(tail).collect()
}

/// `[2001:db8:1:2:3:4:5:6]:443` as `[2001:db8:…:6]:443`: whole groups where the first and the last of them have room.
fn cut_address(text: &str, width: usize) -> String {
    let (open, rest) = match text.strip_prefix('[') {
        Some(rest) => ("[", rest),
        None => ("", text),
    };
    // What follows the address: of an IPv6 one without brackets nothing does.
    let port = match (rest.find(']'), rest.rfind(':')) {
        (Some(bracket), _) => bracket,
        (None, Some(colon)) if rest.contains('.') => colon,
        _ => rest.len(),
    };
    let (address, port) = rest.split_at(port);
    let Some(room) = width
        .checked_sub(open.len() + port.len())
        .filter(|room| *room >= 3)
    else {
        return cut_middle(text, width);
    };
    let mark = if address.contains(':') { ':' } else { '.' };
    let groups: Vec<&str> = address.split(mark).collect();
    let shortened = |head: usize, tail: usize| {
        let (head, tail) = (&groups[..head], &groups[groups.len() - tail..]);
        let mark = mark.to_string();
        format!("{}{mark}…{mark}{}", head.join(&mark), tail.join(&mark))
    };
    let fits = |head: usize, tail: usize| {
        head + tail < groups.len() && shortened(head, tail).chars().count() <= room
    };
    let (mut head, mut tail) = (1, 1);
    let address = if fits(head, tail) {
        while fits(head, tail + 1) || fits(head + 1, tail) {
            // The first groups tell networks apart, the last ones hosts.
            if head <= tail && fits(head + 1, tail) || !fits(head, tail + 1) {
                head += 1;
            } else {
                tail += 1;
            }
        }
        shortened(head, tail)
    } else {
        cut_middle(address, room)
    };
    format!("{open}{address}{port}")
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

/// `1 rule`, `2 rules`.
#[must_use]
pub fn counted(n: u64, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
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

    #[test]
    fn what_is_cut_shares_what_there_is() {
        let columns = [
            names("name", 20),
            addresses("end", 20),
            cut("note", 20),
            words("mode").dear(),
        ];
        let row = [
            "a-name-of-thirty-two-characters-",
            "[2001:db8:aaaa:bbbb::9]:443",
            "short",
            "on",
        ];
        let line = |width| {
            let text = render(&columns, vec![row.map(str::to_owned).to_vec()], Some(width));
            text.lines().nth(1).unwrap_or_default().to_owned()
        };
        assert_eq!(
            line(80),
            "a-name-of-thirty-two-characters-  [2001:db8:aaaa:bbbb::9]:443  short  on"
        );
        assert_eq!(
            line(70),
            "a-name-of-thir…o-characters-  [2001:db8:aaaa:bbbb::9]:443  short  on"
        );
        assert_eq!(line(60), "a-name-of-t…haracters-  [2001:db8:…::9]:443  short  on");
        assert_eq!(line(40), "a-name…ters-  [200…::9]:443  short  on");
        assert_eq!(line(36), "a-na…rs-  [200…::9]:443  short  on");
        assert_eq!(line(33), "a-nam…ters-  [200…::9]:443  short");
    }

    #[test]
    fn an_address_keeps_its_ends_and_its_port() {
        for (address, width, short) in [
            ("10.0.0.5:1234", 13, "10.0.0.5:1234"),
            ("255.255.255.255:65535", 20, "255.255.….255:65535"),
            ("255.255.255.255:65535", 13, "255…255:65535"),
            ("255.255.255.255", 13, "255.255.….255"),
            ("[2001:db8:1:2:3:4:5:6]:443", 24, "[2001:db8:1:…:4:5:6]:443"),
            ("[2001:db8:1:2:3:4:5:6]:443", 18, "[2001:db8:…:6]:443"),
            ("2001:db8:1:2:3:4:5:6", 12, "2001:db8:…:6"),
            ("[2001:db8::ffff:1]:65535", 17, "[2001:…:1]:65535"),
            ("[2001:db8::ffff:eeee]:65535", 13, "[20…ee]:65535"),
            ("2001:db8::ffff:eeee", 5, "20…ee"),
            ("[2001:db8::]:65535", 3, "[…5"),
        ] {
            assert_eq!(
                addresses("", 0).fit(address, width),
                short,
                "{address} in {width}"
            );
        }
    }
}
