//! The command line: its grammar, and every command but `run`, which the runtime has.
//!
//! Exit status: 0 done, 1 refused or failed, 2 wrong usage. With `--json` a command writes one JSON value on standard
//! output (`explain`: one a line), also when it is refused; without, results go to standard output and refusals to
//! standard error.

mod explain;
mod files;
mod ha;
mod host;
mod output;
mod show;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand};

use self::output::Failure;
use super::explain::check_words;
use super::node::{NotifyKind, NotifyState};
use super::{DEFAULT_SOCKET, SessionFilter};

/// A stateful firewall appliance on DPDK.
#[derive(Debug, Parser)]
#[command(name = "haechi", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands. Those that a later version brings are there to be refused by name.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node until SIGTERM or SIGINT
    Run(RunArgs),
    /// Validate a configuration file: all errors and warnings, and what it was understood to be
    Check(CheckArgs),
    /// Say what would happen to packets, and why: under a configuration file, or on a running node (nothing changes)
    Explain(ExplainArgs),
    /// Show what a running node is doing
    #[command(subcommand)]
    Show(Show),
    /// Act on the sessions of a running node
    #[command(subcommand)]
    Sessions(Sessions),
    /// Act on the workers of a running node
    #[command(subcommand)]
    Workers(Workers),
    /// Put a changed configuration in force on a running node; all of it or nothing
    Apply(ApplyArgs),
    /// Say whether this host is fit to run a node, and what mends it
    Doctor(DoctorArgs),
    /// Give PCI network devices to vfio-pci, for DPDK; the kernel does not see them any more
    Bind(BindArgs),
    /// Give PCI network devices back to the drivers that they had
    Unbind(BindArgs),
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Print shell completions
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Not supported yet
    #[command(hide = true)]
    Confirm(Later),
    /// Not supported yet
    #[command(hide = true)]
    Rollback(Later),
    /// Not supported yet
    #[command(hide = true)]
    Top(Later),
    /// Not supported yet
    #[command(hide = true)]
    Capture(Later),
    /// The two nodes of an HA pair: make a key, compare their files, change the lead
    #[command(subcommand)]
    Ha(Ha),
}

/// `haechi run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
}

/// `haechi check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Configuration file
    #[arg(value_name = "FILE")]
    pub config: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// `haechi explain`.
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_HELP)]
#[command(group = ArgGroup::new("packets").args(["packet", "pcap"]).required(true))]
#[command(mut_arg("json", |arg| arg.help("Print JSON: one object for each packet, each on a line of its own")))]
pub struct ExplainArgs {
    /// Configuration file; without it a running node is asked
    #[arg(short, long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// Zone that the packets come from; enough where the zone has one port
    #[arg(long, value_name = "ZONE", conflicts_with = "port")]
    from: Option<String>,
    /// Port that the packets come in by
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    /// A packet in words; repeat it for a conversation
    #[arg(long, value_name = "WORDS", value_parser = packet_words)]
    packet: Vec<String>,
    /// A capture (pcap or pcapng, Ethernet); repeat it as PORT=FILE to merge those of several ports by time
    #[arg(long, value_name = "[PORT=]FILE")]
    pcap: Vec<OsString>,
    /// The capture holds both directions: a packet that answers an earlier one comes in where that one went out
    #[arg(long, requires = "pcap", conflicts_with = "packet")]
    both_directions: bool,
    #[command(flatten)]
    node: NodeSocket,
    #[command(flatten)]
    output: Output,
}

const EXPLAIN_HELP: &str = "\
A packet in words: [after TIME] [from ZONE | port NAME] PROTOCOL SOURCE > DESTINATION [WORD ...], for example
  \"tcp 10.0.0.5:1234 > 192.0.2.7:80 syn\"
  \"udp [2001:db8::1]:5353 > [2001:db8::2]:53 vlan=7\"
  \"after 31s from untrust icmp 10.0.0.5 > 192.0.2.7 echo-request id=7\"
A packet that answers an earlier one comes in where that one went out, unless it says from where; TCP sequence and acknowledgment numbers that it leaves out go on where the conversation is.";

/// `haechi show`.
#[derive(Debug, Subcommand)]
pub enum Show {
    /// The node in one screen
    Status(ShowArgs),
    /// Sessions, all or those that a filter finds
    Sessions(ShowSessionsArgs),
    /// Rules with their sessions, packets and bytes
    Rules(ShowArgs),
    /// Ports with their links and counters
    Ports(ShowArgs),
    /// Workers with their load
    Workers(ShowArgs),
    /// The accounts of all packets, and what every drop was for
    Counters(ShowCountersArgs),
    /// Not supported yet
    #[command(hide = true)]
    Routes(Later),
    /// Not supported yet
    #[command(hide = true)]
    Neighbours(Later),
    /// The HA pair; begins with `healthy`, or `degraded` and why, and the exit status says the same
    Ha(ShowArgs),
}

/// Of every `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    node: NodeSocket,
    #[command(flatten)]
    output: Output,
}

/// `haechi show counters`.
#[derive(Debug, Args)]
pub struct ShowCountersArgs {
    /// Also the reasons, and the kinds of malformed packets, that nothing was dropped for
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    node: NodeSocket,
    #[command(flatten)]
    output: Output,
}

/// `haechi show sessions`.
#[derive(Debug, Args)]
#[command(after_help = FILTER_HELP)]
pub struct ShowSessionsArgs {
    /// Only sessions that meet all of these
    #[arg(value_name = "FIELD=VALUE", value_parser = filter_word)]
    filter: Vec<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// However many there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    #[command(flatten)]
    node: NodeSocket,
    #[command(flatten)]
    output: Output,
}

const FILTER_HELP: &str = "\
Filters: FIELD=VALUE or FIELD!=VALUE, for example
  protocol=tcp destination_port=443,8443 from=trust
  source=10.0.0.0/8 state!=established age_s=1h-
Fields: those of a session in JSON (protocol, source, source_port, destination, destination_port, vlan, state, rule, from, to, ingress, egress, nat, packets, bytes, age_s, expires_in_s, worker, owner), and address for either end.";

/// `haechi sessions`.
#[derive(Debug, Subcommand)]
pub enum Sessions {
    /// End sessions; their next packets have to open new ones
    Kill(KillArgs),
}

/// `haechi sessions kill`.
#[derive(Debug, Args)]
#[command(after_help = FILTER_HELP)]
#[command(group = ArgGroup::new("which").args(["filter", "all"]).required(true))]
pub struct KillArgs {
    /// The sessions that meet all of these
    #[arg(value_name = "FIELD=VALUE", value_parser = filter_word)]
    filter: Vec<String>,
    /// Every session of the node
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    node: NodeSocket,
    #[command(flatten)]
    output: Output,
}

/// `haechi workers`.
#[derive(Debug, Subcommand)]
pub enum Workers {
    /// Move flows, with their sessions, from the busiest worker to the least busy one
    Rebalance(RebalanceArgs),
}

/// `haechi workers rebalance`.
#[derive(Debug, Args)]
pub struct RebalanceArgs {
    /// Only say what would be moved
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    node: NodeSocket,
    #[command(flatten)]
    output: Output,
}

/// `haechi ha`.
#[derive(Debug, Subcommand)]
pub enum Ha {
    /// Compare the files of both nodes: every difference that matters, and what may differ and does
    Check(HaCheckArgs),
    /// Make the key of a pair, in a new file
    Keygen(KeygenArgs),
    /// Change the lead: the leader gives it up, a standby asks for it. Nothing is lost
    Switchover(HaSwitchoverArgs),
    /// For keepalived: what it says of this node becomes the node's wish
    Notify(HaNotifyArgs),
}

/// `haechi ha check`.
#[derive(Debug, Args)]
pub struct HaCheckArgs {
    /// Configuration file of one node
    #[arg(value_name = "NODE-A")]
    node_a: PathBuf,
    /// Configuration file of the other one
    #[arg(value_name = "NODE-B")]
    node_b: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// `haechi ha keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// The file, which must not be there yet
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// `haechi ha switchover`.
#[derive(Debug, Args)]
pub struct HaSwitchoverArgs {
    #[command(flatten)]
    node: NodeSocket,
    #[command(flatten)]
    output: Output,
}

/// `haechi ha notify`.
#[derive(Debug, Args)]
#[command(after_help = NOTIFY_HELP)]
pub struct HaNotifyArgs {
    /// INSTANCE or GROUP
    #[arg(value_enum, ignore_case = true, hide_possible_values = true)]
    kind: NotifyKind,
    /// Its name in keepalived.conf
    name: String,
    /// MASTER asks for the lead; BACKUP, FAULT, STOP and DELETED give it up, if the peer can take it
    #[arg(value_enum, ignore_case = true, hide_possible_values = true)]
    state: NotifyState,
    /// VRRP priority
    priority: Option<u8>,
    #[command(flatten)]
    node: NodeSocket,
    #[command(flatten)]
    output: Output,
}

const NOTIFY_HELP: &str = "\
keepalived adds the arguments by itself; in a vrrp_instance, or in a vrrp_sync_group, of its configuration:
  notify \"/usr/local/sbin/haechi ha notify\"
  notify_stop \"/usr/local/sbin/haechi ha notify INSTANCE NAME STOP\"
Its script_user must be allowed to use the control socket.";

/// `haechi apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Configuration file
    #[arg(value_name = "FILE")]
    config: PathBuf,
    /// Only say what would change, and how many live sessions would end
    #[arg(long)]
    dry_run: bool,
    /// Not supported yet
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "", hide = true)]
    confirm: Option<String>,
    #[command(flatten)]
    node: NodeSocket,
    #[command(flatten)]
    output: Output,
}

/// `haechi doctor`.
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_HELP)]
pub struct DoctorArgs {
    /// Configuration file of the node that is to run here; without it, what holds for any
    #[arg(value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

const DOCTOR_HELP: &str = "\
Each line is ok, warn (it runs, but not as well as it could) or fail (it does not run like that), with what mends it below. Nothing is changed. Exit status: 0 if no line is fail, else 1.";

/// `haechi bind` and `haechi unbind`.
#[derive(Debug, Args)]
pub struct BindArgs {
    /// PCI address (0000:3b:00.0, 3b:00.0) or network interface
    #[arg(value_name = "DEVICE", required = true)]
    devices: Vec<String>,
    /// Also a device that is in use: by an address, a route, or a process
    #[arg(long)]
    force: bool,
}

/// How to reach a running node.
#[derive(Debug, Args)]
struct NodeSocket {
    /// Control socket of the node
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// How to print.
#[derive(Debug, Args)]
struct Output {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The arguments of a command that a later version brings: whatever they are.
#[derive(Debug, Args)]
pub struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

fn packet_words(words: &str) -> Result<String, String> {
    check_words(words).map(|()| words.to_owned())
}

fn filter_word(word: &str) -> Result<String, String> {
    match SessionFilter::from_words(&[word]) {
        Ok(_) => Ok(word.to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// The grammar, for completions and documentation.
#[must_use]
pub fn grammar() -> clap::Command {
    Cli::command()
}

/// Carries out every command but [`Command::Run`], which needs a runtime and is refused here.
#[must_use]
pub fn execute(cli: Cli) -> ExitCode {
    let (json, result) = dispatch(cli.command);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

/// Whether it was to print JSON, and how it ended.
fn dispatch(command: Command) -> (bool, Result<(), Failure>) {
    let later = |name: &str| (false, Err(Failure::not_supported(name)));
    match command {
        Command::Run(_) => (false, Err(Failure::no_runtime())),
        Command::Check(args) => (args.output.json, files::check(&args)),
        Command::Explain(args) => (args.output.json, explain::explain(&args)),
        Command::Show(what) => show(what),
        Command::Sessions(Sessions::Kill(args)) => (args.output.json, show::kill(&args)),
        Command::Workers(Workers::Rebalance(args)) => (args.output.json, show::rebalance(&args)),
        Command::Apply(args) => match args.confirm {
            Some(_) => (args.output.json, Err(Failure::not_supported("apply --confirm"))),
            None => (args.output.json, files::apply(&args)),
        },
        Command::Schema => (false, files::schema()),
        Command::Completions { shell } => (false, output::completions(shell)),
        Command::Confirm(_) => later("confirm"),
        Command::Rollback(_) => later("rollback"),
        Command::Top(_) => later("top"),
        Command::Capture(_) => later("capture"),
        Command::Ha(what) => of_pair(what),
        Command::Doctor(args) => (args.output.json, host::doctor(&args)),
        Command::Bind(args) => (false, host::bind(&args)),
        Command::Unbind(args) => (false, host::unbind(&args)),
    }
}

fn of_pair(what: Ha) -> (bool, Result<(), Failure>) {
    match what {
        Ha::Check(args) => (args.output.json, ha::check(&args)),
        Ha::Keygen(args) => (false, ha::keygen(&args)),
        Ha::Switchover(args) => (args.output.json, ha::switchover(&args)),
        Ha::Notify(args) => (args.output.json, ha::notify(&args)),
    }
}

fn show(what: Show) -> (bool, Result<(), Failure>) {
    let later = |name: &str| (false, Err(Failure::not_supported(name)));
    match what {
        Show::Status(args) => (args.output.json, show::status(&args)),
        Show::Sessions(args) => (args.output.json, show::sessions(&args)),
        Show::Rules(args) => (args.output.json, show::rules(&args)),
        Show::Ports(args) => (args.output.json, show::ports(&args)),
        Show::Workers(args) => (args.output.json, show::workers(&args)),
        Show::Counters(args) => (args.output.json, show::counters(&args)),
        Show::Routes(_) => later("show routes"),
        Show::Neighbours(_) => later("show neighbours"),
        Show::Ha(args) => (args.output.json, ha::show(&args)),
    }
}
