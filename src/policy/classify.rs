//! The batched classifier trait: first match of an ordered rule list, for many keys in one call.

use serde::{Deserialize, Serialize};

use super::spec::RuleSpec;
use crate::base::ZoneId;

/// What rules look at, in the direction of the packet that opens the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassifyKey {
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// TCP and UDP; else 0.
    pub source_port: u16,
    /// TCP and UDP; else 0.
    pub destination_port: u16,
    /// Zone of the ingress port.
    pub from: ZoneId,
    /// Zone of the egress port.
    pub to: ZoneId,
    /// IP protocol.
    pub protocol: u8,
    /// ICMP and ICMPv6; else 0.
    pub icmp_type: u8,
    /// ICMP and ICMPv6; else 0.
    pub icmp_code: u8,
}

/// Index into `Policy::rules` of the first match; `None`: no rule matches (implicit drop).
pub type RuleMatch = Option<u32>;

/// Finds for each key the first rule that matches. Implementations are immutable and shared by all workers.
pub trait Classifier: Send + Sync {
    /// Fills `matches[i]` for `keys[i]`; the slices have equal length.
    fn classify(&self, keys: &[ClassifyKey], matches: &mut [RuleMatch]);

    /// How it looks.
    fn methods(&self) -> Methods {
        Methods::default()
    }

    /// What an operator should know of how it looks, one line each.
    fn warnings(&self) -> &[String] {
        &[]
    }
}

/// Makes the classifier of rules, in their order, for a policy of so many zones.
pub type MakeClassifier<'m> = &'m dyn Fn(&[RuleSpec], usize) -> Box<dyn Classifier>;

/// How a classifier finds the first rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// It asks the rules in order.
    #[default]
    #[serde(rename = "linear")]
    Linear,
    /// A trie of all rules (DPDK's `rte_acl`).
    #[serde(rename = "rte_acl")]
    RteAcl,
}

impl Method {
    /// As in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::RteAcl => "rte_acl",
        }
    }
}

/// By address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Methods {
    /// For IPv4.
    pub ipv4: Method,
    /// For IPv6.
    pub ipv6: Method,
}
