//! A file as a whole: syntax, unknown keys, wrong types, and how all of it is shown.

use haechi::config;

use crate::good::{GOOD, findings, one};

#[test]
fn a_file_wrong_in_five_places_has_five_errors() {
    let text = GOOD
        .replace("burst = 32", "burst = 65")
        .replace("peer = \"lan\"", "peer = \"lam\"")
        .replace("peer = \"wan\"", "peer = \"wan\"\nmut = 1500")
        .replace("from = \"trust\"", "from = \"trsut\"")
        .replace("10.0.0.0/8", "10.0.0.1/8");
    assert_eq!(
        findings(&text),
        [
            "fw:5:9: error: `node.burst` is out of range; help: a whole number from 1 to 64",
            "fw:10:8: error: there is no port \"lam\"; help: did you mean `lan`?",
            "fw:16:1: error: unknown key `port.mut`; help: did you mean `mtu`?",
            "fw:23:8: error: there is no zone \"trsut\"; help: did you mean `trust`?",
            "fw:25:11: error: `10.0.0.1/8` has host bits set; \
             help: the prefix is \"10.0.0.0/8\", the single address \"10.0.0.1\"",
        ]
    );
}

#[test]
fn wrong_keys_and_types() {
    one(
        "burst = 32",
        "bursts = 32",
        "fw:5:1: error: unknown key `node.bursts`; help: did you mean `burst`?",
    );
    one(
        "burst = 32",
        "\tburst = '32'",
        "fw:5:10: error: `node.burst`: expected an integer, found a string; help: without",
    );
    one(
        "burst = 32",
        "burst = 3.5",
        "fw:5:9: error: `node.burst`: expected an integer, found a float",
    );
    one(
        "burst = 32",
        "burst = 99999999999999999999",
        "fw:5:9: error: `node.burst` is out of range",
    );
    one("burst = 32", "name = \"ä\"; x = 1", "fw:5:11: error: ");
    one(
        "burst = 32",
        "idle = 'lazy'",
        "fw:5:8: error: `node.idle` cannot be \"lazy\"; help: it is one of: adaptive, poll",
    );
    one(
        "burst = 32",
        "hugepages = 'no'",
        "fw:5:13: error: `node.hugepages`: expected true or false, found a string",
    );
    one(
        "burst = 32",
        "name = 2026-01-01",
        "fw:5:8: error: `node.name`: expected a string, found a date",
    );
    one(
        "burst = 32",
        "eal_args = '-x'",
        "fw:5:12: error: `node.eal_args`: expected an array of strings",
    );
    one(
        "[node]",
        "[[node]]",
        "fw:2:1: error: `node`: expected a table, found an array; help: there is one of it",
    );
    one(
        "[service_sets]",
        "[service_sets]\nx = 'tcp'",
        "fw:19:5: error: `service_sets.x`: expected an array",
    );
    one(
        "action = \"allow\"",
        "action = \"permit\"",
        "fw:26:10: error: `rule.action` cannot be \"permit\"",
    );
    one(
        "action = \"allow\"",
        "",
        "fw:20:1: error: `action` is missing in `rule`; help: add `action = \"allow\"`",
    );
    one(
        "mode = \"transparent\"",
        "",
        "fw:2:1: error: `mode` is missing in `node`",
    );
    one(
        "action = \"allow\"",
        "action = \"allow\"\n[stateles]",
        "fw:27:2: error: unknown key `stateles`",
    );
}

#[test]
fn syntax_errors_come_with_the_others() {
    let found = findings(
        &GOOD
            .replace("burst = 32", "burst = = 2")
            .replace("\"10.0.0.0/8\"", "\"10.0.0.0/33\""),
    );
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("fw:5:9: error: "), "{found:#?}");
    assert!(
        found[1].starts_with("fw:24:11: error: `/33` is not a prefix length from 0 to 32"),
        "{found:#?}"
    );
    one(
        "burst = 32",
        "burst = 32\nburst = 32",
        "fw:6:1: error: `burst` is set twice",
    );
    one(
        "[service_sets]",
        "[node]\n[service_sets]",
        "fw:18:2: error: `node` is set twice",
    );
}

#[test]
fn keys_of_later_versions() {
    one(
        "action = \"allow\"",
        "action = \"allow\"\nhelper = \"ftp\"",
        "fw:27:1: error: `rule.helper` is not supported yet; \
         help: remove the key; a later version has application-level gateways",
    );
}

#[test]
fn the_terminal_form_shows_the_line_and_underlines_the_place() {
    let errors = config::load_text("fw", &GOOD.replace("peer = \"lan\"", "\tpeer = \"wän\"")).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "fw:10:9: error: there is no port \"wän\"\n   \
         |\n10 |  peer = \"wän\"\n   \
         |         ^^^^^\n   \
         = help: did you mean `wan`?\n"
    );
}

#[test]
fn a_file_that_is_not_there_is_one_clear_error() {
    let errors = config::load("/nonexistent/fw.toml".as_ref()).unwrap_err();
    assert_eq!(errors.errors().count(), 1);
    assert!(
        errors
            .to_string()
            .starts_with("/nonexistent/fw.toml: error: cannot read it: No such file"),
        "{errors}"
    );
}
