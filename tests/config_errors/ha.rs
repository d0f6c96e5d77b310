//! `[ha]`: what contradicts itself, and what comes later.

use haechi::config;

use crate::good::{GOOD, findings};

/// A good node of a pair; `[ha]` stands in line 27.
fn pair() -> String {
    format!(
        "{GOOD}[ha]\nnode_id = 1\nkey_file = \"ha.key\"\n\
         link = {{ local = \"169.254.77.1:7700\", peer = \"169.254.77.2:7700\" }}\n"
    )
}

/// What is found with these lines at the end of it, from line 31 on.
fn with(lines: &str) -> Vec<String> {
    findings(&format!("{}{lines}\n", pair()))
}

/// With these lines there is exactly one finding, beginning like this, with a hint.
#[track_caller]
fn one(lines: &str, expected: &str) {
    let found = with(lines);
    assert!(
        found.len() == 1 && found[0].starts_with(expected) && found[0].contains("; help: "),
        "{lines}\nexpected {expected}\nfound {found:#?}"
    );
}

/// The same with a line of the pair replaced.
#[track_caller]
fn one_instead(line: &str, by: &str, expected: &str) {
    let text = pair();
    assert_eq!(text.matches(line).count(), 1, "{line}");
    let found = findings(&text.replace(line, by));
    assert!(
        found.len() == 1 && found[0].starts_with(expected) && found[0].contains("; help: "),
        "{by}\nexpected {expected}\nfound {found:#?}"
    );
}

#[test]
fn a_good_pair_is_good_and_has_its_defaults() {
    assert_eq!(findings(&pair()), [""; 0]);
    let ha = config::load_text("fw", &pair()).unwrap().ha.unwrap();
    let said = [
        ha.preempt_delay.to_string(),
        ha.sync_rate.to_string(),
        ha.heartbeat.to_string(),
        ha.alone_after.to_string(),
        ha.adopt_time.to_string(),
    ];
    assert_eq!(said, ["30s", "200000/s", "50ms", "5s", "10s"]);
    assert_eq!((ha.priority, ha.dead_after, ha.adopt_kib), (100, 3, 65_536));
    assert_eq!((ha.preempt, ha.witness, ha.second_link), (false, None, None));
    assert_eq!(ha.silence(), haechi::base::Nanos::from_millis(150));
    assert_eq!(config::load_text("fw", GOOD).unwrap().ha, None);
}

#[test]
fn what_a_pair_needs() {
    let found = findings(&format!("{GOOD}[ha]\n"));
    let missing = ["node_id", "link", "key_file"];
    assert_eq!(found.len(), 3, "{found:#?}");
    for key in missing {
        let message = format!("fw:27:1: error: `{key}` is missing in `ha`; help: add `{key} = ");
        assert!(
            found.iter().any(|line| line.starts_with(&message)),
            "{key}: {found:#?}"
        );
    }
    one_instead(
        ", peer = \"169.254.77.2:7700\"",
        "",
        "fw:30:8: error: `peer` is missing in `ha.link`; help: add `peer = \"169.254.77.2:7700\"`",
    );
    one_instead(
        "\"ha.key\"",
        "\"keys/\"",
        "fw:29:12: error: `ha.key_file` is not the path of a file",
    );
}

#[test]
fn numbers_and_times_that_make_no_pair() {
    for id in ["0", "3", "-1"] {
        one_instead(
            "node_id = 1",
            &format!("node_id = {id}"),
            "fw:28:11: error: `ha.node_id` is out of range; help: a whole number from 1 to 2",
        );
    }
    one(
        "heartbeat = \"0s\"",
        "fw:31:13: error: a duration must be longer than nothing",
    );
    one(
        "dead_after = 0",
        "fw:31:14: error: `ha.dead_after` is out of range",
    );
    one(
        "dead_after = 1",
        "fw:31:14: warning: with `ha.dead_after = 1` one lost heartbeat is a dead peer",
    );
    one("priority = 256", "fw:31:12: error: `ha.priority` is out of range");
    one("adopt_kib = 0", "fw:31:13: error: `ha.adopt_kib` is out of range");
    one(
        "sync_rate = \"0/s\"",
        "fw:31:13: error: `ha.sync_rate` is 0: the peer would never get the sessions",
    );
    one(
        "heartbeat = \"2s\"",
        "fw:31:13: error: `ha.alone_after` (5s) is not longer than it takes to miss a peer (2s x 3)",
    );
    one(
        "alone_after = \"150ms\"",
        "fw:31:15: error: `ha.alone_after` (150ms) is not longer than it takes to miss a peer (50ms x 3)",
    );
    assert_eq!(with("alone_after = \"151ms\""), [""; 0]);
    one(
        "preempt_delay = \"1m\"",
        "fw:31:17: warning: without `preempt = true` nothing waits for `ha.preempt_delay`",
    );
    assert_eq!(with("preempt_delay = \"1m\"\npreempt = true"), [""; 0]);
}

#[test]
fn links_that_join_nothing() {
    let cases = [
        (
            "169.254.77.1:7700",
            "fw:30:46: error: both ends of `ha.link` are 169.254.77.1:7700",
        ),
        (
            "[fd00::2]:7700",
            "fw:30:46: error: one end of `ha.link` is IPv4, the other one IPv6",
        ),
        (
            "169.254.77.2:0",
            "fw:30:46: error: `169.254.77.2:0` is no end of a link: port 0 is none",
        ),
        (
            "0.0.0.0:7700",
            "fw:30:46: error: `0.0.0.0:7700` is no end of a link: this is every address",
        ),
        (
            "224.0.0.18:7700",
            "fw:30:46: error: `224.0.0.18:7700` is no end of a link: this is the address of many",
        ),
        (
            "169.254.77.2",
            "fw:30:46: error: `169.254.77.2` has no port; help: write \"169.254.77.2:7700\"",
        ),
        (
            "fd00::2",
            "fw:30:46: error: `fd00::2` has no port; help: write \"[fd00::2]:7700\"",
        ),
        (
            "fw-b:7700",
            "fw:30:46: error: `fw-b:7700` is not an address with a port",
        ),
    ];
    for (peer, expected) in cases {
        one_instead("169.254.77.2:7700", peer, expected);
    }
    let second =
        |local: &str, peer: &str| format!("second_link = {{ local = \"{local}\", peer = \"{peer}\" }}");
    assert_eq!(with(&second("169.254.78.1:7700", "169.254.78.2:7700")), [""; 0]);
    one(
        &second("169.254.77.1:7700", "169.254.78.2:7700"),
        "fw:31:25: error: `ha.second_link` and `ha.link` have the same `local` (the link is here: fw:30:18)",
    );
    one(
        &second("169.254.78.1:7700", "169.254.77.2:7700"),
        "fw:31:53: error: `ha.second_link` and `ha.link` have the same `peer`",
    );
    one(
        &second("169.254.77.1:7701", "169.254.77.2:7701"),
        "fw:31:25: warning: both links go by 169.254.77.1: what cuts one of them cuts the other one too",
    );
}

#[test]
fn a_witness_is_a_third_machine() {
    assert_eq!(with("witness = \"198.51.100.254\""), [""; 0]);
    assert_eq!(with("witness = \"2001:db8::1\""), [""; 0]);
    one(
        "witness = \"169.254.77.2\"",
        "fw:31:11: error: the witness 169.254.77.2 is the peer's address",
    );
    one(
        "witness = \"169.254.77.1\"",
        "fw:31:11: error: the witness 169.254.77.1 is this node's own address",
    );
    for address in ["router", "0.0.0.0", "ff02::1", "192.0.2.0/24"] {
        one(
            &format!("witness = \"{address}\""),
            &format!("fw:31:11: error: `{address}` is not the address of a witness"),
        );
    }
}

#[test]
fn tracked_ports_exist() {
    assert_eq!(with("track = [\"wan\", \"lan\"]"), [""; 0]);
    one(
        "track = [\"wam\"]",
        "fw:31:10: error: there is no port \"wam\"; help: did you mean `wan`?",
    );
    one(
        "track = [\"trust\"]",
        "fw:31:10: error: there is no port \"trust\"; help: this is a zone",
    );
    one(
        "track = [\"wan\", \"wan\"]",
        "fw:31:17: error: port \"wan\" is tracked twice",
    );
}

/// What the runtime does not do yet is refused, and no editor and no hint offers it.
#[test]
fn what_comes_later_is_refused_by_name() {
    for (key, value) in [
        ("data_heartbeats", "true"),
        (
            "virtual_addresses",
            "[{ port = \"wan\", address = \"198.51.100.1/24\" }]",
        ),
    ] {
        one(
            &format!("{key} = {value}"),
            &format!("fw:31:1: error: `ha.{key}` is not supported yet"),
        );
        assert!(!config::schema_json().contains(key), "{key} is in the schema");
    }
    one(
        "mode = \"passive\"",
        "fw:31:8: error: `ha.mode` cannot be \"passive\"",
    );
    // Refused, and read: what is wrong with it is said as well.
    assert_eq!(with("data_heartbeats = 7").len(), 2);
    let found = with("data_heartbeat = true");
    assert!(
        found[0].contains("unknown key `ha.data_heartbeat`") && !found[0].contains("did you mean"),
        "{found:?}"
    );
}

#[test]
fn a_rule_that_defers_wants_a_peer() {
    let defers = |text: &str| {
        let rule = "name = \"out\"\n";
        assert_eq!(text.matches(rule).count(), 1);
        findings(&text.replace(rule, &format!("{rule}defer = true\n")))
    };
    assert_eq!(defers(&pair()), [""; 0]);
    let found = defers(GOOD);
    let expected = "warning: rule \"out\" waits for no peer: there is no `[ha]`; help: remove `defer`";
    assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
}

/// Both nodes forward; keys that a mode does nothing with are warned of.
#[test]
fn active_active_and_what_belongs_to_it() {
    let whole = "mode = \"active-active\"\nredirect_rate = \"100000/s\"\ndefer_timeout = \"5ms\"\ndefer_fail = \"closed\"";
    assert_eq!(with(whole), [""; 0]);
    one(
        "redirect_rate = \"1/s\"",
        "fw:31:17: warning: `ha.redirect_rate` has no effect: one node forwards at a time",
    );
    let found = with("mode = \"active-active\"\npreempt = true\npreempt_delay = \"1s\"");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("warning: `ha.preempt` has no effect: both nodes forward"));
    one(
        "defer_fail = \"ajar\"",
        "fw:31:14: error: `ha.defer_fail` cannot be \"ajar\"",
    );
    one(
        "mode = \"active-active\"
redirect_rate = 7",
        "fw:32:17: error: `ha.redirect_rate`: expected a string",
    );
}
