//! A web server in the test, whose pages are as long as their names say, and curl, which fetches them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Host;

/// What pages consist of, over and over: of a length that no buffer has, so that a piece that is missing or twice there shows.
const BLOCK: usize = 1_000_003;

fn block() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..BLOCK).map(|_| next()).collect()
}

/// Serves `GET /N` with N bytes until it is dropped.
pub struct Site {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Its pages' content.
    block: Arc<Vec<u8>>,
    port: u16,
}

impl Site {
    /// Listens when this returns.
    #[must_use]
    pub fn start(host: &Host, port: u16) -> Self {
        let listener = host.listen(port);
        listener.set_nonblocking(true).unwrap();
        let (stop, block) = (Arc::new(AtomicBool::new(false)), Arc::new(block()));
        let thread = std::thread::spawn({
            let (stop, block) = (Arc::clone(&stop), Arc::clone(&block));
            move || accept(&listener, &stop, &block)
        });
        Self {
            stop,
            thread: Some(thread),
            block,
            port,
        }
    }

    /// A page's address.
    #[must_use]
    pub fn url(&self, host: IpAddr, bytes: usize) -> String {
        format!("http://{}/{bytes}", SocketAddr::new(host, self.port))
    }

    /// A client fetches a page by curl; all of it must be right. `each` is called with 1, 2 and 3
    /// once so many quarters of it have come.
    pub fn download(&self, client: &Host, from: IpAddr, bytes: usize, mut each: impl FnMut(usize)) {
        let mut curl = Curl(
            client
                .ns
                .command("curl")
                .args([
                    "--silent",
                    "--show-error",
                    "--fail",
                    "--noproxy",
                    "*",
                    "--max-time",
                    "90",
                ])
                .arg(self.url(from, bytes))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut page = curl.0.stdout.take().unwrap();
        let (mut had, mut quarter, mut buffer) = (0, 1, vec![0; 1 << 18]);
        loop {
            let count = page.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            let mut piece = &buffer[..count];
            while !piece.is_empty() {
                let should = &self.block[had % BLOCK..];
                let length = piece.len().min(should.len());
                assert!(piece[..length] == should[..length], "wrong bytes after {had}");
                (had, piece) = (had + length, &piece[length..]);
            }
            if quarter < 4 && had >= bytes / 4 * quarter {
                each(quarter);
                quarter += 1;
            }
        }
        let status = curl.0.wait().unwrap();
        assert!(
            status.success() && had == bytes,
            "{status}: {had} of {bytes} bytes"
        );
    }
}

struct Curl(Child);

impl Drop for Curl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool, block: &Arc<Vec<u8>>) {
    while !stop.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((stream, _)) => {
                let block = Arc::clone(block);
                // A client that goes away is its own affair.
                std::thread::spawn(move || serve(stream, &block));
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(2)),
            Err(e) => panic!("the web server: {e}"),
        }
    }
}

fn serve(mut stream: TcpStream, block: &[u8]) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split_whitespace().nth(1).unwrap_or_default();
    let mut left: usize = path.trim_start_matches('/').parse().unwrap_or(0);
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {left}\r\nConnection: close\r\n\r\n"
    )?;
    while left > 0 {
        let piece = &block[..left.min(block.len())];
        stream.write_all(piece)?;
        left -= piece.len();
    }
    Ok(())
}
