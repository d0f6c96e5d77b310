//! The socket's file.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use haechi::control::api::ControlSocket;

use crate::control_support::Directory;

#[test]
fn the_socket_is_for_owner_and_group() {
    let directory = Directory::new();
    let path = directory.path("deep").join("h.sock");
    let socket = ControlSocket::bind(&path).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o7777, 0o660);
    drop(socket);
    assert!(!path.exists(), "the socket goes");
    assert!(
        !directory.path("deep").exists(),
        "and the directory that was made for it"
    );
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let directory = Directory::new();
    let path = directory.path("h.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead socket is left");
    let first = ControlSocket::bind(&path).unwrap();
    let error = ControlSocket::bind(&path).unwrap_err();
    assert!(
        error
            .error
            .ends_with("the control socket is in use by a running node"),
        "{error}"
    );
    assert!(
        error
            .fix
            .as_ref()
            .is_some_and(|fix| fix.contains("control_socket")),
        "{error}"
    );
    assert!(UnixStream::connect(&path).is_ok(), "the live one still lives");
    drop(first);
    assert!(!path.exists());
    // One whose backlog is full is alive too.
    let full = UnixListener::bind(&path).unwrap();
    full.set_nonblocking(true).unwrap();
    let mut waiting = Vec::new();
    while waiting.len() < 5000 {
        let stream = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
        if rustix::net::connect(&stream, &address).is_err() {
            break;
        }
        waiting.push(stream);
    }
    let error = ControlSocket::bind(&path).unwrap_err();
    assert!(error.error.contains("in use by a running node"), "{error}");
}

#[test]
fn a_socket_that_is_another_ones_by_now_is_left_alone() {
    let directory = Directory::new();
    let path = directory.path("h.sock");
    let ours = ControlSocket::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    drop(ours);
    assert!(UnixStream::connect(&path).is_ok());
    drop(theirs);
}

#[test]
fn a_place_where_no_socket_can_be_is_one_clear_line() {
    let directory = Directory::new();
    let file = directory.file("plain", "text");
    let table = [
        (file.clone(), "taken by something that is not a socket"),
        (
            directory.path("a").join("b").join("h.sock"),
            "cannot make the directory",
        ),
        (file.join("h.sock"), "Not a directory"),
        (directory.path(&"x".repeat(200)), "too long for a socket"),
    ];
    for (path, words) in table {
        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(error.error.contains(words), "{error}");
        assert!(
            error.error.starts_with(path.to_str().unwrap()) || words.contains("directory"),
            "{error}"
        );
        assert!(
            error.fix.is_some() && !error.to_string().contains('\n'),
            "{error}"
        );
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "text");
}

#[test]
fn of_nodes_that_start_at_once_one_gets_the_socket() {
    let directory = Directory::new();
    for round in 0..20 {
        let path = directory.path(&format!("{round}.sock"));
        drop(UnixListener::bind(&path).unwrap());
        let barrier = std::sync::Barrier::new(4);
        let bound: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                barrier.wait();
                ControlSocket::bind(&path).ok()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(bound.len(), 1);
        assert!(UnixStream::connect(&path).is_ok());
    }
}
