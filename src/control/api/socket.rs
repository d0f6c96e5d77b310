//! The control socket's file: made with mode 0660, a dead one replaced, a live one respected, ours removed at the end.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::control::NodeError;
use crate::control::node::ErrorKind;

/// Read and write for the owner and the group, who are the operators.
const MODE: u32 = 0o660;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;

/// A listening control socket. Its file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    /// Before the listener is given away; kept apart so that the file lives as long as its server.
    pub(super) file: SocketFile,
}

/// The socket's file, removed on drop if it is still the one that was made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// The directory, if it was made for the socket.
    made: Option<PathBuf>,
}

impl ControlSocket {
    /// Listens at `path`. Needs no async runtime, so that a node can do it before it touches any device.
    ///
    /// # Errors
    /// When a node already listens there, when something else is there, or when it cannot be made; one line with the
    /// fix.
    pub fn bind(path: &Path) -> Result<Self, NodeError> {
        let address = SocketAddrUnix::new(path).map_err(|_| {
            refused(path, "the path is too long for a socket").fix("use one of at most 107 bytes")
        })?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let made =
            make_directory(directory).map_err(|e| from_io(directory, "cannot make the directory", &e))?;
        let bound = bind_in(directory, path, &address);
        if bound.is_err() {
            remove_directory(made.as_deref());
        }
        let (listener, device, inode) = bound?;
        Ok(Self {
            listener,
            file: SocketFile {
                path: path.to_owned(),
                device,
                inode,
                made,
            },
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

/// Replaces a dead socket and binds. Two nodes that start at once must not each take the other's socket for a dead
/// one: the directory is locked while one of them looks and binds.
fn bind_in(
    directory: &Path,
    path: &Path,
    address: &SocketAddrUnix,
) -> Result<(UnixListener, u64, u64), NodeError> {
    let failed = |e: io::Error| from_io(path, "cannot make the control socket", &e);
    let lock = fs::File::open(directory).map_err(failed)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
    remove_if_dead(path, address)?;
    let socket = stream_socket().map_err(|e| failed(e.into()))?;
    listen(socket, path, address).map_err(failed)
}

fn listen(socket: OwnedFd, path: &Path, address: &SocketAddrUnix) -> io::Result<(UnixListener, u64, u64)> {
    // Linux makes the file with the socket's own mode less the umask (unix(7)): nobody else gets in before the chmod.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, address)?;
    let ready = fs::set_permissions(path, fs::Permissions::from_mode(MODE))
        .and_then(|()| fs::symlink_metadata(path))
        .and_then(|meta| {
            rustix::net::listen(&socket, BACKLOG)?;
            Ok(meta)
        });
    match ready {
        Ok(meta) => Ok((UnixListener::from(socket), meta.dev(), meta.ino())),
        Err(e) => {
            // It is ours: bind() never takes an existing name.
            let _ = fs::remove_file(path);
            Err(e)
        }
    }
}

fn remove_if_dead(path: &Path, address: &SocketAddrUnix) -> Result<(), NodeError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(from_io(path, "cannot look at the control socket", &e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(refused(
                path,
                "the control socket's path is taken by something that is not a socket",
            )
            .fix("remove it, or set another `control_socket` in [node]"));
        }
        Ok(_) => {}
    }
    match probe(address) {
        // A node whose backlog is full is alive too.
        Ok(()) | Err(Errno::AGAIN) => Err(in_use(path)),
        Err(Errno::CONNREFUSED) => {
            fs::remove_file(path).map_err(|e| from_io(path, "cannot remove the dead control socket", &e))
        }
        Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(from_io(
            path,
            "cannot tell whether a node listens at the control socket",
            &e.into(),
        )),
    }
}

/// Connects, without waiting for room in a full backlog.
fn probe(address: &SocketAddrUnix) -> Result<(), Errno> {
    let socket = stream_socket()?;
    rustix::net::connect(&socket, address)
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}

fn in_use(path: &Path) -> NodeError {
    refused(path, "the control socket is in use by a running node")
        .fix("stop that node, or set another `control_socket` in [node]")
}

fn refused(path: &Path, what: &str) -> NodeError {
    NodeError::new(ErrorKind::Refused, format!("{}: {what}", path.display()))
}

fn from_io(path: &Path, what: &str, e: &io::Error) -> NodeError {
    let error = refused(path, &format!("{what}: {e}"));
    match e.kind() {
        io::ErrorKind::PermissionDenied => {
            error.fix("run as root, or set a `control_socket` in [node] where you may write")
        }
        _ => error.fix("set a `control_socket` in [node] that can be made"),
    }
}

/// Makes `directory` if it is not there, and says so. Only the last component: a missing parent is more likely a typing
/// mistake than a wish.
fn make_directory(directory: &Path) -> io::Result<Option<PathBuf>> {
    match fs::create_dir(directory) {
        Ok(()) => Ok(Some(directory.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(e) => Err(e),
    }
}

fn remove_directory(made: Option<&Path>) {
    if let Some(directory) = made {
        // Only an empty one goes; somebody else's file in it keeps it.
        let _ = fs::remove_dir(directory);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| meta.dev() == self.device && meta.ino() == self.inode);
        if ours {
            if let Err(e) = fs::remove_file(&self.path) {
                tracing::warn!("cannot remove the control socket {}: {e}", self.path.display());
            }
            remove_directory(self.made.as_deref());
        }
    }
}
