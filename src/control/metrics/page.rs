//! Writes metric families: description, then a sample for each label set.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Labels of a sample, with their values.
pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Where families are written to.
pub(super) struct Page<'e>(pub(super) DescriptorEncoder<'e>);

/// OpenMetrics says the unit apart, where the name ends in one.
fn split_unit(name: &str) -> (&str, Option<Unit>) {
    for (ending, unit) in [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)] {
        if let Some(stem) = name.strip_suffix(ending) {
            return (stem, Some(unit));
        }
    }
    (name, None)
}

impl Page<'_> {
    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let (stem, unit) = split_unit(name);
        let mut encoder = self.0.encode_descriptor(stem, help, unit.as_ref(), kind)?;
        write(&mut encoder)
    }

    /// A number that only grows. Its sample's name ends in `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |encoder| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// A number that goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |encoder| {
            encoder.encode_gauge(&value)
        })
    }

    /// Counters told apart by labels.
    pub(super) fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl Iterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |encoder| {
            for (labels, value) in samples {
                let mut sample = encoder.encode_family(&labels)?;
                sample.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
            Ok(())
        })
    }

    /// Gauges told apart by labels.
    pub(super) fn gauges<'a, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl Iterator<Item = (Labels<'a>, V)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |encoder| {
            for (labels, value) in samples {
                encoder.encode_family(&labels)?.encode_gauge(&value)?;
            }
            Ok(())
        })
    }

    /// Words, as the labels of samples of value 1. Their name ends in `_info`.
    pub(super) fn info<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl Iterator<Item = Labels<'a>>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Info, |encoder| {
            for labels in samples {
                encoder.encode_info(&labels)?;
            }
            Ok(())
        })
    }
}
