//! Logs of sessions and alerts.

use std::collections::BTreeMap;

use haechi::config;

use crate::good::{GOOD, findings, one};

#[test]
fn logs_have_files_of_their_own_and_rules_log_what_they_can() {
    let action = "action = \"allow\"";
    let files = "[log]\nsessions = \"/s\"\nalerts = \"/a\"";
    let rule =
        |action: &str, log: &str, files: &str| format!("action = \"{action}\"\nlog = \"{log}\"\n{files}");
    for (by, expected) in [
        (
            rule("allow", "end", ""),
            "fw:27:7: error: rule \"out\" logs sessions, and there is no file for them",
        ),
        (
            rule("drop", "alert", "[log]\nsessions = \"/s\""),
            "fw:27:7: error: rule \"out\" logs alerts, and there is no file",
        ),
        (
            rule("allow", "alert", files),
            "fw:27:7: error: rule \"out\" allows, and alerts are for what a rule drops",
        ),
        (
            rule("drop", "start", files),
            "fw:27:7: error: rule \"out\" makes no sessions that could be logged",
        ),
        (
            rule("reject", "both", files),
            "fw:27:7: error: rule \"out\" makes no sessions that could be logged",
        ),
        (
            rule("allow", "all", files),
            "fw:27:7: error: `rule.log` cannot be \"all\"",
        ),
        (
            rule("allow", "none", "[log]\nalerts = \"\""),
            "fw:29:10: error: `log.alerts` is not the path of a file",
        ),
        (
            rule("allow", "none", "[log]\nalerts = \"/a/\""),
            "fw:29:10: error: `log.alerts` is not the path of a file",
        ),
        (
            rule("allow", "none", "[log]\nsessions = \"/a\"\nalerts = \"/a\""),
            "fw:30:10: error: `log.alerts` is the file of `log.sessions`",
        ),
    ] {
        one(action, &by, expected);
    }
    for (action_word, log) in [
        ("allow", "start"),
        ("allow", "both"),
        ("drop", "alert"),
        ("reject", "alert"),
        ("drop", "none"),
    ] {
        let text = GOOD.replacen(action, &rule(action_word, log, files), 1);
        assert_eq!(findings(&text), [""; 0], "{action_word} {log}");
    }
}

#[test]
fn a_log_stands_beside_its_file() {
    let files = BTreeMap::from([(
        "/etc/haechi/fw".into(),
        format!("{GOOD}[log]\nsessions = \"log/s\"\nalerts = \"/a\"\n"),
    )]);
    let config = config::check_files(&files, "/etc/haechi/fw".as_ref())
        .config
        .unwrap();
    assert_eq!(
        config.log.sessions.unwrap(),
        std::path::Path::new("/etc/haechi/log/s")
    );
    assert_eq!(config.log.alerts.unwrap(), std::path::Path::new("/a"));
}
