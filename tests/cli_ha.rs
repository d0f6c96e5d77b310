//! `haechi ha ...` and `haechi show ha` as their users run them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]
#![allow(clippy::disallowed_types, reason = "a lock between test threads")]

mod control_support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use control_support::{CONFIG, Directory, Served, healthy_pair, request};
use serde_json::{Value, json};

fn haechi(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_haechi"))
        .args(arguments)
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit status, standard output, standard error.
fn said(arguments: &[&str]) -> (i32, String, String) {
    let output = haechi(arguments);
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The example pair in a directory of its own, with a key of its own.
fn pair() -> Directory {
    let directory = Directory::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config/ha");
    for name in ["pair.toml", "node-a.toml", "node-b.toml"] {
        let content = std::fs::read_to_string(example.join(name)).unwrap();
        directory.file(name, content.replace("/etc/haechi/ha.key", "ha.key"));
    }
    let key = directory.path("ha.key");
    let (status, out, err) = said(&["ha", "keygen", path(&key)]);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    assert!(
        out.starts_with(&format!("{}: a new key", key.display())) && out.contains("next: copy it"),
        "{out}"
    );
    directory
}

#[test]
fn a_key_is_made_once_for_its_owner_alone() {
    let directory = pair();
    let key = directory.path("ha.key");
    let content = std::fs::read_to_string(&key).unwrap();
    let lines: Vec<&str> = content.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(
        matches!(lines[..], [digits] if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
    );
    assert_eq!(
        std::fs::metadata(&key).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let (status, out, err) = said(&["ha", "keygen", path(&key)]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        err.contains("it is there already, and a key is never written over (name another file"),
        "{err}"
    );
    assert_eq!(std::fs::read_to_string(&key).unwrap(), content);
    let other = directory.path("other.key");
    assert_eq!(said(&["ha", "keygen", path(&other)]).0, 0);
    assert_ne!(
        std::fs::read_to_string(&other).unwrap(),
        content,
        "each key is another one"
    );
    let (status, _, err) = said(&["ha", "keygen", path(&directory.path("none/ha.key"))]);
    assert!(status == 1 && err.contains("cannot write a key"), "{err}");
}

/// `check` looks at the key file too: what is missing may come, what others can read is refused.
#[test]
fn check_looks_at_the_key_file() {
    let directory = pair();
    let (node, key) = (directory.path("node-a.toml"), directory.path("ha.key"));
    let check = || said(&["check", path(&node)]);
    let (status, out, err) = check();
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.ends_with("3 rules, 1 worker, node 1 of a pair\n"), "{out}");
    for mode in [0o640, 0o604, 0o620] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let (status, _, err) = check();
        assert_eq!(status, 1);
        let exposed = format!(
            "pair.toml:23:12: error: the pair's key: {} is not for its owner's eyes alone: its mode is {mode:04o}",
            key.display()
        );
        assert!(err.contains(&exposed) && err.contains("chmod 600"), "{err}");
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let good = std::fs::read_to_string(&key).unwrap();
    std::fs::write(&key, "secret words\n").unwrap();
    let (status, _, err) = check();
    assert!(
        status == 1 && err.contains("is not a key: ") && !err.contains("secret words"),
        "{err}"
    );
    std::fs::write(&key, good).unwrap();
    std::fs::rename(&key, directory.path("elsewhere")).unwrap();
    let (status, out, err) = check();
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("ok: node fw-a"), "{out}");
    assert!(
        err.contains(": warning: the pair's key: there is no ") && err.contains("haechi ha keygen"),
        "{err}"
    );
    std::fs::create_dir(&key).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (status, _, err) = check();
    assert!(
        status == 1 && err.contains("is not a key: it is no file"),
        "{err}"
    );
}

/// What `check` warns of, `run` refuses.
#[cfg(feature = "dpdk")]
#[test]
fn no_node_of_a_pair_runs_without_its_key() {
    let directory = pair();
    let (node, key) = (directory.path("node-a.toml"), directory.path("ha.key"));
    std::fs::remove_file(&key).unwrap();
    let (status, out, err) = said(&["run", "-c", path(&node)]);
    assert_eq!((status, out.as_str()), (1, ""));
    let expected = format!(
        "error: the pair's key: there is no {} (make it by `haechi ha keygen",
        key.display()
    );
    assert!(err.contains(&expected), "{err}");
}

#[test]
fn ha_check_says_that_a_pair_agrees() {
    let directory = pair();
    let [a, b] = ["node-a.toml", "node-b.toml"].map(|name| directory.path(name));
    let (status, out, err) = said(&["ha", "check", path(&a), path(&b)]);
    assert_eq!((status, err.as_str()), (0, ""));
    let out = regex::Regex::new("[0-9a-f]{16}")
        .unwrap()
        .replace_all(&out, "DIGEST")
        .replace(&format!("{}/", directory.0.display()), "");
    assert_eq!(
        out,
        format!(
            "node-a.toml and node-b.toml: ok: fw-a (node 1) and fw-b (node 2) agree: 2 ports, 3 rules, policy DIGEST, layout DIGEST, \
             read by haechi {}\nwhat may differ, and does:\n  node.name: \"fw-a\" and \"fw-b\"\n",
            env!("CARGO_PKG_VERSION")
        )
    );
    let (status, out, err) = said(&["ha", "check", path(&a), path(&b), "--json"]);
    assert_eq!((status, err.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&report["ok"], &report["differences"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(report["policy"][0], report["policy"][1]);
    assert_eq!(
        report["own"],
        json!([{ "key": "node.name", "values": ["\"fw-a\"", "\"fw-b\""] }])
    );
}

#[test]
fn ha_check_lists_what_differs_and_says_so_by_its_status() {
    let directory = pair();
    let [a, b] = ["node-a.toml", "node-b.toml"].map(|name| directory.path(name));
    let text = std::fs::read_to_string(&b).unwrap();
    let text = text
        .replace("node_id = 2", "node_id = 1")
        .replace("priority = 100", "priority = 200");
    std::fs::write(&b, format!("{text}[conntrack.timeouts]\nicmp = \"1s\"\n")).unwrap();
    let (status, out, err) = said(&["ha", "check", path(&a), path(&b)]);
    assert_eq!(status, 1);
    assert!(out.contains(": these are no pair\n"), "{out}");
    assert!(err.ends_with("2 errors, 1 warning\n"), "{err}");
    let pair = directory.path("pair.toml");
    for said in [
        &format!(
            "{}:55:1: error: `conntrack.timeouts.icmp` is \"30s\" (the default) here, and \"1s\" in {}",
            pair.display(),
            b.display()
        ),
        &format!("note: the other node's is here: {}:22:8", b.display()),
        "node-a.toml:16:11: error: both nodes have `node_id = 1`",
        "16 | node_id = 1\n   |           ^\n",
        "node-a.toml:17:12: warning: both nodes have `priority = 200`",
    ] {
        assert!(err.contains(said), "{said}\n{err}");
    }
    let (status, out, _) = said(&["ha", "check", path(&a), path(&b), "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &report["ok"]), (1, &json!(false)));
    let icmp = report["differences"]
        .as_array()
        .unwrap()
        .iter()
        .find(|of| of["key"] == "conntrack.timeouts.icmp")
        .unwrap();
    assert_eq!(
        (
            &icmp["severity"],
            &icmp["sides"][1]["line"],
            &icmp["sides"][1]["value"]
        ),
        (&json!("error"), &json!(22), &json!("\"1s\""))
    );
    assert_eq!(
        (&icmp["sides"][0]["default"], &icmp["sides"][0]["value"]),
        (&json!(true), &json!("\"30s\""))
    );
    // A file that is wrong by itself is told like `check` tells it.
    std::fs::write(&b, "version = 1\n").unwrap();
    let (status, out, err) = said(&["ha", "check", path(&a), path(&b)]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        err.contains("node-b.toml:1:1: error: `mode` is missing in `node`"),
        "{err}"
    );
}

#[test]
fn show_ha_begins_with_the_health_and_its_status_says_the_same() {
    let served = Served::new(CONFIG);
    let socket = path(&served.socket).to_owned();
    let show = |more: &[&str]| said(&[&["show", "ha", "--socket", &socket], more].concat());
    let (status, out, err) = show(&[]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert_eq!(
        err,
        "haechi: this node has no `[ha]`: it is no node of a pair (see dpdk-config/ha/ for how two nodes become a pair)\n"
    );
    *served.node.pair.lock().unwrap() = Some(healthy_pair());
    let (status, out, err) = show(&[]);
    assert_eq!((status, err.as_str()), (0, ""));
    insta::assert_snapshot!("show_ha", out);
    let (status, out, _) = show(&["--json"]);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (status, &shown["health"], &shown["role"]),
        (0, &json!("healthy"), &json!("leader"))
    );
    assert_eq!(shown, served.get("/v1/ha").ok());
    let lonely = healthy_pair().with_reasons(vec!["the peer is not heard".to_owned()]);
    *served.node.pair.lock().unwrap() = Some(lonely);
    let (status, out, err) = show(&[]);
    assert_eq!((status, err.as_str()), (1, ""));
    assert!(out.starts_with("degraded: the peer is not heard\n"), "{out}");
    let (status, out, _) = show(&["--json"]);
    assert_eq!(status, 1);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["reasons"], json!(["the peer is not heard"]));
}

#[test]
fn the_lead_is_changed_and_refusals_are_told() {
    let served = Served::new(CONFIG);
    let socket = path(&served.socket).to_owned();
    let switchover = || said(&["ha", "switchover", "--socket", &socket]);
    let (status, out, err) = switchover();
    assert!(
        status == 1 && out.is_empty() && err.contains("this node has no `[ha]`"),
        "{err}"
    );
    *served.node.pair.lock().unwrap() = Some(healthy_pair());
    assert_eq!(
        switchover(),
        (
            0,
            "node 2 leads; this node is standby (12 ms)\n".to_owned(),
            String::new()
        )
    );
    assert_eq!(
        switchover(),
        (
            0,
            "node 1 leads; this node is leader (12 ms)\n".to_owned(),
            String::new()
        )
    );
    served.node.pair.lock().unwrap().as_mut().unwrap().peer.alive = false;
    assert_eq!(
        switchover(),
        (1, String::new(), "haechi: the peer is not heard\n".to_owned())
    );
    let (status, out, _) = said(&["ha", "switchover", "--socket", &socket, "--json"]);
    let refused: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &refused["kind"]), (1, &json!("refused")));
}

/// keepalived calls with four arguments, of which older versions have three.
#[test]
fn keepalived_says_what_the_node_wishes_for() {
    let served = Served::new(CONFIG);
    *served.node.pair.lock().unwrap() = Some(healthy_pair());
    let socket = path(&served.socket).to_owned();
    let notify = |words: &[&str]| said(&[&["ha", "notify", "--socket", &socket], words].concat());
    assert_eq!(
        notify(&["INSTANCE", "VI_1", "MASTER", "200"]),
        (
            0,
            "instance VI_1 is MASTER: this node asks for the lead; it is leader now\n".to_owned(),
            String::new()
        )
    );
    let wish = |served: &Served| served.get("/v1/ha").ok()["wish"].clone();
    assert_eq!(
        wish(&served),
        json!({ "lead": true, "by": "instance VI_1", "state": "MASTER" })
    );
    for state in ["BACKUP", "FAULT", "STOP", "DELETED", "backup"] {
        let (status, out, err) = notify(&["GROUP", "all of them", state]);
        assert_eq!((status, err.as_str()), (0, ""));
        let expected = format!(
            "group all of them is {}: this node gives the lead up",
            state.to_uppercase()
        );
        assert!(out.starts_with(&expected), "{out}");
        assert_eq!(wish(&served)["lead"], json!(false));
    }
    for words in [
        &["INSTANCE", "VI_1", "READY"][..],
        &["VRRP", "VI_1", "MASTER"],
        &["INSTANCE", "VI_1"],
        &["INSTANCE", "VI_1", "MASTER", "256"],
    ] {
        let (status, out, err) = notify(words);
        assert!(
            status == 2 && out.is_empty() && !err.is_empty(),
            "{words:?}: {err}"
        );
    }
    let post = |body: &str| request(&served.socket, "POST", "/v1/ha/notify", body);
    let answer = post(r#"{"kind": "INSTANCE", "name": "VI_2", "state": "MASTER"}"#).ok();
    assert_eq!(
        answer,
        json!({ "wish": { "lead": true, "by": "instance VI_2", "state": "MASTER" }, "role": "leader" })
    );
    for body in [
        "",
        "{}",
        r#"{"kind": "INSTANCE", "name": "VI_2", "state": "master"}"#,
    ] {
        let answer = post(body);
        assert_eq!(answer.code, 400, "{body}");
    }
}
