//! A host at the far end of one of the node's ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::Path;

use super::capture::Capture;
use super::netns::Netns;

/// The far end's interface has this name in every host.
pub const IFACE: &str = "e0";

/// What is on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The kernel's stack, with one IPv4 and one IPv6 address.
    Stack,
    /// No addresses, no ARP, no IPv6: it sends only what a test sends.
    Raw,
}

/// A namespace joined by a veth to one port of the node.
pub struct Host {
    /// Where it lives.
    pub ns: Netns,
    /// The node's port that it is behind.
    pub port: String,
    /// The veth's end that the node holds, in the firewall's namespace.
    pub near: String,
    /// Its IPv4 address: 10.9.SUBNET.NUMBER/24.
    pub v4: IpAddr,
    /// Its IPv6 address: `fd09:SUBNET::NUMBER/64`.
    pub v6: IpAddr,
    /// Its MAC address.
    pub mac: [u8; 6],
    socket: OwnedFd,
}

impl Host {
    /// Joins a new host to the firewall's namespace.
    #[must_use]
    pub fn new(ns: Netns, firewall: &Netns, port: &str, subnet: u8, number: u8, kind: Kind) -> Self {
        let near = format!("p-{port}");
        let mac = [0x02, 0x09, 0, subnet, 0, number];
        wire(&ns, firewall, &near, mac);
        match kind {
            Kind::Stack => {
                ns.sysctl("net/ipv6/conf/e0/accept_ra", "0");
                ns.sysctl("net/ipv6/conf/e0/router_solicitations", "0");
                ns.ip(&format!("addr add 10.9.{subnet}.{number}/24 dev {IFACE}"));
                ns.ip(&format!("link set {IFACE} up"));
                // `nodad`: an address that is still being probed would make the first connections fail.
                ns.ip(&format!("addr add fe80::{subnet}:{number}/64 dev {IFACE} nodad"));
                ns.ip(&format!("addr add fd09:{subnet}::{number}/64 dev {IFACE} nodad"));
            }
            Kind::Raw => {
                ns.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
                ns.sysctl("net/ipv6/conf/e0/disable_ipv6", "1");
                ns.ip(&format!("link set {IFACE} arp off up"));
            }
        }
        let socket = ns.raw_socket(IFACE);
        Self {
            v4: Ipv4Addr::new(10, 9, subnet, number).into(),
            v6: Ipv6Addr::new(0xfd09, u16::from(subnet), 0, 0, 0, 0, 0, u16::from(number)).into(),
            ns,
            port: port.into(),
            near,
            mac,
            socket,
        }
    }

    /// Sends one frame; the error of an interface that does not take it is returned.
    pub fn try_send(&self, frame: &[u8]) -> nix::Result<()> {
        use std::os::fd::AsRawFd;
        let sent = nix::sys::socket::send(
            self.socket.as_raw_fd(),
            frame,
            nix::sys::socket::MsgFlags::empty(),
        )?;
        assert_eq!(sent, frame.len());
        Ok(())
    }

    /// Sends one frame; `ENOBUFS` (the queue is full) is waited out.
    pub fn send(&self, frame: &[u8]) {
        super::wait_for("a frame is taken by the interface", || {
            match self.try_send(frame) {
                Err(nix::errno::Errno::ENOBUFS) => Err("queue full".into()),
                other => {
                    other.unwrap_or_else(|e| panic!("{} bytes by {}: {e}", frame.len(), self.port));
                    Ok(())
                }
            }
        });
    }

    /// Starts to capture what arrives here.
    #[must_use]
    pub fn capture(&self) -> Capture {
        Capture::start(&self.ns, IFACE, "")
    }

    /// Starts to capture what arrives here and matches a filter of pcap-filter(7).
    #[must_use]
    pub fn capture_of(&self, filter: &str) -> Capture {
        Capture::start(&self.ns, IFACE, filter)
    }

    /// The cable is pulled: both ends of the veth lose their carrier.
    pub fn cut(&self) {
        self.ns.ip(&format!("link set {IFACE} down"));
    }

    /// The cable is plugged in again.
    pub fn restore(&self) {
        self.ns.ip(&format!("link set {IFACE} up"));
    }

    /// Sets the MTU of both ends.
    pub fn set_mtu(&self, firewall: &Netns, mtu: u16) {
        self.ns.ip(&format!("link set {IFACE} mtu {mtu}"));
        firewall.ip(&format!("link set dev {} mtu {mtu}", self.near));
    }

    /// Deletes the veth, under a running node.
    pub fn delete_link(&self, firewall: &Netns) {
        firewall.ip(&format!("link del dev {}", self.near));
    }

    /// Makes the veth again, as raw as a [`Kind::Raw`] host's; this host's old socket and captures are dead then.
    pub fn recreate_link(&mut self, firewall: &Netns) {
        wire(&self.ns, firewall, &self.near, self.mac);
        self.ns.ip(&format!("link set {IFACE} arp off up"));
        self.socket = self.ns.raw_socket(IFACE);
    }

    /// Pings once every 10 ms, `count` times; all must be answered.
    pub fn ping(&self, to: IpAddr, count: u32) {
        self.ns.exec(&format!("ping -q -n -c {count} -i 0.01 -W 5 {to}"));
    }

    /// Pings once and waits at most a quarter of a second: was it answered?
    #[must_use]
    pub fn ping_answered(&self, to: IpAddr) -> bool {
        self.ns.try_exec(&format!("ping -q -n -c 1 -W 0.25 {to}")).0
    }

    /// Fetches a URL and returns the body.
    pub fn curl(&self, url: &str) -> String {
        self.ns.exec(&format!(
            "curl --silent --show-error --fail --noproxy * --max-time 10 {url}"
        ))
    }

    /// Starts a program of its own here.
    pub fn spawn(&self, dir: &Path, what: &str, line: &str) -> super::Process {
        self.ns.spawn(dir, what, line)
    }
}

/// A veth from the host's namespace to the firewall's. Offloads are off at the far end: a frame must leave with its
/// checksum, in one piece of the wire's size, and with its tags in it. The near end has no addresses at all.
fn wire(ns: &Netns, firewall: &Netns, near: &str, mac: [u8; 6]) {
    let mac = mac.map(|b| format!("{b:02x}")).join(":");
    firewall.ip(&format!(
        "link add {near} type veth peer name {IFACE} address {mac} netns {}",
        ns.name()
    ));
    ns.ip(&format!("link set {IFACE} addrgenmode none"));
    ns.exec(&format!(
        "ethtool -K {IFACE} tx off tso off gso off gro off rxvlan off txvlan off"
    ));
    firewall.exec(&format!("ethtool -K {near} rxvlan off txvlan off"));
    firewall.ip(&format!("link set dev {near} addrgenmode none up"));
}
