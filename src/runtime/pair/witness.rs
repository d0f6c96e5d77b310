//! The witness of an HA pair: a host that both nodes can reach, asked by ping before a node that does not hear its peer leads (RFC
//! 792; RFC 4443, section 4.1).

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket};
use std::os::fd::AsRawFd;

use crate::packet::checksum::Sum;

/// A socket for pings to the witness.
#[derive(Debug)]
pub(super) struct Witness {
    socket: UdpSocket,
    address: IpAddr,
    /// The kernel gives the identifier; only answers to it come.
    is_raw: bool,
    id: u16,
}

const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

impl Witness {
    /// Opens a socket to ping this address.
    ///
    /// # Errors
    /// When the process may open none (`CAP_NET_RAW`, or `net.ipv4.ping_group_range`).
    pub(super) fn open(address: IpAddr) -> std::io::Result<Self> {
        let (family, protocol) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (fd, is_raw) = match socket(family, SockType::Datagram, flags, protocol) {
            Ok(fd) => (fd, false),
            Err(_) => (socket(family, SockType::Raw, flags, protocol)?, true),
        };
        // Without a way to it now: it is tried again with each question.
        let _ = connect(
            fd.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::new(address, 0)),
        );
        Ok(Self {
            socket: UdpSocket::from(fd),
            address,
            is_raw,
            id: std::process::id() as u16,
        })
    }

    /// Asks, with this number. An error is silence.
    pub(super) fn ask(&self, number: u16) {
        let mut echo = [0; 8];
        echo[0] = if self.address.is_ipv4() { ECHO } else { ECHO_V6 };
        echo[4..6].copy_from_slice(&self.id.to_be_bytes());
        echo[6..8].copy_from_slice(&number.to_be_bytes());
        if self.address.is_ipv4() {
            let sum = Sum::ZERO.bytes(&echo).checksum();
            echo[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        if self.socket.send(&echo).is_err() {
            let to = SocketAddr::new(self.address, 0);
            let _ = connect(self.socket.as_raw_fd(), &SockaddrStorage::from(to));
            let _ = self.socket.send(&echo);
        }
    }

    /// The numbers of the questions that were answered since.
    pub(super) fn answers(&self, mut each: impl FnMut(u16)) {
        let mut buffer = [0; 1500];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    if let Some(number) = self.read(&buffer[..length]) {
                        each(number);
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn read(&self, packet: &[u8]) -> Option<u16> {
        // A raw IPv4 socket gives the IP header, too.
        let echo = if self.is_raw && self.address.is_ipv4() {
            packet.get(usize::from(packet.first()? & 15) * 4..)?
        } else {
            packet
        };
        let reply = if self.address.is_ipv4() {
            ECHO_REPLY
        } else {
            ECHO_REPLY_V6
        };
        let [kind, 0, _, _, a, b, c, d] = *echo.first_chunk()? else {
            return None;
        };
        let is_ours = !self.is_raw || u16::from_be_bytes([a, b]) == self.id;
        (kind == reply && is_ours).then(|| u16::from_be_bytes([c, d]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_there_answers() {
        for address in ["127.0.0.1", "::1"] {
            let witness = Witness::open(address.parse().unwrap()).unwrap();
            for number in [7, 0xffff] {
                witness.ask(number);
            }
            let mut heard = vec![];
            while heard.len() < 2 {
                witness.answers(|number| heard.push(number));
            }
            assert_eq!(heard, [7, 0xffff], "{address}");
        }
    }
}
