//! systemd's readiness protocol (`sd_notify(3)`): a datagram to the socket that `NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells the service manager `state` (`READY=1`, `STOPPING=1`); without one, nothing happens.
///
/// # Errors
/// When there is one and the message cannot be sent.
pub fn notify(state: &str) -> io::Result<()> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(socket) => notify_at(&socket, state),
        None => Ok(()),
    }
}

fn notify_at(socket: &OsStr, state: &str) -> io::Result<()> {
    // A leading `@` stands for the zero byte of the abstract namespace (unix(7)).
    let address = match socket.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> Vec<u8> {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn reaches_sockets_with_a_path_and_abstract_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        notify_at(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(receive(&manager), b"READY=1");

        let name = format!("haechi-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        notify_at(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        assert_eq!(receive(&manager), b"STOPPING=1");
    }

    #[test]
    fn a_manager_that_is_gone_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(notify_at(dir.path().join("gone").as_os_str(), "READY=1").is_err());
    }
}
