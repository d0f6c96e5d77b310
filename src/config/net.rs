//! Values of the file that name things of the network and the machine: prefixes, services, port ranges, devices, CPUs.
//! Each has one text form: what `Display` writes `FromStr` reads back.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::diagnostic::{TextValue, ValueError};
use crate::flow::track::answered_type;

/// A member of a list of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressRef {
    /// A prefix without host bits; a single address is a prefix of full length.
    Prefix(IpNet),
    /// `"@name"`: a set of `[address_sets]`.
    Set(String),
}

/// A member of a list of services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceRef {
    /// A service.
    Service(Service),
    /// `"@name"`: a set of `[service_sets]`.
    Set(String),
}

/// What a session is for, as its first packet shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// TCP, by destination port.
    Tcp(PortRange),
    /// UDP, by destination port.
    Udp(PortRange),
    /// ICMP (IPv4), by type and code.
    Icmp(IcmpMatch),
    /// ICMPv6, by type and code.
    Icmpv6(IcmpMatch),
    /// An IP protocol by its number, whatever it carries.
    Protocol(u8),
}

/// Which ICMP messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IcmpMatch {
    /// The type; `None`: any.
    pub icmp_type: Option<u8>,
    /// The code; `None`: any. Only with a type.
    pub code: Option<u8>,
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// CPUs in the order of the file: `"1"`, `"1-3"`, `"1,3,5-7"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(pub Vec<u16>);

/// What a port is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// A PCI address in its long form, lower case: `0000:3b:00.0`.
    Pci(String),
    /// A DPDK virtual device with its arguments, without `vdev:`: `net_af_xdp0,iface=veth-wan`.
    Virtual(String),
}

/// Highest CPU number that is believed.
const MAX_CPU: u16 = 4095;

/// ICMP types by name (IANA, "ICMP Parameters").
pub const ICMP_TYPES: &[(&str, u8)] = &[
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
];

/// ICMPv6 types by name (IANA, "ICMPv6 Parameters").
pub const ICMPV6_TYPES: &[(&str, u8)] = &[
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-query", 130),
    ("mld-report", 131),
    ("mld-done", 132),
    ("router-solicitation", 133),
    ("router-advertisement", 134),
    ("neighbour-solicitation", 135),
    ("neighbour-advertisement", 136),
    ("redirect", 137),
    ("mldv2-report", 143),
];

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self {
        first: 0,
        last: u16::MAX,
    };
}

macro_rules! help {
    ($($type:ty = $help:literal;)*) => {$(
        impl TextValue for $type {
            const HELP: &'static str = $help;
        }
    )*};
}

help! {
    AddressRef = "write a prefix \"10.0.0.0/8\", an address \"2001:db8::1\", or a set \"@name\"";
    ServiceRef = "write \"tcp\", \"tcp/80\", \"udp/1000-2000\", \"icmp/echo-request\", \"icmpv6/128\", \"proto/47\", or \"@set\"";
    PortRange = "write a port \"53\" or a range \"1024-65535\"";
    CpuList = "write CPUs like \"1\", \"1-3\" or \"1,3,5-7\"";
    Device = "write \"0000:3b:00.0\", or \"vdev:net_af_xdp0,iface=veth-wan\" for a DPDK virtual device";
}

fn set_name(text: &str) -> Option<Result<String, ValueError>> {
    let name = text.strip_prefix('@')?;
    Some(if name.is_empty() {
        Err("`@` needs the name of a set behind it".into())
    } else {
        Ok(name.to_owned())
    })
}

impl FromStr for AddressRef {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Some(set) = set_name(text) {
            return set.map(Self::Set);
        }
        let Some((address, len)) = text.split_once('/') else {
            let address = parse_address(text)?;
            return Ok(Self::Prefix(IpNet::from(address)));
        };
        let address = parse_address(address)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let net = parse_number(len)
            .and_then(|len: u8| IpNet::new(address, len).ok())
            .ok_or_else(|| format!("`/{len}` is not a prefix length from 0 to {longest}"))?;
        if net.addr() != net.network() {
            return Err(ValueError::with_help(
                format!("`{text}` has host bits set"),
                format!(
                    "the prefix is \"{}\", the single address \"{address}\"",
                    net.trunc()
                ),
            ));
        }
        Ok(Self::Prefix(net))
    }
}

fn parse_address(text: &str) -> Result<IpAddr, ValueError> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| format!("`{text}` is not an IPv4 or IPv6 address"))?;
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            // Such addresses never stand on the wire (RFC 4291, 2.5.5.2): the rule would match nothing.
            Some(v4) => Err(ValueError::with_help(
                format!("`{text}` is an IPv4-mapped address, which no packet may carry"),
                format!("for IPv4 write \"{v4}\""),
            )),
            None => Ok(address),
        },
        IpAddr::V4(_) => Ok(address),
    }
}

impl fmt::Display for AddressRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(net) if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr()),
            Self::Prefix(net) => write!(f, "{net}"),
            Self::Set(name) => write!(f, "@{name}"),
        }
    }
}

impl FromStr for ServiceRef {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match set_name(text) {
            Some(set) => set.map(Self::Set),
            None => text.parse().map(Self::Service),
        }
    }
}

impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => write!(f, "{service}"),
            Self::Set(name) => write!(f, "@{name}"),
        }
    }
}

impl FromStr for Service {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (protocol, rest) = match text.split_once('/') {
            Some((protocol, rest)) => (protocol, Some(rest)),
            None => (text, None),
        };
        match protocol {
            "tcp" => Ok(Self::Tcp(rest.map_or(Ok(PortRange::ALL), str::parse)?)),
            "udp" => Ok(Self::Udp(rest.map_or(Ok(PortRange::ALL), str::parse)?)),
            "icmp" => Ok(Self::Icmp(parse_icmp(rest, ICMP_TYPES)?)),
            "icmpv6" => Ok(Self::Icmpv6(parse_icmp(rest, ICMPV6_TYPES)?)),
            "proto" => {
                let number = rest.ok_or("`proto` needs a number: `proto/47`")?;
                parse_number(number)
                    .map(Self::Protocol)
                    .ok_or_else(|| format!("`{number}` is not an IP protocol number from 0 to 255").into())
            }
            other => {
                let nearest = super::hint::nearest(other, ["tcp", "udp", "icmp", "icmpv6", "proto"]);
                Err(ValueError {
                    message: format!("`{other}` is not a service"),
                    help: nearest.map(|name| format!("did you mean `{name}`?")),
                })
            }
        }
    }
}

fn parse_icmp(text: Option<&str>, names: &[(&str, u8)]) -> Result<IcmpMatch, ValueError> {
    let Some(text) = text else {
        return Ok(IcmpMatch::default());
    };
    let (icmp_type, code) = match text.split_once('/') {
        Some((icmp_type, code)) => (icmp_type, Some(code)),
        None => (text, None),
    };
    let named = names.iter().find(|(name, _)| *name == icmp_type).map(|(_, n)| *n);
    let number = named.or_else(|| parse_number(icmp_type)).ok_or_else(|| {
        let nearest = super::hint::nearest(icmp_type, names.iter().map(|(name, _)| *name));
        let list = || names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        ValueError::with_help(
            format!("`{icmp_type}` is neither the name nor the number of a type"),
            nearest.map_or_else(
                || format!("a number from 0 to 255, or one of {}", list()),
                |name| format!("did you mean `{name}`?"),
            ),
        )
    })?;
    let code = match code {
        None => None,
        Some(code) => {
            Some(parse_number(code).ok_or_else(|| format!("`{code}` is not a code from 0 to 255"))?)
        }
    };
    Ok(IcmpMatch {
        icmp_type: Some(number),
        code,
    })
}

impl Service {
    /// Why no packet of this service opens a session, whatever the rules say, and what to do about it; `None`: it may.
    #[must_use]
    pub fn never_opens(self) -> Option<(&'static str, &'static str)> {
        const ERROR: (&str, &str) = (
            "no rule is asked about ICMP errors",
            "remove it: an error belongs to the session that it is about",
        );
        const DISCOVERY: (&str, &str) = (
            "no rule is asked about neighbour discovery and MLD",
            "remove it: they cross by themselves",
        );
        const REPLY: (&str, &str) = (
            "it answers a request",
            "name the request instead: its replies pass with the session",
        );
        match self {
            Self::Icmp(IcmpMatch {
                icmp_type: Some(icmp_type),
                ..
            }) => match icmp_type {
                3 | 4 | 5 | 11 | 12 => Some(ERROR),
                _ => answered_type(true, icmp_type).map(|_| REPLY),
            },
            Self::Icmpv6(IcmpMatch {
                icmp_type: Some(icmp_type),
                ..
            }) => match icmp_type {
                0..=127 => Some(ERROR),
                130..=137 | 143 => Some(DISCOVERY),
                _ => answered_type(false, icmp_type).map(|_| REPLY),
            },
            _ => None,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(ports) if *ports == PortRange::ALL => f.write_str("tcp"),
            Self::Udp(ports) if *ports == PortRange::ALL => f.write_str("udp"),
            Self::Tcp(ports) => write!(f, "tcp/{ports}"),
            Self::Udp(ports) => write!(f, "udp/{ports}"),
            Self::Icmp(icmp) => write_icmp(f, "icmp", *icmp, ICMP_TYPES),
            Self::Icmpv6(icmp) => write_icmp(f, "icmpv6", *icmp, ICMPV6_TYPES),
            Self::Protocol(number) => write!(f, "proto/{number}"),
        }
    }
}

fn write_icmp(
    f: &mut fmt::Formatter<'_>,
    protocol: &str,
    icmp: IcmpMatch,
    names: &[(&str, u8)],
) -> fmt::Result {
    f.write_str(protocol)?;
    let Some(number) = icmp.icmp_type else {
        return Ok(());
    };
    match names.iter().find(|(_, n)| *n == number) {
        Some((name, _)) => write!(f, "/{name}")?,
        None => write!(f, "/{number}")?,
    }
    icmp.code.map_or(Ok(()), |code| write!(f, "/{code}"))
}

impl FromStr for PortRange {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let port = |text: &str| {
            parse_number::<u16>(text)
                .ok_or_else(|| ValueError::from(format!("`{text}` is not a port from 0 to 65535")))
        };
        match text.split_once('-') {
            None => port(text).map(|port| Self {
                first: port,
                last: port,
            }),
            Some((first, last)) => {
                let range = Self {
                    first: port(first)?,
                    last: port(last)?,
                };
                if range.first > range.last {
                    return Err(ValueError::with_help(
                        format!("the range `{text}` is reversed"),
                        format!("write \"{last}-{first}\""),
                    ));
                }
                Ok(range)
            }
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for CpuList {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let cpu = |text: &str| {
            parse_number::<u16>(text)
                .filter(|cpu| *cpu <= MAX_CPU)
                .ok_or_else(|| format!("`{text}` is not a CPU number from 0 to {MAX_CPU}"))
        };
        let mut cpus = Vec::new();
        if text.trim().is_empty() {
            return Err("a node needs at least one worker".into());
        }
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (cpu(first)?, cpu(last)?);
            if first > last {
                return Err(ValueError::with_help(
                    format!("the range `{part}` is reversed"),
                    format!("write \"{last}-{first}\""),
                ));
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(format!("CPU {cpu} is named twice").into());
                }
                cpus.push(cpu);
            }
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        while let Some(&first) = rest.first() {
            let run = rest
                .iter()
                .zip(first..)
                .take_while(|(cpu, expected)| *cpu == expected)
                .count();
            if rest.len() < self.0.len() {
                f.write_str(",")?;
            }
            match run {
                1 => write!(f, "{first}")?,
                _ => write!(f, "{first}-{}", rest[run - 1])?,
            }
            rest = &rest[run..];
        }
        Ok(())
    }
}

impl Device {
    /// The name that a virtual device has in the EAL (`net_af_xdp0`), or the PCI address.
    #[must_use]
    pub fn eal_name(&self) -> &str {
        match self {
            Self::Pci(address) => address,
            Self::Virtual(text) => text.split(',').next().unwrap_or(text),
        }
    }

    /// The kernel interface under a virtual device (`iface=` of net_af_xdp, net_af_packet, net_tap, ...).
    #[must_use]
    pub fn kernel_interface(&self) -> Option<&str> {
        match self {
            Self::Pci(_) => None,
            // Its `iface` is a socket.
            Self::Virtual(text) if text.starts_with("net_vhost") => None,
            Self::Virtual(text) => text
                .split(',')
                .find_map(|argument| argument.strip_prefix("iface=")),
        }
    }
}

impl FromStr for Device {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Some(device) = text.strip_prefix("vdev:") {
            let name = device.split(',').next().unwrap_or(device);
            let driver = name.trim_end_matches(|c: char| c.is_ascii_digit());
            if driver.len() <= "net_".len()
                || !driver.starts_with("net_")
                || name.contains(char::is_whitespace)
            {
                return Err(format!("`{name}` is not a DPDK network device").into());
            }
            return Ok(Self::Virtual(device.to_owned()));
        }
        pci_address(text)
            .map(Self::Pci)
            .ok_or_else(|| format!("`{text}` is neither a PCI address nor a virtual device").into())
    }
}

/// `[domain:]bus:device.function`, as lspci writes it; the domain is 0000 where it is left out.
pub(crate) fn pci_address(text: &str) -> Option<String> {
    let hex = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        (digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u32::from_str_radix(text, 16).ok())
            .flatten()
    };
    let (address, function) = text.split_once('.')?;
    let (domain, bus, device) = match *address.split(':').collect::<Vec<_>>() {
        [bus, device] => ("0000", bus, device),
        [domain, bus, device] => (domain, bus, device),
        _ => return None,
    };
    let (domain, bus) = (hex(domain, 4..=8)?, hex(bus, 2..=2)?);
    let (device, function) = (hex(device, 2..=2)?, hex(function, 1..=1)?);
    (device < 32 && function < 8).then(|| format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(address) => f.write_str(address),
            Self::Virtual(text) => write!(f, "vdev:{text}"),
        }
    }
}

/// Decimal digits alone: Rust's own parser takes a sign too.
fn parse_number<T: FromStr>(text: &str) -> Option<T> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}
