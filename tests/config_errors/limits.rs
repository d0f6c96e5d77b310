//! Limits of rules, and shrunk timeouts.

use crate::good::one;

#[test]
fn limits_and_pressure() {
    let rule = |line: &str, expected: &str| {
        one(
            "action = \"allow\"",
            &format!("action = \"allow\"\n{line}"),
            expected,
        );
    };
    rule(
        "max_sessions = 0",
        "fw:27:16: error: `rule.max_sessions` is out of range",
    );
    rule(
        "max_sessions_per_source = \"7\"",
        "fw:27:27: error: `rule.max_sessions_per_source`: expected an integer",
    );
    rule(
        "new_sessions_per_source = \"0/s\"",
        "fw:27:27: error: `rule.new_sessions_per_source` is 0: nobody could open a session",
    );
    rule(
        "new_sessions_per_source = \"5/m\"",
        "fw:27:27: error: a rate is per second: `/s`, not `/m`",
    );
    for key in [
        "max_sessions = 1",
        "max_sessions_per_source = 1",
        "new_sessions_per_source = \"1/s\"",
        "pickup = true",
        "reset_on_timeout = true",
        "tcp_strict = false",
        "syn_protection = \"auto\"",
        "syn_options = { mss = 1400 }",
    ] {
        let name = key.split(' ').next().unwrap_or_default();
        one(
            "action = \"allow\"",
            &format!("action = \"drop\"\n{key}"),
            &format!(
                "fw:27:{}: warning: rule \"out\" makes no sessions: `{name}` has no effect",
                name.len() + 4
            ),
        );
    }
    for key in [
        "pickup = true",
        "reset_on_timeout = true",
        "tcp_strict = false",
        "syn_protection = \"always\"",
        "syn_options = { mss = 1400 }",
    ] {
        let name = key.split(' ').next().unwrap_or_default();
        let place = name.len() + 4;
        one(
            "service = [\"@web\"]",
            &format!("service = [\"udp\", \"icmp\"]\n{key}"),
            &format!("fw:26:{place}: warning: rule \"out\" allows no TCP: `{name}` has no effect"),
        );
    }
    rule(
        "syn_options = { mss = 1400 }",
        "fw:27:15: warning: rule \"out\" answers no SYNs itself (`syn_protection` is \"off\"): `syn_options` has no effect",
    );
    rule(
        "max_sessions = 5\nmax_sessions_per_source = 6",
        "fw:28:27: warning: rule \"out\" has at most 5 sessions: `max_sessions_per_source` (6) is never reached",
    );
    let conntrack = |lines: &str, expected: &str| {
        one(
            "[address_sets]",
            &format!("[conntrack]\n{lines}\n[address_sets]"),
            expected,
        );
    };
    conntrack(
        "adaptive_end = \"60%\"",
        "fw:17:16: error: `conntrack.adaptive_end` (60%) is not above `adaptive_start` (60%)",
    );
    conntrack(
        "adaptive_start = \"120%\"",
        "fw:17:18: error: `conntrack.adaptive_end` (120%) is not above `adaptive_start` (120%)",
    );
    conntrack(
        "adaptive_start = 60",
        "fw:17:18: error: `conntrack.adaptive_start`: expected a string, found an integer; help: in quotes: \"60\"",
    );
    conntrack(
        "syn_cookie_start = \"101%\"",
        "fw:17:20: warning: `syn_cookie_start` (101%) is more than the session table: SYN cookies never start",
    );
    conntrack("adaptive_end = \"1001%\"", "fw:17:16: error: more than 1000%");
}
