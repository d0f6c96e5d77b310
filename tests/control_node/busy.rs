//! A busy node, and what requests and answers are made of.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::control_support::{Answer, CONFIG, LAN, Served, WAN};

/// A node with a few conversations of every kind.
pub(crate) fn busy() -> Served {
    let served = Served::new(CONFIG);
    let node = &served.node;
    assert!(node.send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:80 syn seq=100"));
    assert!(node.send(WAN, "tcp 192.0.2.7:80 > 10.0.0.5:1000 syn ack seq=300 ack=101"));
    assert!(node.send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:80 ack seq=101 ack=301"));
    assert!(node.send(LAN, "tcp 10.0.0.6:1001 > 192.0.2.7:443 syn"));
    assert!(node.send(LAN, "udp [2001:db8::5]:5353 > [2001:db8:1::7]:53 vlan=7"));
    node.sleep(Duration::from_secs(10));
    assert!(node.send(LAN, "udp 10.0.0.5:2000 > 192.0.2.7:53 vlan=7 vlan=9 len=100"));
    assert!(node.send(WAN, "udp 192.0.2.7:53 > 10.0.0.5:2000 vlan=7 vlan=9 len=200"));
    assert!(node.send(LAN, "icmp 10.0.0.5 > 192.0.2.8 echo-request id=77"));
    served
}

/// Names for the sessions of [`busy`].
fn name(session: &Value) -> String {
    format!(
        "{}:{}",
        session["protocol"].as_str().unwrap(),
        session["source_port"]
    )
}

pub(crate) fn found(answer: Answer) -> BTreeSet<String> {
    answer.ok()["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(name)
        .collect()
}

pub(crate) fn files(list: &[(&str, &str)]) -> Value {
    let list: Vec<_> = list
        .iter()
        .map(|(path, text)| json!({"path": path, "text": text}))
        .collect();
    json!({ "files": list })
}

pub(crate) fn with(mut request: Value, key: &str, value: Value) -> Value {
    request[key] = value;
    request
}
