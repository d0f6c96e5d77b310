//! A good file, and what is found when a line of it is another one.

use std::collections::BTreeMap;

use haechi::config::{self, Diagnostic};

/// A good file of which each case replaces a line.
pub(crate) const GOOD: &str = r#"version = 1
[node]
mode = "transparent"
workers = "1"
burst = 32
[[port]]
name = "wan"
device = "vdev:net_null0"
zone = "untrust"
peer = "lan"
[[port]]
name = "lan"
device = "vdev:net_null1"
zone = "trust"
peer = "wan"
[address_sets]
servers = ["10.0.0.0/24", "2001:db8::/64"]
[service_sets]
web = ["tcp/80", "tcp/443"]
[[rule]]
name = "out"
from = "trust"
to = "untrust"
source = ["10.0.0.0/8"]
service = ["@web"]
action = "allow"
"#;

pub(crate) fn findings(text: &str) -> Vec<String> {
    let files = BTreeMap::from([("fw".into(), text.to_owned())]);
    config::check_files(&files, "fw".as_ref())
        .diagnostics
        .iter()
        .map(Diagnostic::one_line)
        .collect()
}

/// With `line` replaced by `by` there is exactly one finding, at this place and beginning like this.
pub(crate) fn one(line: &str, by: &str, expected: &str) {
    assert_eq!(GOOD.matches(&format!("\n{line}\n")).count(), 1, "{line}");
    let found = findings(&GOOD.replacen(&format!("\n{line}\n"), &format!("\n{by}\n"), 1));
    assert!(
        found.len() == 1 && found[0].starts_with(expected),
        "{by}\nexpected {expected}\nfound {found:#?}"
    );
    assert!(found[0].contains("; help: "), "{found:?}");
}

#[test]
fn the_good_file_is_good() {
    assert_eq!(findings(GOOD), [""; 0]);
}
