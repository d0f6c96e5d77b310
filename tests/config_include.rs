//! `include`: what is merged, what concatenates, and what is refused with both places.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use haechi::config::{self, Checked, Config, Diagnostics};

fn check(files: &[(&str, &str)]) -> Checked {
    let texts: BTreeMap<_, _> = files
        .iter()
        .map(|(path, text)| (path.into(), (*text).to_owned()))
        .collect();
    config::check_files(&texts, Path::new(files[0].0))
}

fn load(files: &[(&str, &str)]) -> Result<Config, Diagnostics> {
    check(files).into_result()
}

fn lines(files: &[(&str, &str)]) -> Vec<String> {
    load(files)
        .unwrap_err()
        .iter()
        .map(config::Diagnostic::one_line)
        .collect()
}

/// A pair's shared half: everything but the node and its devices.
const PAIR: &str = r#"
[[port]]
name = "wan"
zone = "untrust"
peer = "lan"
[[port]]
name = "lan"
zone = "trust"
peer = "wan"
[[rule]]
name = "shared"
action = "drop"
from = "trust"
[conntrack]
max_sessions = 5000
[conntrack.timeouts]
icmp = "1s"
"#;

const NODE: &str = r#"
version = 1
include = ["shared/pair.toml"]
node.mode = "transparent"
[devices]
wan = "vdev:net_null0"
lan = "vdev:net_null1"
[[rule]]
name = "own"
action = "allow"
[conntrack.timeouts]
other = "2s"
"#;

#[test]
fn tables_merge_and_arrays_of_tables_concatenate_included_first() {
    let config = load(&[("etc/node.toml", NODE), ("etc/shared/pair.toml", PAIR)]).unwrap();
    assert_eq!(config.ports[0].device.to_string(), "vdev:net_null0");
    let rules: Vec<_> = config.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(rules, ["shared", "own"]);
    assert_eq!(config.conntrack.max_sessions, 5000);
    assert_eq!(config.conntrack.timeouts.icmp.to_string(), "1s");
    assert_eq!(config.conntrack.timeouts.other.to_string(), "2s");
}

#[test]
fn the_same_leaf_twice_names_both_places() {
    let node = NODE.replace("other = \"2s\"", "other = \"2s\"\nicmp = \"1s\"");
    assert_eq!(
        lines(&[("node.toml", &node), ("shared/pair.toml", PAIR)]),
        [
            "node.toml:13:1: error: `conntrack.timeouts.icmp` is set in two files \
          (set here before: shared/pair.toml:17:1); help: keep one of them"
        ]
    );
    // Lists of plain values are leaves, and so is a table against something else.
    let a = "version = 1\ninclude = [\"b.toml\", \"c.toml\"]\n";
    let b = format!(
        "{PAIR}\n[node]\nmode = \"transparent\"\neal_args = [\"-x\"]\n[devices]\nwan=\"vdev:net_null0\"\nlan=\"vdev:net_null1\""
    );
    let c = "policy = 1\nnode.eal_args = [\"-y\"]";
    let found = lines(&[("a.toml", a), ("b.toml", &b), ("c.toml", c)]);
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("c.toml:2:6: error: `node.eal_args` is set in two files"))
    );
    let d = "policy.reject_rate = \"1/s\"";
    let a = "version = 1\ninclude = [\"b.toml\", \"c.toml\", \"d.toml\"]\n";
    let found = lines(&[("a.toml", a), ("b.toml", &b), ("c.toml", c), ("d.toml", d)]);
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("d.toml:1:1: error: `policy` is set in two files")),
        "{found:?}"
    );
}

#[test]
fn a_file_twice_and_a_circle_are_refused() {
    let twice = "include = [\"b.toml\", \"c.toml\"]\nversion = 1";
    let found = lines(&[
        ("a.toml", twice),
        ("b.toml", "include = [\"./x/../d.toml\"]"),
        ("c.toml", "include = [\"d.toml\"]"),
        ("d.toml", ""),
    ]);
    assert_eq!(
        found.iter().find(|line| line.contains("twice")).unwrap(),
        "c.toml:1:12: error: `d.toml` is included twice (included here before: b.toml:1:12); \
         help: include each file once, from one place"
    );
    let found = lines(&[
        ("a.toml", "include = [\"b.toml\"]\nversion = 1"),
        ("b.toml", "include = [\"a.toml\"]"),
    ]);
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("b.toml:1:12: error: `a.toml` is included in a circle"))
    );
    let found = lines(&[("a.toml", "include = [\"a.toml\"]\nversion = 1")]);
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("a.toml:1:12: error: `a.toml` is included in a circle"))
    );
}

#[test]
fn errors_of_all_files_come_in_one_run_each_with_its_file() {
    let node =
        format!("{NODE}\n[node]\n").replace("node.mode = \"transparent\"", "nodee.mode = \"transparent\"");
    let pair = PAIR.replace("icmp = \"1s\"", "icmp = \"1\"\nbroken = ");
    let found = lines(&[("node.toml", &node), ("shared/pair.toml", &pair)]);
    let starts = |start: &str| found.iter().any(|line| line.starts_with(start));
    assert!(starts("node.toml:4:1: error: unknown key `nodee`"), "{found:#?}");
    assert!(
        starts("shared/pair.toml:17:8: error: `1` has no unit"),
        "{found:#?}"
    );
    assert!(starts("shared/pair.toml:18:"), "{found:#?}");
    let found = lines(&[("node.toml", NODE)]);
    assert!(
        found[0].starts_with("node.toml:3:12: error: cannot read `shared/pair.toml`"),
        "{found:#?}"
    );
    let found = lines(&[("node.toml", "include = \"pair.toml\""), ("pair.toml", PAIR)]);
    assert!(
        found[0].starts_with("node.toml:1:11: error: `include` is an array of strings"),
        "{found:#?}"
    );
    let found = lines(&[("node.toml", "include = [1]")]);
    assert!(
        found[0].starts_with("node.toml:1:12: error: expected a path, found an integer"),
        "{found:#?}"
    );
}

#[test]
fn includes_are_bounded() {
    let mut texts = BTreeMap::new();
    for i in 0..300 {
        texts.insert(
            format!("f{i}.toml").into(),
            format!("include = [\"f{}.toml\"]", i + 1),
        );
    }
    let checked = config::check_files(&texts, Path::new("f0.toml"));
    let found: Vec<_> = checked
        .diagnostics
        .iter()
        .map(config::Diagnostic::one_line)
        .collect();
    assert_eq!(
        found,
        ["f255.toml:1:12: error: more than 256 files; help: put more into each file"]
    );
}

/// On the disk: relative paths are relative to the file that they stand in, and a symbolic link is the file it leads to.
#[test]
fn paths_are_relative_to_their_file() {
    let directory = std::env::temp_dir().join(format!("haechi-include-{}", std::process::id()));
    let _cleanup = Cleanup(directory.clone());
    std::fs::create_dir_all(directory.join("shared")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    write("node.toml", NODE);
    write(
        "shared/pair.toml",
        &format!("node.control_socket = \"run/haechi.sock\"\n{PAIR}"),
    );
    let config = config::load(&directory.join("node.toml")).unwrap();
    assert_eq!(
        config.node.control_socket,
        directory.join("shared/run/haechi.sock")
    );

    std::os::unix::fs::symlink("pair.toml", directory.join("shared/link.toml")).unwrap();
    write(
        "twice.toml",
        &NODE.replace(
            "[\"shared/pair.toml\"]",
            "[\"shared/pair.toml\", \"shared/link.toml\"]",
        ),
    );
    let errors = config::load(&directory.join("twice.toml")).unwrap_err();
    assert!(
        errors
            .errors()
            .any(|e| e.message == "`shared/link.toml` is included twice"),
        "{errors}"
    );

    std::fs::write(
        directory.join("latin1.toml"),
        b"version = 1\nnode.name = \"caf\xe9\"\n",
    )
    .unwrap();
    let errors = config::load(&directory.join("latin1.toml")).unwrap_err();
    assert!(
        errors.to_string().contains("byte 0xe9 in line 2, column 17"),
        "{errors}"
    );
    assert!(config::load(&directory).is_err());
}

struct Cleanup(std::path::PathBuf);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
