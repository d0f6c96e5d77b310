//! Rules and sets: values, references, and what can never match.

use haechi::config;

use crate::good::{GOOD, findings, one};

#[test]
fn sets() {
    one(
        "servers = [\"10.0.0.0/24\", \"2001:db8::/64\"]",
        "servers = []",
        "fw:17:11: error: address set \"servers\" is empty",
    );
    one(
        "servers = [\"10.0.0.0/24\", \"2001:db8::/64\"]",
        "x = [\"any\"]",
        "fw:17:6: error: \"any\" in address set \"x\"",
    );
    one(
        "servers = [\"10.0.0.0/24\", \"2001:db8::/64\"]",
        "a = [\"@b\"]\nb = [\"@c\", \"::1\"]\nc = [\"@a\"]",
        "fw:17:1: error: address set \"a\" contains itself: @a > @b > @c > @a",
    );
    one(
        "web = [\"tcp/80\", \"tcp/443\"]",
        "web = [\"@web\"]",
        "fw:19:1: error: service set \"web\" contains itself",
    );
    one(
        "web = [\"tcp/80\", \"tcp/443\"]",
        "web = [\"@servers\"]",
        "fw:19:8: error: there is no service set \"servers\"",
    );
    one(
        "service = [\"@web\"]",
        "service = [\"@wbe\"]",
        "fw:25:12: error: there is no service set \"wbe\"; help: did you mean `web`?",
    );
    one(
        "web = [\"tcp/80\", \"tcp/443\"]",
        "web = [\"tcp/80\"]\n'@x' = [\"tcp\"]",
        "fw:20:1: error: the name of a service set cannot start",
    );
    // Each member of two sets that name each other's members, without a circle.
    one(
        "servers = [\"10.0.0.0/24\", \"2001:db8::/64\"]",
        "a = [\"@b\", \"@c\"]\nb = [\"@c\"]\nc = [\"::ffff:1.2.3.4\"]",
        "fw:19:6: error: `::ffff:1.2.3.4` is an IPv4-mapped address",
    );
}

#[test]
fn values_of_rules() {
    let service = "service = [\"@web\"]";
    for (member, message) in [
        ("tcp/65536", "`65536` is not a port from 0 to 65535"),
        (
            "tcp/90-80",
            "the range `90-80` is reversed; help: write \"80-90\"",
        ),
        ("tpc/80", "`tpc` is not a service; help: did you mean `tcp`?"),
        (
            "icmp/echo-requst",
            "`echo-requst` is neither the name nor the number of a type; help: did you mean `echo-request`?",
        ),
        (
            "icmpv6/256",
            "`256` is neither the name nor the number of a type; help: a number from 0 to 255",
        ),
        ("proto/256", "`256` is not an IP protocol number from 0 to 255"),
        ("proto", "`proto` needs a number"),
        ("@", "`@` needs the name of a set"),
    ] {
        one(
            service,
            &format!("service = [\"{member}\"]"),
            &format!("fw:25:12: error: {message}"),
        );
    }
    let source = "source = [\"10.0.0.0/8\"]";
    one(
        source,
        "source = [\"10.0.0\"]",
        "fw:24:11: error: `10.0.0` is not an IPv4 or IPv6 address",
    );
    one(
        source,
        "source = [\"2001:db8::1/64\"]",
        "fw:24:11: error: `2001:db8::1/64` has host bits set; help: the prefix is \"2001:db8::/64\"",
    );
    one(
        source,
        "source = [\"@server\"]",
        "fw:24:11: error: there is no address set \"server\"; help: did you mean `servers`?",
    );
    one(
        source,
        "source = []",
        "fw:24:10: error: `rule.source` is empty and would match nothing",
    );
    one(
        source,
        "source = [\"any\", \"10.0.0.0/8\"]",
        "fw:24:11: error: `rule.source` has \"any\" beside other members",
    );
    one(
        "to = \"untrust\"",
        "to = \"wan\"",
        "fw:23:6: error: there is no zone \"wan\"; help: this is a port",
    );
    one(
        "action = \"allow\"",
        "action = \"allow\"\ntimeouts = { udp = \"1s\" }",
        "fw:27:14: error: unknown key `rule.timeouts.udp`",
    );
    for (span, message) in [
        ("30", "`30` has no unit; help: write `30s` for seconds"),
        (
            "5y",
            "`y` is not a unit of time; help: durations are written like",
        ),
        ("2 hours", "a duration has no blanks in it; help: write `2h`"),
        (" 2h 4 min ", "a duration has no blanks in it; help: write `2h4m`"),
        (
            "1 week",
            "a duration has no blanks in it; help: durations are written like",
        ),
        (
            "4m 2h",
            "a duration has no blanks in it; help: durations are written like",
        ),
        ("90seconds", "`seconds` is not a unit of time; help: write `90s`"),
        ("2H", "`H` is not a unit of time; help: write `2h`"),
        ("0s", "a duration must be longer than nothing"),
        ("1s1h", "units go from the largest to the smallest"),
        ("300d", "longer than 200 days"),
    ] {
        let line = format!("action = \"allow\"\ntimeouts = {{ icmp = \"{span}\" }}");
        one(
            "action = \"allow\"",
            &line,
            &format!("fw:27:21: error: {message}"),
        );
    }
    for (rate, message) in [
        ("100", "a rate is a number, a slash"),
        ("1/m", "a rate is per second"),
        ("x/s", "`x` is not a whole"),
    ] {
        one(
            "burst = 32",
            &format!("[policy]\nreject_rate = \"{rate}\""),
            &format!("fw:6:15: error: {message}"),
        );
    }
}

#[test]
fn rules_that_cannot_match() {
    one(
        "source = [\"10.0.0.0/8\"]",
        "source = [\"10.0.0.0/8\"]\ndestination = [\"::/0\"]",
        "fw:25:15: error: this rule can never match: the sources are IPv4 and the destinations IPv6",
    );
    one(
        "service = [\"@web\"]",
        "service = [\"icmpv6\"]",
        "fw:25:11: error: this rule can never match: the source addresses are IPv4, the services are not",
    );
    one(
        "service = [\"@web\"]",
        "service = [\"@web\", \"icmp\"]\nsource_ports = [\"1-9\"]",
        "fw:26:16: error: rule \"out\" asks for source ports of services that have none",
    );
    one(
        "service = [\"@web\"]",
        "source_ports = [\"1-9\"]",
        "fw:25:16: error: rule \"out\" asks for source ports",
    );
    one(
        "name = \"out\"",
        "name = \"out\"\naction = \"drop\"\nservice = \"udp\"\n[[rule]]\nname = \"out\"",
        "fw:25:8: error: rule name \"out\" is used twice",
    );
}

#[test]
fn warnings() {
    one(
        "from = \"trust\"",
        "from = \"untrust\"",
        "fw:23:6: warning: rule \"out\" can never match: no pair of ports joins",
    );
    one(
        "action = \"allow\"",
        "action = \"drop\"\ntimeouts = { icmp = \"1s\" }",
        "fw:27:12: warning: rule \"out\" makes no sessions",
    );
    one(
        "[address_sets]",
        "[[zone]]\nname = \"dmz\"\n[address_sets]",
        "fw:17:8: warning: no port is in zone \"dmz\"",
    );
    for (service, finding) in [
        (
            "icmp/3/4",
            "no rule is asked about ICMP errors; help: remove it: an error belongs to the session that it is about",
        ),
        (
            "icmpv6/packet-too-big",
            "no rule is asked about ICMP errors; help: remove it",
        ),
        (
            "icmp/echo-reply",
            "it answers a request; help: name the request instead: its replies pass with the session",
        ),
        (
            "icmpv6/129/0",
            "it answers a request; help: name the request instead",
        ),
        (
            "icmpv6/135",
            "no rule is asked about neighbour discovery and MLD; help: remove it: they cross by themselves",
        ),
    ] {
        let finding = format!("warning: \"{service}\" never opens a session: {finding}");
        one(
            "service = [\"@web\"]",
            &format!("service = [\"@web\", \"{service}\"]"),
            &format!("fw:25:20: {finding}"),
        );
        // In a set: there, and not where it is used.
        one(
            "web = [\"tcp/80\", \"tcp/443\"]",
            &format!("web = [\"{service}\", \"tcp/443\"]"),
            &format!("fw:19:8: {finding}"),
        );
    }
    let second = |rest: &str| {
        format!(
            "action = \"allow\"\n[[rule]]\nname = \"second\"\naction = \"drop\"\nfrom = \"trust\"\n{rest}"
        )
    };
    let covered = "fw:28:8: warning: rule \"second\" can never match: \"out\" covers it entirely \
                   (the earlier rule is here: fw:21:8); help: move it up, or remove it";
    one(
        "action = \"allow\"",
        &second("to = 'untrust'\nsource = ['10.9.0.0/16']\nservice = ['tcp/443']"),
        covered,
    );
    // Each wider than the first rule in one property alone.
    for rest in [
        "to = 'untrust'\nsource = ['10.9.0.0/16', '192.0.2.1']\nservice = ['tcp/443']",
        "to = 'untrust'\nsource = ['10.9.0.0/16']\nservice = ['tcp/442-443']",
        "to = 'untrust'\nsource = ['0.0.0.0/0']\nservice = ['tcp/443']",
        "source = ['10.9.0.0/16']\nservice = ['tcp/443']",
        "to = 'untrust'\nsource = ['10.9.0.0/16']",
    ] {
        let text = GOOD.replace("\naction = \"allow\"\n", &format!("\n{}\n", second(rest)));
        assert_eq!(findings(&text), [""; 0], "{rest}");
    }
    // A rule that is switched off covers nothing.
    let text = GOOD.replace(
        "\naction = \"allow\"\n",
        &format!(
            "\nenabled = false\n{}\n",
            second("to = 'untrust'\nsource = ['10.9.0.0/16']\nservice = ['tcp/443']")
        ),
    );
    assert_eq!(findings(&text), [""; 0]);
    // Warnings refuse nothing.
    assert!(config::load_text("fw", &GOOD.replace("from = \"trust\"", "from = \"untrust\"")).is_ok());
}
