//! Explain: copies of live sessions under the policy of the moment.

use serde_json::{Value, json};

use crate::busy::{busy, files, found};
use crate::control_support::{CONFIG, Served};

fn explain(served: &Served, packets: &Value) -> Vec<Value> {
    let report = served.post("/v1/explain", &json!({ "packets": packets })).ok();
    report["verdicts"].as_array().unwrap().clone()
}

#[test]
fn explain_uses_copies_of_live_sessions_and_changes_nothing() {
    let served = busy();
    let before = [
        served.get("/v1/counters").ok(),
        served.get("/v1/sessions").ok(),
        served.get("/v1/rules").ok(),
    ];
    let verdicts = explain(
        &served,
        &json!([
            {"from": "untrust", "packet": "tcp 192.0.2.7:80 > 10.0.0.5:1000 ack seq=301 ack=101 len=10"},
            {"from": "untrust", "packet": "tcp 192.0.2.7:80 > 10.0.0.5:1002 ack"},
            {"from": "trust", "packet": "tcp 10.0.0.9:1 > 192.0.2.7:80 syn"},
            {"from": "trust", "packet": "tcp 192.0.2.7:80 > 10.0.0.9:1 syn ack"},
            {"from": "untrust", "packet": "tcp 192.0.2.7:1 > 10.0.0.9:25 syn"},
            {"from": "trust", "packet": "after 40s udp 10.0.0.5:2000 > 192.0.2.7:53"},
            {"port": "lan", "frame": "ffffffffffff0200000000010800"},
        ]),
    );
    let first = &verdicts[0];
    assert_eq!(
        (&first["verdict"], &first["egress"], &first["by"]),
        (&json!("forward"), &json!("lan"), &json!("session"))
    );
    assert_eq!(
        (&first["rule"], &first["session"]["state"]),
        (&json!("lan-out"), &json!("established"))
    );
    assert_eq!(
        first["session"]["packets"],
        json!([2, 2]),
        "the copy goes on counting where the live one is"
    );
    assert_eq!(first["session"]["age_s"], 10.0);
    assert_eq!(
        (&verdicts[1]["reason"], &verdicts[1]["by"]),
        (&json!("no_session"), &json!("none"))
    );
    assert_eq!(
        (&verdicts[2]["by"], &verdicts[2]["session"]["state"]),
        (&json!("new_session"), &json!("syn_sent"))
    );
    assert_eq!(
        verdicts[3]["ingress"], "wan",
        "an answer comes in where the question went out"
    );
    assert_eq!(verdicts[3]["session"]["state"], "syn_received");
    assert_eq!(
        (&verdicts[4]["reason"], &verdicts[4]["rule"]),
        (&json!("policy"), &json!("no-mail"))
    );
    assert_eq!(
        verdicts[4]["answers"],
        json!(["tcp 10.0.0.9:25 > 192.0.2.7:1 rst ack by wan"])
    );
    assert_eq!(
        (&verdicts[5]["by"], &verdicts[5]["at_ns"]),
        (&json!("new_session"), &json!(40_000_000_000_u64))
    );
    assert_eq!(
        (&verdicts[6]["reason"], &verdicts[6]["by"]),
        (&json!("malformed"), &json!("layer2"))
    );
    let after = [
        served.get("/v1/counters").ok(),
        served.get("/v1/sessions").ok(),
        served.get("/v1/rules").ok(),
    ];
    assert_eq!(before, after);
}

#[test]
fn live_copies_idle_out_as_the_live_ones_will() {
    let served = busy();
    // Half open and idle for 10 of 30 seconds.
    let reply = |time: &str| json!([{"from": "untrust", "packet": format!("{time}tcp 192.0.2.7:443 > 10.0.0.6:1001 syn ack")}]);
    assert_eq!(explain(&served, &reply(""))[0]["verdict"], "forward");
    assert_eq!(explain(&served, &reply("after 19s "))[0]["verdict"], "forward");
    assert_eq!(explain(&served, &reply("after 21s "))[0]["reason"], "no_session");
    // A packet centuries later finds nothing, and takes no time to say so.
    assert_eq!(explain(&served, &reply("after 200d "))[0]["reason"], "no_session");
    let mut later = reply("");
    later[0]["at_ns"] = json!(u64::MAX);
    assert_eq!(explain(&served, &later)[0]["reason"], "no_session");
}

#[test]
fn explain_judges_by_the_policy_of_the_moment() {
    let served = busy();
    let established = json!([{"from": "trust", "packet": "tcp 10.0.0.5:1000 > 192.0.2.7:80 ack"}]);
    assert_eq!(explain(&served, &established)[0]["verdict"], "forward");
    let new = CONFIG.replace(r#"service = ["tcp/80", "#, r#"service = ["#);
    served.post("/v1/apply", &files(&[("/x.toml", &new)])).ok();
    let refused = &explain(&served, &established)[0];
    assert_eq!(
        (&refused["reason"], &refused["by"]),
        (&json!("policy"), &json!("implicit_drop"))
    );
    assert!(
        found(served.get("/v1/sessions")).contains("tcp:1000"),
        "the live session waits for its own packet"
    );
}
