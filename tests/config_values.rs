//! Values that stand in the file as strings: what is written is read back, and nothing panics.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use haechi::config::{
    self, AddressRef, CpuList, Device, Endpoint, PortRange, Rate, Service, ServiceRef, TimeSpan,
};
use haechi::flow::track::opening;
use haechi::packet::RxChecksum;
use haechi::packet::parse::{ParseOptions, parse};
use haechi::packet::synth::PacketSpec;
use haechi::policy::Share;
use proptest::prelude::*;

fn reads_back<T: FromStr<Err = config::ValueError> + Display + Debug + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        assert_eq!(
            written.parse::<T>().as_ref(),
            Ok(&value),
            "{text} was written as {written}"
        );
    }
}

/// What is said to open no session is what the parser and the tracker let open none.
#[test]
fn services_that_never_open_a_session() {
    for (protocol, ends) in [("icmp", "10.0.0.1 > 10.0.0.2"), ("icmpv6", "fd00::1 > fd00::2")] {
        for icmp_type in 0..=u8::MAX {
            for code in [0, 1] {
                let packet = format!("{protocol} {ends} {icmp_type}/{code}");
                let frame = packet.parse::<PacketSpec>().unwrap().frame();
                let meta = parse(&frame, RxChecksum::default(), ParseOptions::default());
                let service = |text: String| text.parse::<Service>().unwrap();
                let never = service(format!("{protocol}/{icmp_type}/{code}")).never_opens();
                assert_eq!(
                    never.is_none(),
                    opening(&meta).is_some(),
                    "{packet}: {:?}",
                    meta.kind
                );
                // Without a code it is the one that every message in use has.
                if code == 0 {
                    assert_eq!(service(format!("{protocol}/{icmp_type}")).never_opens(), never);
                }
            }
        }
        assert_eq!(protocol.parse::<Service>().unwrap().never_opens(), None);
    }
    for service in ["tcp", "tcp/80", "udp/53", "proto/1", "proto/58", "proto/47"] {
        assert_eq!(service.parse::<Service>().unwrap().never_opens(), None);
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(text in "(vdev:net_)?[@a-z0-9:./,-]{0,20}") {
        reads_back::<AddressRef>(&text);
        reads_back::<ServiceRef>(&text);
        reads_back::<PortRange>(&text);
        reads_back::<CpuList>(&text);
        reads_back::<Device>(&text);
        reads_back::<TimeSpan>(&text);
        reads_back::<Rate>(&text);
        reads_back::<Share>(&text);
        reads_back::<Endpoint>(&text);
    }

    #[test]
    fn endpoints_read_back(v4: std::net::Ipv4Addr, v6: std::net::Ipv6Addr, port: u16) {
        for address in [std::net::IpAddr::from(v4), v6.into()] {
            let endpoint = Endpoint((address, port).into());
            prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
    }

    #[test]
    fn shares_are_hundredths_of_a_percent(share in 0_u32..=100_000, text in "[0-9.]{0,5}%?") {
        let share = Share(share);
        prop_assert_eq!(share.to_string().parse(), Ok(share));
        reads_back::<Share>(&text);
    }

    #[test]
    fn anything_is_refused_in_words(text: String) {
        reads_back::<AddressRef>(&text);
        reads_back::<ServiceRef>(&text);
        reads_back::<CpuList>(&text);
        reads_back::<Device>(&text);
        reads_back::<TimeSpan>(&text);
        reads_back::<Rate>(&text);
        reads_back::<Endpoint>(&text);
    }

    #[test]
    fn durations_add_up(h in 0_u64..100, m in 0_u64..100, s in 0_u64..100, ms in 1_u64..5000) {
        let span: TimeSpan = format!("{h}h{m}m{s}s{ms}ms").parse().unwrap();
        prop_assert_eq!(span.0.0, (((h * 60 + m) * 60 + s) * 1000 + ms) * 1_000_000);
        reads_back::<TimeSpan>(&span.to_string());
    }

    #[test]
    fn cpu_lists_name_each_cpu(mut cpus in prop::collection::vec(0_u16..40, 1..12)) {
        let mut seen = std::collections::BTreeSet::new();
        cpus.retain(|cpu| seen.insert(*cpu));
        let list = CpuList(cpus);
        prop_assert_eq!(list.to_string().parse::<CpuList>(), Ok(list));
    }
}

#[test]
fn services_by_name_and_number_are_the_same() {
    for (name, number) in [
        ("icmp/echo-request", "icmp/8"),
        ("icmpv6/echo-request", "icmpv6/128"),
    ] {
        assert_eq!(name.parse::<Service>(), number.parse::<Service>());
        assert_eq!(number.parse::<Service>().unwrap().to_string(), name);
    }
    assert_eq!("tcp/0-65535".parse::<Service>().unwrap().to_string(), "tcp");
    assert_eq!("2h4m".parse::<TimeSpan>().unwrap(), TimeSpan::from_secs(7440));
    assert_eq!("1d".parse::<TimeSpan>().unwrap().to_string(), "24h");
    assert_eq!(
        "10.0.0.1/32".parse::<AddressRef>().unwrap().to_string(),
        "10.0.0.1"
    );
    assert_eq!("60%".parse::<Share>(), Ok(Share(6_000)));
    assert_eq!("0.5%".parse::<Share>(), "0.50%".parse::<Share>());
    assert_eq!("12.30%".parse::<Share>().unwrap().to_string(), "12.3%");
    assert_eq!("12.03%".parse::<Share>().unwrap().to_string(), "12.03%");
    for text in [
        "60",
        "%",
        ".5%",
        "5.%",
        "0.125%",
        "-1%",
        "1001%",
        "4294967296%",
        "1 %",
    ] {
        assert!(text.parse::<Share>().is_err(), "{text}");
    }
    assert_eq!("1,2,3,7".parse::<CpuList>().unwrap().to_string(), "1-3,7");
    assert_eq!("5,4".parse::<CpuList>().unwrap(), CpuList(vec![5, 4]));
    assert_eq!("3B:00.1".parse::<Device>().unwrap().to_string(), "0000:3b:00.1");
    let device: Device = "vdev:net_af_xdp0,iface=veth0,busy_budget=0".parse().unwrap();
    assert_eq!(
        (device.eal_name(), device.kernel_interface()),
        ("net_af_xdp0", Some("veth0"))
    );
    let device: Device = "vdev:net_vhost0,iface=/run/guest.sock".parse().unwrap();
    assert_eq!(device.kernel_interface(), None, "a socket");
}
