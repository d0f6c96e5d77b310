//! Real programs and sockets that talk through the node.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{Host, Process, wait_for};

/// Longer than anything here takes unless a packet was lost for good.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Host {
    /// A TCP listener on any address of this host.
    #[must_use]
    pub fn listen(&self, port: u16) -> TcpListener {
        self.ns
            .run(|| TcpListener::bind(SocketAddr::new(IpAddr::from([0u16; 8]), port)).unwrap())
    }

    /// A UDP socket on any address of this host.
    #[must_use]
    pub fn udp(&self, port: u16) -> UdpSocket {
        let socket = self
            .ns
            .run(|| UdpSocket::bind(SocketAddr::new(IpAddr::from([0u16; 8]), port)).unwrap());
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket
    }

    /// Tries to connect, for this long at most.
    pub fn connect_within(&self, to: IpAddr, port: u16, patience: Duration) -> std::io::Result<TcpStream> {
        self.ns
            .run(|| TcpStream::connect_timeout(&SocketAddr::new(to, port), patience))
    }

    /// Connects.
    #[must_use]
    pub fn connect(&self, to: IpAddr, port: u16) -> TcpStream {
        let stream = self
            .connect_within(to, port, TIMEOUT)
            .unwrap_or_else(|e| panic!("{} to {to} port {port}: {e}", self.port));
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// A web server over a directory, on all addresses; answers when this returns.
    #[must_use]
    pub fn web_server(&self, log: &Path, directory: &Path, port: u16) -> Process {
        let line = format!(
            "python3 -m http.server --bind :: --directory {} {port}",
            directory.display()
        );
        let server = self.ns.spawn(log, &format!("web-{}", self.port), &line);
        wait_for("the web server listens", || {
            let attempt = self.connect_within(IpAddr::from([127, 0, 0, 1]), port, TIMEOUT);
            attempt.map(drop).map_err(|e| format!("{e}: {}", server.stderr()))
        });
        server
    }

    /// An iperf3 server; listens when this returns.
    #[must_use]
    pub fn iperf_server(&self, log: &Path) -> Process {
        let server = self.ns.spawn(
            log,
            &format!("iperf3-{}", self.port),
            "iperf3 --server --forceflush",
        );
        wait_for("the iperf3 server listens", || {
            if server.stdout().contains("Server listening") {
                Ok(())
            } else {
                Err(server.stderr())
            }
        });
        server
    }

    /// An iperf3 client, to its end: what it reports (`--json`).
    #[must_use]
    pub fn iperf(&self, to: IpAddr, options: &str) -> Value {
        let (ok, said) = self
            .ns
            .try_exec(&format!("iperf3 --client {to} --json {options}"));
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
        assert!(
            ok && report["error"].is_null(),
            "iperf3 {options}: {}",
            report["error"]
        );
        report
    }
}

/// Sends both ways over a connection and checks what arrives; both ends are then closed in order.
pub fn converse(client: TcpStream, server: TcpStream) {
    let (mut client, mut server) = (client, server);
    server.set_read_timeout(Some(TIMEOUT)).unwrap();
    for (from, to, text) in [(0, 1, b"question"), (1, 0, b"response")] {
        let ends = [&mut client, &mut server];
        let mut heard = [0; 8];
        let [a, b] = ends;
        let (from, to): (&mut TcpStream, &mut TcpStream) = if from < to { (a, b) } else { (b, a) };
        from.write_all(text).unwrap();
        to.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, text);
    }
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
    drop(server);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}

/// Both ends of a connection say something, and are heard. The connection stays.
pub fn echo(near: &TcpStream, far: &TcpStream) {
    for (mut from, mut to) in [(near, far), (far, near)] {
        from.write_all(b"are you there?").unwrap();
        let mut heard = [0; 14];
        to.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"are you there?");
    }
}
