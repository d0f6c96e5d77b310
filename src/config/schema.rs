//! The JSON Schema of the file, generated from the types of [`super::value`].

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::ha::Endpoint;
use super::listen::ListenAddress;
use super::net::{AddressRef, CpuList, Device, PortRange, ServiceRef};
use super::units::{Rate, TimeSpan};
use super::value::{Config, Matcher, RxQueues};
use crate::policy::Share;

/// The JSON Schema of the configuration file, for editors.
#[must_use]
pub fn schema_json() -> String {
    let schema = SchemaSettings::draft2020_12()
        .with_transform(RecursiveTransform(without_null))
        .into_generator()
        .into_root_schema_for::<Config>();
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

/// TOML has no null: a key that may be left out is just not required.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = &types[..] {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = &choices[..] {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                schema.insert(key, value);
            }
        }
    }
}

/// A table of which each file may hold a part: nothing in it is required of every file.
pub(super) fn may_be_partial(schema: &mut Schema) {
    schema.remove("required");
}

/// Keys of the file that the loader resolves, so that the value has no field for them.
pub(super) fn add_loader_keys(schema: &mut Schema) {
    may_be_partial(schema);
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    properties.insert(
        "include".to_owned(),
        serde_json::json!({
            "description": "Files that are part of this one; a relative path is relative to the file that it stands in.",
            "type": "array",
            "items": { "type": "string" },
            "default": [],
        }),
    );
    properties.insert(
        "devices".to_owned(),
        serde_json::json!({
            "description": "Devices by the name of their port, so that `[[port]]` can stand in a shared file.",
            "type": "object",
            "additionalProperties": { "$ref": "#/$defs/Device" },
            "default": {},
        }),
    );
}

pub(super) fn version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "const": 1 })
}

/// A type that stands in the file as a string.
macro_rules! text_value {
    ($type:ty, $name:literal, $pattern:literal, $description:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $description })
            }
        }
    };
}

text_value!(
    TimeSpan,
    "Duration",
    "^([0-9]+(ms|s|m|h|d))+$",
    "A duration: \"30s\", \"2h4m\", \"50ms\"."
);
text_value!(Rate, "Rate", "^[0-9]+/s$", "A rate: \"100/s\".");
text_value!(
    Share,
    "Share",
    "^[0-9]+(\\.[0-9]{1,2})?%$",
    "A share of the session table: \"60%\", \"0.5%\"."
);
text_value!(
    AddressRef,
    "Address",
    "^(@.+|[0-9a-fA-F:.]+(/[0-9]{1,3})?)$",
    "A prefix, a single address, or \"@set\"."
);
text_value!(
    ServiceRef,
    "Service",
    "^(@.+|(tcp|udp)(/[0-9]+(-[0-9]+)?)?|(icmp|icmpv6)(/[a-z0-9-]+(/[0-9]+)?)?|proto/[0-9]+)$",
    "\"tcp\", \"tcp/80\", \"tcp/1000-2000\", \"icmp/echo-request\", \"icmpv6/128\", \"proto/47\", or \"@set\"."
);
text_value!(
    PortRange,
    "PortRange",
    "^[0-9]+(-[0-9]+)?$",
    "A port or a range of ports: \"1024-65535\"."
);
text_value!(
    CpuList,
    "Cpus",
    "^[0-9]+(-[0-9]+)?(, *[0-9]+(-[0-9]+)?)*$",
    "CPUs: \"1\", \"1-3\", \"1,3,5-7\"."
);
text_value!(
    Device,
    "Device",
    "^(vdev:net_.+|([0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\\.[0-7])$",
    "A PCI address (\"0000:3b:00.0\"), or \"vdev:\" and a DPDK virtual device (\"vdev:net_af_xdp0,iface=veth-wan\")."
);
text_value!(
    ListenAddress,
    "ListenAddress",
    "^([0-9.]+|\\[[0-9a-fA-F:.]+(%[0-9]+)?\\]):[0-9]{1,5}$",
    "An IP address and a TCP port: \"127.0.0.1:9464\", \"[::1]:9464\"."
);

text_value!(
    Endpoint,
    "Endpoint",
    "^([0-9.]+|\\[[0-9a-fA-F:.%]+\\]):[0-9]+$",
    "An address with a port: \"169.254.77.1:7700\", \"[fd00::1]:7700\"."
);

impl Serialize for RxQueues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Count(count) => serializer.serialize_u16(*count),
        }
    }
}

impl JsonSchema for RxQueues {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("RxQueues")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 1024 }] })
    }
}

/// Stands for a list with at least one member, in the schema alone.
pub(super) struct NonEmpty<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for NonEmpty<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("Some{}", T::schema_name()))
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": generator.subschema_for::<T>(), "minItems": 1 })
    }
}

impl<T: Serialize> Serialize for Matcher<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::OneOf(members) => members.serialize(serializer),
        }
    }
}

impl<T: JsonSchema> JsonSchema for Matcher<T> {
    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("AnyOr{}", T::schema_name()))
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let member = generator.subschema_for::<T>();
        json_schema!({
            "anyOf": [
                { "const": "any" },
                member,
                { "type": "array", "items": member, "minItems": 1 },
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::read::read;
    use super::super::report::Report;
    use super::super::section::Walk;
    use super::super::{include, source};
    use super::*;

    /// The keys that the reader asks each section for, learnt by reading a file that has one of everything.
    fn grammar() -> BTreeMap<String, BTreeSet<&'static str>> {
        let files = BTreeMap::from([("all".into(), ["[[port]]", "[[zone]]", "[[rule]]"].join("\n"))]);
        let mut report = Report::default();
        let files: &dyn source::Files = &files;
        let root = include::read_all(files, "all".as_ref(), &mut report).unwrap();
        let mut walk = Walk::new(&mut report);
        read(&root, &mut walk);
        walk.grammar
    }

    /// Every table of the schema with its properties, named like the reader's sections.
    fn tables(schema: &Value, path: &str, root: &Value, found: &mut BTreeMap<String, BTreeSet<String>>) {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let target = root.pointer(name.trim_start_matches('#')).unwrap();
            return tables(target, path, root, found);
        }
        if let Some(items) = schema.get("items") {
            return tables(items, path, root, found);
        }
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return;
        };
        assert_eq!(schema["additionalProperties"], false, "{path} takes any key");
        found.insert(path.to_owned(), properties.keys().cloned().collect());
        for (key, property) in properties {
            tables(property, &super::super::tree::join(path, key), root, found);
        }
    }

    #[test]
    fn the_schema_has_the_keys_that_the_reader_takes() {
        let schema: Value = serde_json::from_str(&schema_json()).unwrap();
        let mut in_schema = BTreeMap::new();
        tables(&schema, "", &schema, &mut in_schema);
        let in_reader: BTreeMap<String, BTreeSet<String>> = grammar()
            .into_iter()
            .map(|(path, keys)| (path, keys.into_iter().map(str::to_owned).collect()))
            .collect();
        assert_eq!(in_reader, in_schema);
    }
}
