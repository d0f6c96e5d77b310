//! Logs of the control threads: lines on standard error, where systemd and containers look for them. Workers never
//! log.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The environment variable that sets what is logged: a level (`debug`) or directives of tracing's `EnvFilter`
/// (`info,haechi::control=trace`).
pub const LEVEL_VARIABLE: &str = "HAECHI_LOG";

/// The netlink library warns of every attribute that the kernel has more of than it knows, which means nothing to anybody.
const QUIET: &str = "netlink_packet_route=error";

/// Starts logging to standard error, from `info` up unless [`LEVEL_VARIABLE`] says otherwise. Once for the process; a
/// second call changes nothing.
pub fn init() {
    let wanted = std::env::var(LEVEL_VARIABLE).unwrap_or_default();
    let level = if wanted.is_empty() { "info" } else { &wanted };
    let (filter, refused) = match EnvFilter::builder().parse(format!("{QUIET},{level}")) {
        Ok(filter) => (filter, None),
        Err(e) => (EnvFilter::new(format!("{QUIET},info")), Some(e)),
    };
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    if let (Ok(()), Some(why)) = (started, refused) {
        tracing::warn!("{LEVEL_VARIABLE}={wanted} is not understood ({why}); logging from info up");
    }
}
