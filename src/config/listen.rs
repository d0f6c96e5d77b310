//! `[metrics]`, and the address that a server of this node listens at.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::diagnostic::{TextValue, ValueError};
use super::section::{Section, Walk};
use super::value::Metrics;

/// An IP address and a TCP port: `127.0.0.1:9464`, `[::1]:9464`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

impl TextValue for ListenAddress {
    const HELP: &'static str =
        "an IP address and a port are written like \"127.0.0.1:9464\" or \"[::1]:9464\"";
}

impl FromStr for ListenAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return check(address).map(|()| Self(address));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Err(ValueError::with_help(
                format!("`{text}` has no port"),
                format!("write \"{}\"", SocketAddr::new(ip, 9464)),
            ));
        }
        if let Some((host, port)) = text.rsplit_once(':') {
            let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            if is_port && port.parse::<u16>().is_err() {
                return Err(format!("`{port}` is not a port from 1 to 65535").into());
            }
            if is_port && (host.is_empty() || host == "*") {
                return Err(ValueError::with_help(
                    format!("`{text}` has no address"),
                    format!(
                        "write \"127.0.0.1:{port}\" for this host alone, or \"[::]:{port}\" for everybody"
                    ),
                ));
            }
        }
        Err(format!("`{text}` is not an IP address with a port").into())
    }
}

fn check(address: SocketAddr) -> Result<(), ValueError> {
    if address.port() == 0 {
        return Err("port 0 is any port: nobody would find it".into());
    }
    if address.ip().is_multicast() {
        return Err(format!(
            "nobody can listen at {}, which is a group's address",
            address.ip()
        )
        .into());
    }
    Ok(())
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

pub(super) fn read_metrics(root: &mut Section<'_>, walk: &mut Walk<'_>) -> Metrics {
    let mut s = root.section("metrics", walk);
    let metrics = Metrics {
        listen: s.text("listen", walk),
    };
    s.finish(walk);
    metrics
}
