//! Names of ports, zones, rules and sets.

use crate::good::{GOOD, findings, one};

/// A name that a filter or an option would read as something else cannot be used once it is there.
#[test]
fn names_that_filters_could_not_name() {
    for (name, problem, help) in [
        ("a,b", "has a `,` in it, which ends a name in a filter", "\"a-b\""),
        ("a=b", "has a `=` in it, which ends a name in a filter", "\"a-b\""),
        ("hi, all", "has a `,` in it", "\"hi-all\""),
        (
            "hi all",
            "has a blank in it, which ends a name in a filter",
            "\"hi-all\"",
        ),
        ("hi\u{a0}all", "has a blank in it", "\"hi-all\""),
        ("it's", "has a quote in it", "\"it-s\""),
        ("a`b", "has a quote in it", "\"a-b\""),
        ("a\\\"b", "has a quote in it", "\"a-b\""),
        ("a\\tb", "has control characters in it", "\"a-b\""),
        (" a ", "has blanks around it", "\"a\""),
        (",", "has a `,` in it", "write another name"),
        ("any", "cannot be \"any\"", "write another name"),
    ] {
        let place = |line: u32, kind: &str| format!("fw:{line}:8: error: the name of a {kind} {problem}");
        for (text, expected) in [
            (
                GOOD.replace("name = \"out\"", &format!("name = \"{name}\"")),
                place(21, "rule"),
            ),
            (format!("{GOOD}[[zone]]\nname = \"{name}\"\n"), place(28, "zone")),
            (
                GOOD.replace("\"lan\"\n", &format!("\"{name}\"\n")),
                place(12, "port"),
            ),
            (
                GOOD.replace("servers = ", &format!("\"{name}\" = ")),
                place(17, "address set").replace(":8:", ":1:"),
            ),
        ] {
            let found = findings(&text);
            let found = found.iter().find(|f| f.starts_with(&expected));
            let found = found.unwrap_or_else(|| panic!("no {expected} in {:#?}", findings(&text)));
            assert!(found.contains(help), "{found}");
        }
    }
    one(
        "name = \"out\"",
        "name = \"implicit_drop\"",
        "fw:21:8: error: the name of a rule cannot be \"implicit_drop\", which counts what no rule matched",
    );
    // What only looks odd is fine, and so is a node's name, which is only shown.
    for name in [
        "a-b_c.d",
        "ÄÖ",
        "r!",
        "10%",
        "a/b",
        "a+b&c;d",
        "(x)",
        "implicit_drop2",
    ] {
        let text = GOOD.replace("name = \"out\"", &format!("name = \"{name}\""));
        assert_eq!(findings(&text), [""; 0], "{name}");
        let filter: haechi::control::SessionFilter = format!("rule={name},x from!={name}").parse().unwrap();
        assert!(filter.pairs().eq([
            ("rule".to_owned(), &*format!("{name},x")),
            ("from!".to_owned(), name)
        ]));
    }
    let text = GOOD.replace("burst = 32", "burst = 32\nname = \"Bob's firewall, 2nd floor\"");
    assert_eq!(findings(&text), [""; 0]);
}
