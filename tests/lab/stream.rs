//! A stream of small datagrams to an echo and back, each of them accounted for.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Host, wait_for};

/// Between two datagrams.
const EVERY: Duration = Duration::from_millis(1);
/// Nothing came back for so long: nothing more comes.
const SILENCE: Duration = Duration::from_secs(1);

/// A stream that runs.
pub struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<(Vec<u64>, Duration)>,
    echo: JoinHandle<()>,
    echo_stop: Arc<AtomicBool>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Datagrams sent.
    pub sent: u64,
    /// Numbers of those that did not come back.
    pub missing: Vec<u64>,
    /// The longest time in which none came back.
    pub gap: Duration,
}

fn number(datagram: &[u8]) -> Option<u64> {
    datagram.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

impl Stream {
    /// Starts one; it is on its way and back when this returns.
    #[must_use]
    pub fn start(client: &Host, server: &Host, to: IpAddr, port: u16) -> Self {
        let (stop, echo_stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let far = server.udp(port);
        let echo = std::thread::spawn({
            let stop = Arc::clone(&echo_stop);
            move || echo(&far, &stop)
        });
        let near = client.udp(0);
        near.set_read_timeout(Some(SILENCE)).unwrap();
        near.connect(SocketAddr::new(to, port)).unwrap();
        // A neighbour's address is asked for once, before anything is counted.
        wait_for("the echo answers", || {
            near.send(b"?").unwrap();
            near.recv(&mut [0; 8]).map_err(|e| e.to_string())
        });
        let sender = std::thread::spawn({
            let (near, stop) = (near.try_clone().unwrap(), Arc::clone(&stop));
            move || send(&near, &stop)
        });
        let receiver = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || receive(&near, &stop)
        });
        Self {
            stop,
            sender,
            receiver,
            echo,
            echo_stop,
        }
    }

    /// Ends it and waits for what is on its way.
    #[must_use]
    pub fn finish(self) -> Account {
        self.stop.store(true, Ordering::Release);
        let sent = self.sender.join().unwrap();
        let (mut heard, gap) = self.receiver.join().unwrap();
        self.echo_stop.store(true, Ordering::Release);
        self.echo.join().unwrap();
        heard.sort_unstable();
        heard.dedup();
        let missing = (0..sent)
            .filter(|number| heard.binary_search(number).is_err())
            .collect();
        Account { sent, missing, gap }
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Acquire) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from).unwrap();
        }
    }
}

fn send(socket: &UdpSocket, stop: &AtomicBool) -> u64 {
    let start = Instant::now();
    for number in 0_u64.. {
        if stop.load(Ordering::Acquire) {
            return number;
        }
        // One that could not be sent is missed.
        let _ = socket.send(&number.to_be_bytes());
        let due = EVERY * u32::try_from(number + 1).unwrap();
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    unreachable!("so many are not sent")
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> (Vec<u64>, Duration) {
    let (mut heard, mut gap) = (Vec::new(), Duration::ZERO);
    let (mut last, mut buffer) = (Instant::now(), [0; 64]);
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                heard.extend(number(&buffer[..length]));
                gap = gap.max(last.elapsed());
                last = Instant::now();
            }
            // At its end this one is no gap.
            Err(_) if stop.load(Ordering::Acquire) => return (heard, gap),
            Err(_) => {}
        }
    }
}
