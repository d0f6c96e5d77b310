//! A policy as workers get it: compiled on a control thread, with the quickest classifier that can be had.

use tracing::warn;

use crate::base::Generation;
use crate::config::{self, CompileError, Config, RuleIds};
use crate::dpdk::{AclClassifier, Eal, LINEAR_RULES};
use crate::policy::Policy;

/// As [`config::compile`], but with tries where there are many rules.
pub(super) fn compile(
    eal: &Eal,
    config: &Config,
    generation: Generation,
    ids: &mut RuleIds,
) -> Result<Policy, CompileError> {
    let policy = config::compile_with(config, generation, ids, &|rules, zones| {
        Box::new(AclClassifier::new(eal, rules, zones, LINEAR_RULES))
    })?;
    for warning in policy.classifier.warnings() {
        warn!(generation = generation.0, "{warning}");
    }
    Ok(policy)
}
