//! The environment abstraction layer (EAL): DPDK's process-wide state.

use std::sync::Arc;

use super::error::Result;

/// What the EAL is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EalConfig {
    /// Huge pages (`--in-memory`), or ordinary memory (`--no-huge`).
    pub hugepages: bool,
    /// Without huge pages: all the memory that DPDK gets. With them: how much must be free at the start; more is taken as
    /// it is needed. MiB.
    pub memory_mib: u32,
    /// CPUs that the EAL's own threads keep off.
    pub worker_cpus: Vec<usize>,
    /// All devices of the configuration: PCI devices have to be named when the EAL starts (`-a`), virtual ones are
    /// probed by [`super::Port::open`].
    pub devices: Vec<super::Device>,
    /// `--file-prefix`; `None`: one that is unique to this process.
    pub file_prefix: Option<String>,
    /// Appended to the EAL's arguments as they are.
    pub eal_args: Vec<String>,
}

/// The running EAL. Clones share it; the last one (ports and pools hold clones, too) cleans it up.
#[derive(Clone)]
pub struct Eal {
    #[allow(dead_code, reason = "filled with the body")]
    inner: Arc<()>,
}

impl Eal {
    /// Starts the EAL: once a process, and never again after the clean-up. It runs on a thread of its own, so that
    /// the caller's CPU affinity stays as it is.
    ///
    /// # Errors
    /// One line with the fix: missing privileges, too few huge pages, arguments that the EAL refuses.
    pub fn start(config: &EalConfig) -> Result<Self> {
        let _ = config;
        Err(super::Error::Eal("the DPDK layer is being built".into()))
    }

    /// What DPDK and its drivers logged since the last call, oldest first (bounded: the oldest lines go first).
    #[must_use]
    pub fn log_lines(&self) -> Vec<String> {
        Vec::new()
    }
}
