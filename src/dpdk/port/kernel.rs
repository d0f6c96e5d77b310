//! The kernel interface under a port (AF_XDP, AF_PACKET): its MTU and whether it is up, put back when the port closes.

use std::{
    ffi::{CString, c_int},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// A kernel interface in this network namespace, by the index that it had when the port was opened: one that was
/// deleted and made anew has another.
#[derive(Debug)]
pub(super) struct KernelInterface {
    pub(super) name: String,
    pub(super) index: u32,
    before: Option<Before>,
}

/// How the interface was.
#[derive(Clone, Copy, Debug)]
struct Before {
    mtu: i32,
    up: bool,
}

impl KernelInterface {
    /// The interface of this name, if there is one.
    pub(super) fn find(name: &str) -> Option<Self> {
        let index = index_of(name)?;
        let before = request(name).and_then(|mut r| {
            r.call(libc::SIOCGIFMTU)?;
            let mtu = r.mtu();
            r.call(libc::SIOCGIFFLAGS)?;
            Ok(Before { mtu, up: r.is_up() })
        });
        Some(Self {
            name: name.to_owned(),
            index,
            before: before.ok(),
        })
    }

    /// The name of an interface by its index.
    pub(super) fn name_of(index: u32) -> Option<String> {
        let mut name = [0_u8; libc::IF_NAMESIZE];
        // SAFETY: the buffer has the size that the function asks for.
        if unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) }.is_null() {
            return None;
        }
        let end = name.iter().position(|&b| b == 0)?;
        String::from_utf8(name[..end].to_vec()).ok()
    }

    /// Is it still the same one?
    fn exists(&self) -> bool {
        index_of(&self.name) == Some(self.index)
    }

    /// Makes room for frames of IP packets of `mtu` bytes with two tags. (The kernel lets one tag pass beyond the MTU, not
    /// two.)
    pub(super) fn make_room(&self, mtu: u16) -> io::Result<()> {
        let wanted = i32::from(mtu) + 8;
        let mut request = request(&self.name)?;
        request.call(libc::SIOCGIFMTU)?;
        if request.mtu() >= wanted {
            return Ok(());
        }
        request.set_mtu(wanted);
        request.call(libc::SIOCSIFMTU)
    }

    /// Sets it up or down.
    pub(super) fn set_up(&self, up: bool) -> io::Result<()> {
        if !self.exists() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let mut request = request(&self.name)?;
        request.call(libc::SIOCGIFFLAGS)?;
        if request.is_up() == up {
            return Ok(());
        }
        request.set_up(up);
        request.call(libc::SIOCSIFFLAGS)
    }

    /// Puts things back as they were when the port was opened.
    pub(super) fn restore(&self) {
        let Some(before) = self.before.filter(|_| self.exists()) else {
            return;
        };
        if let Ok(mut request) = request(&self.name) {
            if request.call(libc::SIOCGIFMTU).is_ok() && request.mtu() != before.mtu {
                request.set_mtu(before.mtu);
                let _ = request.call(libc::SIOCSIFMTU);
            }
        }
        let _ = self.set_up(before.up);
    }
}

/// An interface's index in this network namespace.
pub(super) fn index_of(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// A netdevice(7) ioctl on an interface.
struct Request {
    socket: OwnedFd,
    fields: libc::ifreq,
}

fn request(name: &str) -> io::Result<Request> {
    // SAFETY: makes a descriptor or returns -1.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: plain data, for which zero is valid.
    let mut fields: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= fields.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in fields.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(Request { socket, fields })
}

impl Request {
    fn call(&mut self, request: libc::c_ulong) -> io::Result<()> {
        // SAFETY: the requests used here read and write one `ifreq`.
        let result: c_int = unsafe {
            libc::ioctl(
                self.socket.as_raw_fd(),
                request as libc::Ioctl,
                &raw mut self.fields,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    fn mtu(&self) -> i32 {
        // SAFETY: every bit pattern of the union is an integer.
        unsafe { self.fields.ifr_ifru.ifru_mtu }
    }

    fn set_mtu(&mut self, mtu: i32) {
        self.fields.ifr_ifru.ifru_mtu = mtu;
    }

    fn is_up(&self) -> bool {
        // SAFETY: as in `mtu`.
        unsafe { self.fields.ifr_ifru.ifru_flags & libc::IFF_UP as libc::c_short != 0 }
    }

    fn set_up(&mut self, up: bool) {
        let flag = libc::IFF_UP as libc::c_short;
        // SAFETY: as in `mtu`.
        let flags = unsafe { self.fields.ifr_ifru.ifru_flags };
        self.fields.ifr_ifru.ifru_flags = if up { flags | flag } else { flags & !flag };
    }
}
