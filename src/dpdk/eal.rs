//! The environment abstraction layer (EAL): DPDK's process-wide state.
#![allow(
    clippy::disallowed_types,
    reason = "control threads only: nothing here is called for a packet"
)]

use std::{
    ffi::{CStr, CString, c_char, c_int},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use super::{
    Device,
    error::{Error, Result},
    host, log,
    mempool::Pool,
    sys,
};

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
    pub devices: Vec<Device>,
    /// `--file-prefix`; `None`: one that is unique to this process.
    pub file_prefix: Option<String>,
    /// Appended to the EAL's arguments as they are.
    pub eal_args: Vec<String>,
}

/// The running EAL. Clones share it; the last one (ports, pools and registered threads hold clones, too) cleans it up.
#[derive(Clone)]
pub struct Eal {
    inner: Arc<Inner>,
}

struct Inner {
    /// Dropped to end the EAL's thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    config: EalConfig,
    control: Mutex<Control>,
}

/// What ports share. Its lock also serialises what DPDK's control functions do not: probe, configure, close.
#[derive(Default)]
pub(super) struct Control {
    /// Names of the devices that ports of this process have.
    pub(super) devices: Vec<String>,
    /// Indexes of the kernel interfaces that ports of this process have.
    pub(super) interfaces: Vec<u32>,
    /// Pools of closed ports, for the next port of the same shape. (Nobody can tell when the last mbuf of a pool has
    /// come back for good, so pools are used again, not freed, until the clean-up.)
    pub(super) idle_pools: Vec<Pool>,
    /// Pools made so far: the next one's number.
    pub(super) pools_made: u32,
}

static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts the EAL: once a process, and never again after the clean-up. It runs on a thread of its own, so that
    /// the caller's CPU affinity stays as it is.
    ///
    /// # Errors
    /// One line with the fix: missing privileges, too few huge pages, arguments that the EAL refuses.
    pub fn start(config: &EalConfig) -> Result<Self> {
        let prefix = config
            .file_prefix
            .clone()
            .unwrap_or_else(|| format!("haechi-{}", std::process::id()));
        let arguments = arguments(config, &prefix)?;
        host::check_memory(config.hugepages, config.memory_mib)?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(Error::Eal(
                "the DPDK EAL starts only once in a process: start haechi anew".into(),
            ));
        }
        host::remove_stale_runtime_dirs();

        let cpus = control_cpus(&config.worker_cpus);
        let (stop, stopped) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let spawned = std::thread::Builder::new()
            .name("haechi-eal".into())
            .spawn(move || {
                host::set_affinity(&cpus);
                let dir = match init(arguments) {
                    Ok(dir) => dir,
                    Err(why) => {
                        let _ = tell.send(Err(why));
                        return;
                    }
                };
                let _ = tell.send(Ok(()));
                // Until the last `Eal` is dropped.
                let _ = stopped.recv();
                cleanup();
                if let Some(dir) = dir {
                    let _ = std::fs::remove_dir_all(dir);
                }
            });
        let thread = spawned.map_err(|e| {
            Error::Eal(format!(
                "the EAL's thread cannot be started: {e}; raise the limit of processes (ulimit -u)"
            ))
        })?;
        match told.recv() {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                let _ = thread.join();
                return Err(explain(&why, config));
            }
            Err(_) => return Err(Error::Eal("the EAL's thread ended before it was done".into())),
        }
        let config = config.clone();
        let control = Mutex::default();
        Ok(Self {
            inner: Arc::new(Inner {
                stop: Some(stop),
                thread: Some(thread),
                config,
                control,
            }),
        })
    }

    /// What DPDK and its drivers logged since the last call, oldest first (bounded: the oldest lines go first).
    #[must_use]
    pub fn log_lines(&self) -> Vec<String> {
        log::take()
    }

    /// Buffers that are out of the pools of closed ports: 0 once all ports are closed, or buffers were lost.
    #[must_use]
    pub fn buffers_of_closed_ports(&self) -> u64 {
        self.control()
            .idle_pools
            .iter()
            .map(|pool| u64::from(pool.usage().in_use))
            .sum()
    }

    /// DPDK's release, such as `DPDK 22.11.11`.
    #[must_use]
    pub fn version(&self) -> String {
        // SAFETY: returns a static C string.
        unsafe { CStr::from_ptr(sys::hx_version()) }
            .to_string_lossy()
            .into_owned()
    }

    /// Bytes that are taken of DPDK's memory, by whatever: pools, rings, tries.
    #[must_use]
    pub fn memory_in_use(&self) -> u64 {
        let in_use = |socket| {
            // SAFETY: plain numbers, for which all zeros are good.
            let mut stats: sys::rte_malloc_socket_stats = unsafe { std::mem::zeroed() };
            // SAFETY: writes to `stats`; refuses sockets that there are not.
            let result = unsafe { sys::rte_malloc_get_socket_stats(socket, &raw mut stats) };
            if result == 0 {
                stats.heap_allocsz_bytes as u64
            } else {
                0
            }
        };
        (0..sys::RTE_MAX_NUMA_NODES as c_int).map(in_use).sum()
    }

    pub(super) fn config(&self) -> &EalConfig {
        &self.inner.config
    }

    pub(super) fn control(&self) -> MutexGuard<'_, Control> {
        self.inner.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The EAL's arguments, the program's name first.
fn arguments(config: &EalConfig, prefix: &str) -> Result<Vec<CString>> {
    let mut args: Vec<String> = vec![
        "haechi".into(),
        format!("--file-prefix={prefix}"),
        "--no-telemetry".into(),
    ];
    if config.hugepages {
        args.push("--in-memory".into());
    } else {
        // No shared configuration files either: there are no secondary processes to share them with.
        args.extend([
            "--no-huge".into(),
            "--no-shconf".into(),
            "-m".into(),
            config.memory_mib.to_string(),
        ]);
    }
    let cpus: Vec<_> = control_cpus(&config.worker_cpus)
        .iter()
        .map(ToString::to_string)
        .collect();
    args.push(format!("--lcores=0@({})", cpus.join(",")));
    let mut pci: Vec<_> = config.devices.iter().filter_map(Device::pci).collect();
    pci.sort_unstable();
    pci.dedup();
    if pci.is_empty() {
        args.push("--no-pci".into());
        // Virtual devices do no DMA; their drivers want memory that is contiguous by virtual address.
        if !config.eal_args.iter().any(|a| a.starts_with("--iova-mode")) {
            args.push("--iova-mode=va".into());
        }
    }
    args.extend(pci.iter().map(|address| format!("--allow={address}")));
    for arg in &config.eal_args {
        if matches!(arg.as_str(), "-h" | "--help") {
            return Err(Error::Eal(format!(
                "eal_args: {arg:?} makes the EAL print its help and exit: take it out"
            )));
        }
        args.push(arg.clone());
    }
    args.into_iter()
        .map(|a| CString::new(a.clone()).map_err(|_| Error::Eal(format!("eal_args: {a:?} holds a NUL byte"))))
        .collect()
}

/// The CPUs of this process without the workers' (all of them, if the workers have all).
fn control_cpus(workers: &[usize]) -> Vec<usize> {
    let all = host::affinity();
    let rest: Vec<_> = all.iter().copied().filter(|cpu| !workers.contains(cpu)).collect();
    if rest.is_empty() { all } else { rest }
}

/// Why `rte_eal_init` failed: its errno, and what it said.
struct InitFailure {
    errno: c_int,
    said: Vec<String>,
}

/// Starts the EAL on this thread; returns the runtime directory that it made, if it was not there before.
fn init(arguments: Vec<CString>) -> std::result::Result<Option<PathBuf>, InitFailure> {
    let mark = log::mark();
    let captured = log::Captured::start();
    // SAFETY: `sink` is a function for any bytes; the stream is made once and lives as long as the process.
    let stream = unsafe { sys::hx_log_stream(Some(log::sink)) };
    if !stream.is_null() {
        // SAFETY: a stream that is never closed.
        unsafe { sys::rte_openlog_stream(stream) };
    }
    // The EAL keeps pointers into its arguments, and getopt reorders the vector: both stay for good.
    let mut argv: Vec<*mut c_char> = arguments.into_iter().map(CString::into_raw).collect();
    let argc = c_int::try_from(argv.len()).unwrap_or(c_int::MAX);
    argv.push(std::ptr::null_mut());
    let argv = Vec::leak(argv);
    // SAFETY: `argv` is a writable vector of `argc` C strings with a null at its end; `STARTED` makes this the only call.
    let result = unsafe { sys::rte_eal_init(argc, argv.as_mut_ptr()) };
    // SAFETY: reads a thread-local.
    let errno = unsafe { sys::hx_errno() };
    if !stream.is_null() {
        // SAFETY: as above.
        unsafe { sys::hx_quiet_libbpf(stream) };
    }
    drop(captured);
    let dir = runtime_dir();
    if result >= 0 {
        // Without shared files and telemetry it is empty, and needed no more: then not even a kill leaves it behind.
        return Ok(dir.filter(|dir| std::fs::remove_dir(dir).is_err()));
    }
    if let Some(dir) = dir {
        let _ = std::fs::remove_dir_all(dir);
    }
    Err(InitFailure {
        errno,
        said: log::since(mark),
    })
}

/// The directory that the EAL keeps for this process: ours to remove when it bears our file prefix.
fn runtime_dir() -> Option<PathBuf> {
    // SAFETY: returns a static buffer that only `rte_eal_init` writes, on this thread.
    let dir = unsafe { CStr::from_ptr(sys::rte_eal_get_runtime_dir()) };
    let dir = PathBuf::from(dir.to_str().ok().filter(|d| !d.is_empty())?);
    let ours = dir
        .parent()
        .and_then(|p| p.file_name())
        .is_some_and(|p| p == "dpdk");
    (ours && dir.is_dir()).then_some(dir)
}

/// One line from what the EAL said.
fn explain(failure: &InitFailure, config: &EalConfig) -> Error {
    let said = said(&failure.said);
    if !host::privileged() {
        return Error::Privileges(format!(
            "the DPDK EAL does not start without privileges: run as root, or with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, \
             CAP_IPC_LOCK and CAP_SYS_ADMIN ({said})"
        ));
    }
    let memory = failure
        .said
        .iter()
        .any(|l| l.starts_with("EAL: ") && ["hugepage", "init memory"].iter().any(|word| l.contains(word)));
    if memory && config.hugepages {
        return Error::Memory(host::too_few_huge_pages(
            config.memory_mib,
            &format!("the EAL says: {said}"),
        ));
    }
    if memory {
        return Error::Memory(format!(
            "DPDK cannot have {} MiB of memory ({said}): lower memory_mib in [node], or free memory",
            config.memory_mib
        ));
    }
    let given = if config.eal_args.is_empty() {
        String::new()
    } else {
        format!("; eal_args is {:?}", config.eal_args)
    };
    Error::Eal(format!(
        "the DPDK EAL does not start: {said} (error {}){given}",
        failure.errno
    ))
}

/// The lines that tell what went wrong, in one.
pub(super) fn said(lines: &[String]) -> String {
    const NOISE: [&str; 9] = [
        "Driver cannot attach",
        "Failed to attach device",
        "Cannot find device",
        "Detected ",
        "Selected IOVA",
        "VFIO support",
        "Multi-process socket",
        "Probing ",
        "No free 1048576 kB hugepages",
    ];
    let mut last: Vec<&str> = Vec::new();
    for line in lines {
        // "haechi: unrecognized option ..." is followed by the EAL's whole usage.
        let interesting = line.starts_with("EAL: ") || line.starts_with("haechi: ") || line.contains("(): ");
        let noise = NOISE.iter().any(|n| line.contains(n));
        let line = line.split_once("(): ").map_or(line.as_str(), |(_, text)| text);
        let line = line
            .trim_start_matches("EAL: ")
            .trim_start_matches("FATAL: ")
            .trim_start_matches("Error - ");
        if interesting && !noise && !last.contains(&line) {
            last.push(line);
        }
    }
    let skip = last.len().saturating_sub(3);
    if last.is_empty() {
        "it gives no reason".into()
    } else {
        last[skip..].join("; ")
    }
}

/// Ends the EAL, unless packets are still out: their memory would go.
fn cleanup() {
    extern "C" fn count(pool: *mut sys::rte_mempool, out: *mut std::ffi::c_void) {
        // SAFETY: `out` is the `u64` below; the pool is one that DPDK has in its list.
        unsafe { *out.cast::<u64>() += u64::from(sys::rte_mempool_in_use_count(pool)) };
    }
    let mut out = 0_u64;
    // SAFETY: the callback gets the pointer to `out`, which outlives the walk.
    unsafe { sys::rte_mempool_walk(Some(count), (&raw mut out).cast()) };
    if out > 0 {
        tracing::debug!(
            buffers = out,
            "packet buffers are still out: the memory goes with the process"
        );
        return;
    }
    // SAFETY: no port, pool handle or registered thread is left (each holds an `Eal`), and no mbuf is out, so nothing
    // points into what is unmapped now. This is the thread that called `rte_eal_init`.
    unsafe { sys::rte_eal_cleanup() };
}
