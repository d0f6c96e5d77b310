//! `[metrics]`.

use haechi::config;

use crate::good::{GOOD, one};

#[test]
fn the_metrics_address_is_an_address_with_a_port() {
    let action = "action = \"allow\"";
    let with = |listen: &str| format!("{action}\n[metrics]\nlisten = {listen}");
    for (listen, expected) in [
        ("\"\"", "`` is not an IP address with a port"),
        (
            "\"localhost:9464\"",
            "`localhost:9464` is not an IP address with a port",
        ),
        ("\"127.0.0.1\"", "`127.0.0.1` has no port"),
        ("\"::1\"", "`::1` has no port"),
        (
            "\"2001:db8::1:9464:70000\"",
            "`70000` is not a port from 1 to 65535",
        ),
        ("\"127.0.0.1:65536\"", "`65536` is not a port from 1 to 65535"),
        ("\"127.0.0.1:0\"", "port 0 is any port"),
        ("\":9464\"", "`:9464` has no address"),
        ("\"*:9464\"", "`*:9464` has no address"),
        ("\"224.0.0.1:9464\"", "nobody can listen at 224.0.0.1"),
        ("9464", "`metrics.listen`: expected a string"),
    ] {
        one(action, &with(listen), &format!("fw:28:10: error: {expected}"));
    }
    one(
        action,
        &format!("{action}\n[metrics]\npath = \"/m\""),
        "fw:28:1: error: unknown key `metrics.path`",
    );
    for listen in ["127.0.0.1:9464", "[::]:1", "[fe80::1%7]:65535"] {
        let text = GOOD.replacen(action, &with(&format!("\"{listen}\"")), 1);
        let config = config::load_text("fw", &text).unwrap_or_else(|e| panic!("{listen}: {e}"));
        assert_eq!(
            config.metrics.listen.map(|l| l.to_string()).as_deref(),
            Some(listen)
        );
    }
    assert_eq!(
        config::load_text("fw", GOOD).ok().and_then(|c| c.metrics.listen),
        None
    );
}
