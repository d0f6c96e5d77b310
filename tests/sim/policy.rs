//! The policies of the simulated nodes, and what a person would say that they allow.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use haechi::base::Generation;
use haechi::config::{self, RuleIds};
use haechi::policy::Policy;

/// What a flow is to the policy: protocol and the port that it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Web,
    Tls,
    Names,
    Echo,
    /// No policy allows it.
    Telnet,
}

/// Which of the policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Variant(pub(crate) u8);

impl Variant {
    pub(crate) const COUNT: u64 = 3;

    /// Does the policy let a client open such a flow?
    pub(crate) const fn allows(self, service: Service) -> bool {
        match (self.0, service) {
            (_, Service::Telnet) => false,
            (0, _) => true,
            (1, of) => matches!(of, Service::Web | Service::Echo),
            (_, of) => matches!(of, Service::Tls | Service::Names),
        }
    }

    const fn services(self) -> &'static [(&'static str, &'static str)] {
        match self.0 {
            0 => &[
                ("web", "tcp/80"),
                ("tls", "tcp/443"),
                ("names", "udp/53"),
                ("echo", "icmp"),
            ],
            1 => &[("web", "tcp/80"), ("echo", "icmp")],
            _ => &[("names", "udp/53"), ("tls", "tcp/443")],
        }
    }

    fn text(self) -> String {
        let mut text = String::from(
            "version = 1\n[node]\nmode = \"transparent\"\n\
             [conntrack.timeouts]\nudp_new = \"2s\"\nudp_replied = \"3s\"\nicmp = \"2s\"\ntcp_syn_sent = \"2s\"\ntcp_time_wait = \"1s\"\ntcp_closed = \"1s\"\n\
             [[port]]\nname = \"lan\"\ndevice = \"vdev:net_null0\"\nzone = \"lan\"\npeer = \"wan\"\n\
             [[port]]\nname = \"wan\"\ndevice = \"vdev:net_null1\"\nzone = \"wan\"\npeer = \"lan\"\n",
        );
        for (name, service) in self.services() {
            text += &format!(
                "[[rule]]\nname = \"{name}\"\nfrom = [\"lan\"]\nservice = [\"{service}\"]\naction = \"allow\"\n"
            );
        }
        text
    }

    /// What a node says of it to its peer.
    pub(crate) const fn digest(self) -> u64 {
        100 + self.0 as u64
    }

    /// Compiled. The same for all runs of a thread: compiling takes longer than running.
    pub(crate) fn policy(self, generation: u32) -> Arc<Policy> {
        type Cache = (RuleIds, BTreeMap<(Variant, u32), Arc<Policy>>);
        thread_local! {
            static CACHE: RefCell<Cache> = RefCell::new((RuleIds::new(), BTreeMap::new()));
        }
        CACHE.with_borrow_mut(|(ids, policies)| {
            let make = || {
                let config = config::load_text("sim.toml", &self.text()).unwrap_or_else(|e| panic!("{e}"));
                Arc::new(config::compile(&config, Generation(generation), ids).expect("a policy"))
            };
            Arc::clone(policies.entry((self, generation)).or_insert_with(make))
        })
    }
}
