//! The files in `dpdk-config/`: what a user copies is accepted, and the checked-in JSON Schema is current and agrees.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use haechi::config::{self, Config, DiskFiles, Files};
use serde_json::Value;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config")
}

fn examples() -> Vec<PathBuf> {
    let directories = ["", "pktgen", "ha", "ha/active-active"].map(|name| directory().join(name));
    let entries = directories
        .iter()
        .flat_map(|path| std::fs::read_dir(path).unwrap());
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    // It is no node's file; theirs include it.
    paths.retain(|path| !path.ends_with("pair.toml"));
    paths.sort();
    assert!(paths.len() >= 10, "{paths:?}");
    paths
}

/// The files as they are, on a machine whose keys nobody looks at.
struct WithoutKeys;

impl Files for WithoutKeys {
    fn read(&self, path: &Path) -> std::io::Result<String> {
        DiskFiles.read(path)
    }

    fn identity(&self, path: &Path) -> PathBuf {
        DiskFiles.identity(path)
    }
}

fn load(path: &Path) -> Config {
    let checked = config::check_files(&WithoutKeys, path);
    assert!(checked.diagnostics.is_empty(), "{}", checked.diagnostics);
    checked.config.unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&config::schema_json()).unwrap()
}

#[test]
fn every_example_is_accepted_without_a_warning_and_compiles() {
    for path in examples() {
        let config = load(&path);
        let mut ids = config::RuleIds::new();
        let policy = config::compile(&config, haechi::base::Generation(1), &mut ids).unwrap();
        assert_eq!(policy.rules.len(), config.rules.len());
        assert!(
            policy
                .rules
                .iter()
                .all(|rule| config.rules.iter().any(|r| r.name == rule.name))
        );
    }
}

#[test]
fn every_example_is_valid_by_the_schema() {
    let schema = schema();
    let pairs = ["ha/pair.toml", "ha/active-active/pair.toml"].map(|name| directory().join(name));
    for path in examples().into_iter().chain(pairs) {
        let file: toml::Value = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let file = serde_json::to_value(file).unwrap();
        assert_eq!(
            problems(&schema, &schema, &file, "$"),
            Vec::<String>::new(),
            "{}",
            path.display()
        );
    }
}

#[test]
fn the_checked_in_schema_is_current() {
    let path = directory().join("haechi.schema.json");
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == config::schema_json(),
        "{} is not current: write the output of `haechi schema` there",
        path.display()
    );
}

/// The value of a file, written as a file, is that value: nothing that the file can say is lost in it.
#[test]
fn the_effective_configuration_loads_as_itself() {
    for path in examples() {
        let config = load(&path);
        let text = toml::to_string(&config).unwrap();
        let again =
            config::load_text("effective.toml", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        assert_eq!(again, config);
    }
}

#[test]
fn the_reference_has_the_defaults_that_it_names() {
    let reference = load(&directory().join("reference.toml"));
    let minimal = config::load_text(
        "minimal",
        r#"
        version = 1
        node.mode = "transparent"
        devices = { wan = "0000:3b:00.0" }
        port = [
            { name = "wan", zone = "untrust", peer = "lan" },
            { name = "lan", zone = "trust", peer = "wan", device = "vdev:net_af_xdp0,iface=veth-lan,busy_budget=0" },
        ]
        "#,
    )
    .unwrap();
    let expected = Config {
        node: config::Node {
            name: minimal.node.name.clone(),
            ..reference.node.clone()
        },
        zones: Vec::new(),
        address_sets: Default::default(),
        service_sets: Default::default(),
        rules: Vec::new(),
        log: config::Log::default(),
        ha: None,
        metrics: config::Metrics::default(),
        ..reference
    };
    assert_eq!(minimal, expected);
}

/// Likewise `[ha]`, but for what it says that it is an example.
#[test]
fn the_reference_has_the_defaults_of_a_pair() {
    let reference = load(&directory().join("reference.toml")).ha.unwrap();
    let text = format!(
        "version = 1\nnode.mode = \"transparent\"\n\
         port = [{{ name = \"a\", device = \"vdev:net_null0\", zone = \"z\", peer = \"b\" }}, \
         {{ name = \"b\", device = \"vdev:net_null1\", zone = \"z\", peer = \"a\" }}]\n\
         [ha]\nnode_id = 1\nkey_file = \"/etc/haechi/ha.key\"\n\
         link = {{ local = \"{}\", peer = \"{}\" }}\n",
        reference.link.local, reference.link.peer
    );
    let minimal = config::load_text("minimal", &text).unwrap().ha.unwrap();
    let expected = config::Ha {
        priority: 100,
        preempt: false,
        witness: None,
        track: Vec::new(),
        second_link: None,
        ..reference
    };
    assert_eq!(minimal, expected);
}

/// The pairs of `dpdk-config/ha/` agree, in every respect.
#[test]
fn the_examples_of_pairs_are_pairs() {
    assert_eq!(priorities("ha"), [200, 100]);
    assert_eq!(priorities("ha/active-active"), [200, 100]);
}

/// Those of a pair that agrees.
fn priorities(of: &str) -> [u8; 2] {
    let paths = ["node-a.toml", "node-b.toml"].map(|name| directory().join(of).join(name));
    let report = config::check_pair(&WithoutKeys, paths.each_ref().map(PathBuf::as_path)).unwrap();
    let lines: Vec<String> = report
        .differences
        .iter()
        .map(|d| d.diagnostic().one_line())
        .collect();
    // There is no key in the repository to compare.
    assert!(
        matches!(&lines[..], [line] if line.contains("warning: the nodes' keys were not compared")),
        "{lines:#?}"
    );
    let own: Vec<&str> = report.own.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(own, ["node.name"]);
    report
        .configs
        .each_ref()
        .map(|config| config.ha.as_ref().unwrap().priority)
}

/// What is wrong with `value` by `schema`: the part of JSON Schema that our own schema uses; another keyword is a panic.
fn problems(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fail = |what: String| found.push(format!("{path}: {what}"));
    let mut inner = Vec::new();
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" => {}
            "$ref" => {
                let target = root
                    .pointer(rule.as_str().unwrap().trim_start_matches('#'))
                    .unwrap();
                inner.extend(problems(root, target, value, path));
            }
            "type" => {
                let right = match rule.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "boolean" => value.is_boolean(),
                    other => panic!("type {other}"),
                };
                if !right {
                    fail(format!("is not {rule}"));
                }
            }
            "const" if rule != value => fail(format!("is not {rule}")),
            "pattern" => {
                if value
                    .as_str()
                    .is_some_and(|s| !regex::Regex::new(rule.as_str().unwrap()).unwrap().is_match(s))
                {
                    fail(format!("does not match {rule}"));
                }
            }
            "minimum" if value.as_i64() < rule.as_i64() => fail(format!("is less than {rule}")),
            "maximum" if value.as_i64() > rule.as_i64() => fail(format!("is more than {rule}")),
            "minItems" if value.as_array().map(|a| a.len() as u64) < rule.as_u64() => {
                fail("is too short".into())
            }
            "const" | "minimum" | "maximum" | "minItems" => {}
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    inner.extend(problems(root, rule, item, &format!("{path}[{i}]")));
                }
            }
            "anyOf" | "oneOf" => {
                let choices = rule.as_array().unwrap();
                if !choices
                    .iter()
                    .any(|choice| problems(root, choice, value, path).is_empty())
                {
                    fail(format!("matches none of {rule}"));
                }
            }
            "required" => {
                for key in rule.as_array().unwrap() {
                    if value.get(key.as_str().unwrap()).is_none() {
                        fail(format!("has no {key}"));
                    }
                }
            }
            "properties" | "additionalProperties" => {
                let properties = schema.get("properties");
                for (key, value) in value.as_object().into_iter().flatten() {
                    let path = format!("{path}.{key}");
                    match (
                        properties.and_then(|p| p.get(key)),
                        &schema["additionalProperties"],
                    ) {
                        (Some(property), _) => inner.extend(problems(root, property, value, &path)),
                        (None, Value::Bool(false)) => inner.push(format!("{path}: unknown")),
                        (None, other) => inner.extend(problems(root, other, value, &path)),
                    }
                }
            }
            other => panic!("keyword {other}"),
        }
    }
    found.extend(inner);
    found
}

/// The patterns of the schema say what the parsers say, on words near the border.
#[test]
fn the_schemas_patterns_and_the_parsers_agree() {
    let schema = schema();
    let agrees = |definition: &str, text: &str, parses: bool| {
        let valid = problems(&schema, &schema["$defs"][definition], &Value::from(text), "$").is_empty();
        assert_eq!(valid, parses, "{definition} {text:?}");
    };
    for text in [
        "30s", "2h4m", "50ms", "1d", "", "30", "s", "1.5s", "-1s", "30 s", "30x", "2h 4m",
    ] {
        agrees("Duration", text, text.parse::<config::TimeSpan>().is_ok());
    }
    for text in [
        "169.254.77.1:7700",
        "[fd00::1]:7700",
        "169.254.77.1",
        "fd00::1",
        "[fd00::1]",
        "",
        ":7700",
        "fw-b:7700",
        "169.254.77.1:",
    ] {
        agrees("Endpoint", text, text.parse::<config::Endpoint>().is_ok());
    }
    for text in ["100/s", "0/s", "", "100", "/s", "100/m", "-1/s", "1.5/s"] {
        agrees("Rate", text, text.parse::<config::Rate>().is_ok());
    }
    for text in [
        "10.0.0.0/8",
        "10.0.0.1",
        "2001:db8::/32",
        "::1",
        "@set",
        "",
        "@",
        "any",
        "10.0.0.0/",
        "host.name",
    ] {
        agrees("Address", text, text.parse::<config::AddressRef>().is_ok());
    }
    for text in [
        "tcp",
        "tcp/80",
        "udp/1-2",
        "icmp",
        "icmp/8",
        "icmp/echo-request",
        "icmpv6/128",
        "icmp/3/4",
        "proto/47",
        "@x",
        "",
        "@",
        "proto",
        "tcp/",
        "tcp/http",
        "sctp",
        "tcp/80,443",
        "icmp/8/",
        "proto/gre",
        "TCP",
    ] {
        agrees("Service", text, text.parse::<config::ServiceRef>().is_ok());
    }
    for text in ["1", "1-3", "1,3,5-7", "1, 2", "", "1,", "-1", "1-", "a", "1;2"] {
        agrees("Cpus", text, text.parse::<config::CpuList>().is_ok());
    }
    for text in [
        "0000:3b:00.0",
        "3b:00.0",
        "vdev:net_null0",
        "vdev:net_af_xdp0,iface=a",
        "",
        "vdev:",
        "vdev:crypto0",
        "eth0",
        "0000:3b:00",
        "0000:3b:00.8",
        "3b:00:0",
    ] {
        agrees("Device", text, text.parse::<config::Device>().is_ok());
    }
}
