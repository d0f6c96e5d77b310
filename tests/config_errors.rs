//! What is wrong with a configuration: every error in one run, each with its place and a hint.

use haechi::config;

#[test]
fn a_file_wrong_in_five_places_has_five_errors() {
    let text = "version = 1
[node]
mode = \"transparent\"
burst = 65
[[port]]
name = \"wan\"
device = \"vdev:net_null0\"
zone = \"untrust\"
peer = \"lam\"
[[port]]
name = \"lan\"
device = \"vdev:net_null1\"
zone = \"trust\"
peer = \"wan\"
mut = 1500
[[rule]]
name = \"out\"
from = \"trsut\"
source = [\"10.0.0.1/8\"]
action = \"allow\"
";
    let found = config::load_text("fw.toml", text).unwrap_err();
    let lines: Vec<String> = found.iter().map(config::Diagnostic::one_line).collect();
    assert_eq!(
        lines,
        [
            "fw.toml:4:9: error: `node.burst` is out of range; help: a whole number from 1 to 64",
            "fw.toml:9:8: error: there is no port \"lam\"; help: did you mean `lan`?",
            "fw.toml:15:1: error: unknown key `port.mut`; help: did you mean `mtu`?",
            "fw.toml:18:8: error: there is no zone \"trsut\"; help: did you mean `trust`?",
            "fw.toml:19:11: error: `10.0.0.1/8` has host bits set; \
             help: the prefix is \"10.0.0.0/8\", the single address \"10.0.0.1\"",
        ]
    );
}
