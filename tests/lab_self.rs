//! The lab itself, with a bridge where the node would be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use lab::frames::{DOT1AD, DOT1Q, Ends, tagged};
use lab::{Capture, Lab, traffic, wait_for};

#[test]
fn hosts_talk_over_a_bridge() {
    let mut lab = Lab::new();
    let (a, b) = lab.pair("one", "two");
    lab.firewall.bridge("br", &[&a.near, &b.near]);
    a.ping(b.v4, 2);
    b.ping(a.v6, 2);
    let listener = b.listen(80);
    let client = a.connect(b.v6, 80);
    traffic::converse(client, listener.accept().unwrap().0);
    let _web = b.web_server(lab.dir(), lab.dir(), 8080);
    lab.file("hello", "from the lab\n");
    assert_eq!(a.curl(&format!("http://{}:8080/hello", b.v4)), "from the lab\n");
    let _iperf = b.iperf_server(lab.dir());
    let report = a.iperf(b.v4, "--bytes 100M");
    assert!(
        report["end"]["sum_received"]["bytes"].as_u64() >= Some(50_000_000),
        "{report}"
    );
}

#[test]
fn frames_arrive_as_they_were_sent_tags_and_all() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("one", "two");
    let mut capture = Capture::start(&lab.firewall, &a.near, "");
    let plain = Ends::v4(&a, &b).udp(1000, 2000, b"payload");
    let frames = [
        plain.clone(),
        tagged(&plain, &[(DOT1Q, 7)]),
        tagged(&plain, &[(DOT1AD, 5), (DOT1Q, 7)]),
        plain[..20].into(),
    ];
    for frame in &frames {
        a.send(frame);
    }
    assert_eq!(capture.collect(4), frames);
    assert_eq!(capture.drain(), Vec::<Vec<u8>>::new());
}

#[test]
fn links_go_down_and_come_back() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.raw_pair("one", "two");
    assert!(lab.firewall.carrier(&a.near) && b.ns.carrier("e0"));
    a.cut();
    wait_for("carrier lost", || {
        if lab.firewall.carrier(&a.near) {
            Err("up".into())
        } else {
            Ok(())
        }
    });
    a.restore();
    wait_for("carrier back", || {
        if lab.firewall.carrier(&a.near) {
            Ok(())
        } else {
            Err("down".into())
        }
    });
    a.delete_link(&lab.firewall);
    assert!(lab.firewall.link(&a.near).is_none());
    a.recreate_link(&lab.firewall);
    assert!(lab.firewall.carrier(&a.near));
}

#[test]
fn a_panicking_test_leaves_nothing_behind() {
    #[allow(clippy::disallowed_types, reason = "a test")]
    let seen = std::sync::Mutex::new((String::new(), std::path::PathBuf::new(), 0));
    let result = std::panic::catch_unwind(|| {
        let mut lab = Lab::new();
        let (a, _b) = lab.raw_pair("one", "two");
        let sleeper = a.spawn(lab.dir(), "sleeper", "sleep 1000");
        *seen.lock().unwrap() = (a.ns.name().into(), lab.dir().into(), sleeper.pid().as_raw());
        panic!("on purpose");
    });
    assert!(result.is_err());
    let (ns, dir, pid) = seen
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    assert!(!ns.is_empty() && !std::path::Path::new("/run/netns").join(ns).exists());
    assert!(!dir.exists() && !std::path::Path::new(&format!("/proc/{pid}")).exists());
}
