//! Whether this host uses an interface: its addresses, and default routes through it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::control::doctor::Host;

// <linux/netlink.h>, <linux/rtnetlink.h>, <linux/if_addr.h>
const RTM_GETADDR: u16 = 22;
const RTM_NEWADDR: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x1 | 0x300;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Of `struct nlmsghdr` and `struct ifaddrmsg`.
const HEADER: usize = 16;
const IFADDRMSG: usize = 8;

/// The addresses of an interface, but for IPv6 link-local ones (rtnetlink(7), RTM_GETADDR).
pub(super) fn addresses(interface: u32) -> io::Result<Vec<IpAddr>> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is protocol 0.
        None,
    )?;
    let mut request = Vec::with_capacity(HEADER + IFADDRMSG);
    request.extend(((HEADER + IFADDRMSG) as u32).to_ne_bytes());
    request.extend(RTM_GETADDR.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8 + IFADDRMSG]);
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (length, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if take(&buffer[..length], interface, &mut found)? {
            return Ok(found);
        }
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Parts of `length` with their headers, each at a multiple of four: (header and body, type).
fn parts(mut bytes: &[u8], wide: bool) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind, header) = if wide {
            let length = u32::from_ne_bytes(number(bytes, 0)?) as usize;
            (length, u16::from_ne_bytes(number(bytes, 4)?), HEADER)
        } else {
            let length = usize::from(u16::from_ne_bytes(number(bytes, 0)?));
            (length, u16::from_ne_bytes(number(bytes, 2)?), 4)
        };
        let body = bytes.get(header..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, body))
    })
}

/// Reads one datagram of an answer. True: it was the last.
fn take(datagram: &[u8], interface: u32, found: &mut Vec<IpAddr>) -> io::Result<bool> {
    for (kind, body) in parts(datagram, true) {
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = number(body, 0).map_or(0, i32::from_ne_bytes);
                return Err(io::Error::from_raw_os_error(-code));
            }
            RTM_NEWADDR if number(body, 4).map(u32::from_ne_bytes) == Some(interface) => {
                found.extend(address(body.get(IFADDRMSG..).unwrap_or(&[])));
            }
            _ => {}
        }
    }
    // A datagram without a single whole message would be asked for ever.
    if datagram.len() < HEADER {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(false)
}

/// The address among a message's attributes: the own one, where a point-to-point link has two.
fn address(attributes: &[u8]) -> Option<IpAddr> {
    let of = |wanted: u16| parts(attributes, false).find(|(kind, _)| *kind == wanted);
    let (_, bytes) = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?;
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(|b| Ipv4Addr::from(b).into());
    let v6 = || {
        let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
        (!address.is_unicast_link_local()).then_some(address.into())
    };
    v4().or_else(v6)
}

/// Does a default route lead through the interface? (proc_net(5): `route` and `ipv6_route`)
pub(super) fn has_default_route(host: &Host, interface: &str) -> bool {
    // Iface Destination Gateway Flags RefCnt Use Metric Mask ...
    let v4 = host.read("proc/net/route").unwrap_or_default();
    let v4 = v4.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [name, "00000000", _, _, _, _, _, "00000000", ..] if name == interface)
    });
    // Destination and its prefix length in hexadecimal first, flags and the interface last. RTF_REJECT (0x200): "unreachable".
    let v6 = host.read("proc/net/ipv6_route").unwrap_or_default();
    let v6 = v6.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, length, .., flags, name] = fields[..] else {
            return false;
        };
        let rejects = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & 0x200 != 0);
        name == interface && length == "00" && destination.bytes().all(|b| b == b'0') && !rejects
    });
    v4 || v6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((4 + body.len()) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn new_address(interface: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend(interface.to_ne_bytes());
        body.extend(attributes.concat());
        message(RTM_NEWADDR, &body)
    }

    #[test]
    fn an_interface_s_own_addresses_are_found() {
        let global: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let local: Ipv6Addr = "fe80::1".parse().unwrap();
        let datagram = [
            new_address(
                7,
                &[
                    part(3, b"eth0\0"),
                    part(IFA_ADDRESS, &[10, 0, 0, 1]),
                    part(IFA_LOCAL, &[10, 0, 0, 2]),
                ],
            ),
            new_address(8, &[part(IFA_LOCAL, &[192, 0, 2, 1])]),
            new_address(7, &[part(IFA_ADDRESS, &local.octets())]),
            new_address(7, &[part(IFA_ADDRESS, &global.octets())]),
            new_address(7, &[part(IFA_ADDRESS, &[1, 2])]),
            new_address(7, &[]),
        ]
        .concat();
        let mut found = Vec::new();
        assert!(!take(&datagram, 7, &mut found).unwrap());
        assert_eq!(found, [IpAddr::from([10, 0, 0, 2]), global.into()]);
        assert!(take(&message(NLMSG_DONE, &[0; 4]), 7, &mut found).unwrap());
        let error = take(&message(NLMSG_ERROR, &(-1_i32).to_ne_bytes()), 7, &mut found);
        assert_eq!(error.unwrap_err().raw_os_error(), Some(1));
        // Whatever comes, it ends.
        for cut in 0..datagram.len() {
            let _ = take(&datagram[..cut], 7, &mut found);
        }
        assert!(take(&[], 7, &mut found).is_err());
        let _ = take(&[0; 64], 7, &mut found);
    }

    #[test]
    fn the_kernel_tells_the_addresses_of_loopback() {
        let index = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
        let found = addresses(index.trim().parse().unwrap()).unwrap();
        assert!(found.contains(&IpAddr::from([127, 0, 0, 1])), "{found:?}");
        assert_eq!(addresses(u32::MAX).unwrap(), [] as [IpAddr; 0]);
    }
}
