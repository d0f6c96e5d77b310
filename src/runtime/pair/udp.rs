//! The link between the nodes of an HA pair: datagrams over a kernel interface, many with one system call.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{IpFreebind, IpMtu};
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrStorage, bind, connect, recvmmsg,
    sendmmsg, setsockopt, socket, sockopt,
};

/// Datagrams of one system call.
pub const BATCH: usize = 64;
/// Bytes of the longest datagram that is taken.
pub const LONGEST: usize = 9216;
/// What the kernel keeps of datagrams on their way, each way: some milliseconds of a bulk resync.
const BUFFER: usize = 4 << 20;

/// Headers before a UDP payload.
const fn headers(peer: SocketAddr) -> usize {
    match peer {
        SocketAddr::V4(_) => 20 + 8,
        SocketAddr::V6(_) => 40 + 8,
    }
}

/// A socket that is connected to the peer's: what others send does not reach it.
#[derive(Debug)]
pub struct UdpPath {
    socket: UdpSocket,
    peer: SocketAddr,
    buffers: Vec<[u8; LONGEST]>,
    /// Datagrams that the kernel did not take: its buffers were full, or there is no way to the peer.
    pub unsent: u64,
}

impl UdpPath {
    /// Opens it. The local address need not be there yet: its interface may come later.
    ///
    /// # Errors
    /// What the kernel says; the address is used by another process, for instance.
    pub fn open(local: SocketAddr, peer: SocketAddr) -> std::io::Result<Self> {
        let family = if local.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(family, SockType::Datagram, flags, None)?;
        setsockopt(&fd, IpFreebind, &true)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
        // As much of it as the system allows.
        let _ = setsockopt(&fd, sockopt::RcvBuf, &BUFFER);
        let _ = setsockopt(&fd, sockopt::SndBuf, &BUFFER);
        // Where there is no way to the peer yet it is tried again with each sending.
        let connected = connect(fd.as_raw_fd(), &SockaddrStorage::from(peer));
        if !matches!(connected, Ok(()) | Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH)) {
            connected?;
        }
        Ok(Self {
            socket: UdpSocket::from(fd),
            peer,
            buffers: vec![[0; LONGEST]; BATCH],
            unsent: 0,
        })
    }

    /// To wait for.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Bytes of the longest datagram that takes the path whole, as far as the kernel knows.
    #[must_use]
    pub fn datagram(&self) -> Option<usize> {
        let mtu = nix::sys::socket::getsockopt(&self.socket, IpMtu).ok()?;
        usize::try_from(mtu).ok()?.checked_sub(headers(self.peer))
    }

    /// Sends datagrams; what the kernel does not take is lost, and counted.
    pub fn send(&mut self, datagrams: &[Vec<u8>]) {
        let mut rest = datagrams;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BATCH));
            let mut left = now;
            while !left.is_empty() {
                match self.send_some(left) {
                    Ok(sent) if sent > 0 => left = &left[sent..],
                    _ => {
                        // One that cannot go does not keep the others.
                        self.unsent += 1;
                        left = &left[1..];
                    }
                }
            }
            rest = later;
        }
    }

    fn send_some(&mut self, datagrams: &[Vec<u8>]) -> nix::Result<usize> {
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(datagrams.len(), None);
        let slices: Vec<_> = datagrams
            .iter()
            .map(|datagram| [IoSlice::new(datagram)])
            .collect();
        let addresses = vec![None; datagrams.len()];
        let fd = self.socket.as_raw_fd();
        let sent = sendmmsg(fd, &mut headers, &slices, addresses, [], MsgFlags::MSG_DONTWAIT);
        match sent {
            Ok(results) => Ok(results.count()),
            Err(Errno::EDESTADDRREQ | Errno::ENOTCONN) => {
                connect(fd, &SockaddrStorage::from(self.peer))?;
                Ok(0)
            }
            Err(e) => Err(e),
        }
    }

    /// Takes the datagrams that are there, at most [`BATCH`]. Returns how many.
    pub fn receive(&mut self, mut each: impl FnMut(&mut [u8])) -> usize {
        let mut lengths = [0; BATCH];
        let mut count = 0;
        {
            let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
            let mut slices: Vec<_> = self
                .buffers
                .iter_mut()
                .map(|buffer| [IoSliceMut::new(buffer)])
                .collect();
            let fd = self.socket.as_raw_fd();
            // An error that an earlier sending caused (nobody listens there) is the peer's silence.
            let received = recvmmsg(fd, &mut headers, &mut slices, MsgFlags::MSG_DONTWAIT, None);
            for message in received.into_iter().flatten() {
                lengths[count] = message.bytes;
                count += 1;
            }
        }
        for (buffer, length) in self.buffers.iter_mut().zip(&lengths[..count]) {
            if let Some(datagram) = buffer.get_mut(..*length) {
                each(datagram);
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two free ports of this host.
    fn addresses(host: &str) -> [SocketAddr; 2] {
        let sockets = [0, 1].map(|_| UdpSocket::bind((host, 0)).unwrap());
        sockets.map(|socket| socket.local_addr().unwrap())
    }

    #[test]
    fn datagrams_arrive_whole_and_in_order_and_strangers_are_not_heard() {
        for host in ["127.0.0.1", "::1"] {
            let [a, b] = addresses(host);
            let (mut near, mut far) = (UdpPath::open(a, b).unwrap(), UdpPath::open(b, a).unwrap());
            let stranger = UdpSocket::bind((host, 0)).unwrap();
            stranger.send_to(b"let me in", b).unwrap();
            let sent: Vec<Vec<u8>> = (0..200).map(|n| vec![n as u8; 7 * n]).collect();
            near.send(&sent);
            let mut received = vec![];
            while received.len() < sent.len() {
                far.receive(|datagram| received.push(datagram.to_vec()));
            }
            assert!(received == sent, "{host}");
            assert_eq!((far.receive(|_| ()), near.unsent), (0, 0));
            assert!(near.datagram().unwrap() > 1400);
        }
    }

    #[test]
    fn a_peer_that_is_not_there_is_silent_and_one_that_comes_is_heard() {
        let [a, b] = addresses("127.0.0.1");
        let mut near = UdpPath::open(a, b).unwrap();
        near.send(&[vec![1], vec![2], vec![3]]);
        assert_eq!(near.receive(|_| ()), 0);
        let mut far = UdpPath::open(b, a).unwrap();
        let mut received = vec![];
        while received.is_empty() {
            near.send(&[vec![4]]);
            far.receive(|datagram| received.push(datagram.to_vec()));
        }
        assert_eq!(received[0], [4]);
    }

    #[test]
    fn an_address_that_is_not_there_yet_is_no_error_and_one_in_use_is() {
        let [a, b] = addresses("127.0.0.1");
        let later = UdpPath::open(
            "192.0.2.77:7700".parse().unwrap(),
            "192.0.2.78:7700".parse().unwrap(),
        );
        assert!(later.is_ok());
        let _first = UdpPath::open(a, b).unwrap();
        assert!(UdpPath::open(a, b).is_err());
    }
}
