//! The configuration file: text to validated value ([`load`]) to compiled policy ([`compile`]).
//!
//! - [`value`]: the validated configuration, a plain value in the shape of the file
//! - [`net`], [`units`]: the values that stand in the file as strings
//! - [`key_file`]: the key of an HA pair; [`check_pair`]: do its two nodes agree?
//! - [`diagnostic`]: findings with file, line, column and a hint
//! - [`schema`]: the JSON Schema for editors

mod check;
mod check_zones;
mod compile;
mod defaults;
pub mod diagnostic;
mod diff;
mod ha;
mod hint;
mod include;
pub mod key_file;
mod listen;
mod names;
pub mod net;
mod pair;
mod pair_check;
mod read;
mod read_ha;
mod read_log;
mod read_rules;
mod report;
mod schema;
mod section;
mod share;
mod source;
mod tree;
pub mod units;
pub mod value;

pub use compile::{CompileError, RuleIds, compile, compile_with};
pub use diagnostic::{Diagnostic, Diagnostics, Place, Severity, ValueError};
pub use diff::{Diff, diff, restart_needed};
pub use ha::{DeferFail, Endpoint, Ha, HaMode, Link};
pub use key_file::KeyFileError;
pub use listen::ListenAddress;
pub use names::IMPLICIT_DROP;
pub use net::{AddressRef, CpuList, Device, PortRange, Service, ServiceRef};
pub use pair::{CONCERNS, Concern, layout_digest, policy_digest};
pub use pair_check::{Difference, PairReport, Side, check_pair};
pub use schema::schema_json;
pub use source::{Checked, DiskFiles, Files, NotUtf8, check, check_files, load, load_text};
pub use units::{Rate, TimeSpan};
pub use value::{
    Config, Conntrack, Idle, Log, Matcher, Metrics, Mode, Node, Port, Rebalance, Rule, RxQueues, Transparent,
    Zone,
};
