//! Connections of a server: taken, counted, turned away when there are too many, and ended when the server stops.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::Limits;

/// Where connections come from: a Unix socket or a TCP port.
pub(in crate::control) trait Listen {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static;

    /// The next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// What is served, and to whom it is refused.
pub(in crate::control) struct Served<'a> {
    /// What the log calls it: `control socket`.
    pub(in crate::control) what: &'a str,
    /// Answers requests.
    pub(in crate::control) router: Router,
    /// A whole answer for a client for which there is no slot.
    pub(in crate::control) refusal: String,
    /// What clients may use up.
    pub(in crate::control) limits: Limits,
}

/// Serves until `shutdown` is ready. Then `listener` is closed, what `at_stop` holds is dropped, and the open requests have their time.
pub(in crate::control) async fn serve<L: Listen, T>(
    listener: L,
    at_stop: T,
    served: Served<'_>,
    shutdown: impl Future<Output = ()>,
) {
    let Served {
        what,
        router,
        refusal,
        limits,
    } = served;
    let slots = Arc::new(Semaphore::new(limits.connections));
    let refusal: Arc<str> = Arc::from(refusal);
    let turned_away = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.next() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(e) => {
                // Out of file descriptors, most likely: a moment later some may be free.
                tracing::warn!("{what}: cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            match Arc::clone(&turned_away).try_acquire_owned() {
                Ok(slot) => {
                    let refusal = Arc::clone(&refusal);
                    tokio::spawn(async move {
                        turn_away(stream, &refusal).await;
                        drop(slot);
                    });
                }
                // A socket just made has room for it, and whoever is to read it can.
                Err(_) => drop(rustix::io::write(&stream, refusal.as_bytes())),
            }
            continue;
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            match tokio::time::timeout(limits.connection, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::debug!("connection: {e}"),
                Err(_) => tracing::debug!("connection: closed after {:?}", limits.connection),
            }
            drop(slot);
        });
    }
    // No new connections while the open ones finish.
    drop(listener);
    drop(at_stop);
    if tokio::time::timeout(limits.drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("{what}: requests were cut off by the stop");
    }
}

/// Tells a client so, and lets it read that before the connection goes.
async fn turn_away(mut stream: impl AsyncRead + AsyncWrite + Unpin, refusal: &str) {
    let exchange = async {
        stream.write_all(refusal.as_bytes()).await?;
        stream.shutdown().await?;
        // A socket closed with a request unread in it takes its answer along: read until the client has hung up.
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        Ok(())
    };
    // A client that is gone or does not read has nothing to be told.
    let _: Result<io::Result<()>, _> = tokio::time::timeout(Duration::from_secs(1), exchange).await;
}
