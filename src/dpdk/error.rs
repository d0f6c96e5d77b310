//! What can go wrong between haechi and its devices. Every error is one line that ends with the fix.

/// An error of the DPDK layer; `Display` is the one line that the user reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The process may not do what the device or the memory takes.
    #[error("{0}")]
    Privileges(String),
    /// Too few huge pages, too little memory, too few packet buffers.
    #[error("{0}")]
    Memory(String),
    /// A device string that cannot be parsed.
    #[error("{0}")]
    BadDevice(String),
    /// The device, its driver or its kernel interface does not exist.
    #[error("{0}")]
    NoDevice(String),
    /// Another port or another process has the device.
    #[error("{0}")]
    DeviceBusy(String),
    /// The device cannot do what the configuration asks for.
    #[error("{0}")]
    Unsupported(String),
    /// The EAL refused its arguments, or was started before in this process.
    #[error("{0}")]
    Eal(String),
    /// A driver refused an operation for a reason of its own.
    #[error("{0}")]
    Driver(String),
    /// Queue handles of the port are still in use.
    #[error("{0}")]
    InUse(String),
}

/// A result of this layer.
pub type Result<T> = std::result::Result<T, Error>;
