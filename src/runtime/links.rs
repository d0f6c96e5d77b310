//! Kernel interfaces by rtnetlink: their links, which the drivers on top of them (AF_XDP, AF_PACKET) do not know, and
//! setting them up and down.

use std::sync::mpsc::{SyncSender, TrySendError};

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::link::LinkFlags;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use tokio::runtime::Handle;

/// The multicast group of link messages (`RTMGRP_LINK`, rtnetlink(7)).
const LINK_GROUP: u32 = 1;

/// A kernel interface at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelLink {
    /// Its index: an interface that was deleted and made again has another.
    pub index: u32,
    /// It is set up and has a carrier.
    pub link_up: bool,
}

/// Why a kernel interface could not be asked or set.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is none of this name.
    #[error("there is no interface {0}")]
    Gone(String),
    /// The kernel refuses.
    #[error("interface {0}: {1}")]
    Refused(String, rtnetlink::Error),
}

/// The kernel's interfaces. For threads outside the async runtime: the calls wait for the kernel's answer.
#[derive(Clone, Debug)]
pub struct KernelLinks {
    runtime: Handle,
    netlink: rtnetlink::Handle,
}

impl KernelLinks {
    /// Starts watching on `runtime`: whenever a link of any interface changes, `changed` gets a message (one is enough for
    /// several changes).
    ///
    /// # Errors
    /// When there is no netlink socket to be had.
    pub fn start(runtime: &Handle, changed: SyncSender<()>) -> std::io::Result<Self> {
        let _inside = runtime.enter();
        let (mut connection, netlink, mut messages) = rtnetlink::new_connection()?;
        connection
            .socket_mut()
            .socket_mut()
            .bind(&SocketAddr::new(0, LINK_GROUP))?;
        runtime.spawn(connection);
        runtime.spawn(async move {
            while messages.next().await.is_some() {
                if let Err(TrySendError::Disconnected(())) = changed.try_send(()) {
                    return;
                }
            }
        });
        Ok(Self {
            runtime: runtime.clone(),
            netlink,
        })
    }

    /// An interface; `None`: there is none of this name.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub fn get(&self, name: &str) -> Result<Option<KernelLink>, LinkError> {
        let request = self.netlink.link().get().match_name(name.to_owned());
        let answer = self
            .runtime
            .block_on(async { request.execute().try_next().await });
        match answer {
            Ok(Some(message)) => Ok(Some(KernelLink {
                index: message.header.index,
                link_up: message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            })),
            Ok(None) => Ok(None),
            Err(e) if is_no_device(&e) => Ok(None),
            Err(e) => Err(LinkError::Refused(name.to_owned(), e)),
        }
    }

    /// Sets an interface administratively up or down.
    ///
    /// # Errors
    /// When there is none of this name or the kernel refuses.
    pub fn set(&self, name: &str, up: bool) -> Result<(), LinkError> {
        let Some(link) = self.get(name)? else {
            return Err(LinkError::Gone(name.to_owned()));
        };
        let message = LinkUnspec::new_with_index(link.index);
        let message = if up { message.up() } else { message.down() };
        let request = self.netlink.link().set(message.build());
        let answer = self.runtime.block_on(request.execute());
        match answer {
            Ok(()) => Ok(()),
            Err(e) if is_no_device(&e) => Err(LinkError::Gone(name.to_owned())),
            Err(e) => Err(LinkError::Refused(name.to_owned(), e)),
        }
    }
}

fn is_no_device(error: &rtnetlink::Error) -> bool {
    const ENODEV: i32 = 19;
    matches!(error, rtnetlink::Error::NetlinkError(ErrorMessage { code: Some(code), .. }) if code.get() == -ENODEV)
}
