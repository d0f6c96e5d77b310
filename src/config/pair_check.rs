//! Do the files of a pair's two nodes agree? Every difference that matters, with its places in both.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value as Json;

use super::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use super::ha::{Ha, Link};
use super::key_file::KeyFileError;
use super::pair::{Concern, Step, Way, layout_digest, leaves, policy_digest};
use super::source::{CheckedTree, Files, check_tree};
use super::tree::{Item, Span, Table, Value};
use super::value::Config;

/// What one node's file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The value, as JSON writes it; `None`: it is not set, or not there.
    pub value: Option<String>,
    /// Where; where the key itself is not there, the table that it belongs to, or the file.
    pub place: Place,
    /// The key itself is not there: the value is its default.
    pub is_default: bool,
    /// The line, and how many characters of it are meant.
    pub source: Option<(String, usize)>,
}

/// A difference of the two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// An error, or what the nodes can live with.
    pub severity: Severity,
    /// The key: `rule "web".service`.
    pub key: String,
    /// What, in one line, as seen from the first file.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// Both nodes.
    pub sides: [Side; 2],
}

impl Difference {
    /// As a finding at the first file's place, with the second one's beside it.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic {
            severity: self.severity,
            place: self.sides[0].place.clone(),
            message: self.message.clone(),
            help: Some(self.help.clone()),
            related: Some((self.sides[1].place.clone(), "the other node's is here".to_owned())),
            source: self.sides[0].source.clone(),
        }
    }
}

/// What became of a comparison.
#[derive(Clone, Debug)]
pub struct PairReport {
    /// Both configurations.
    pub configs: [Config; 2],
    /// What differs and should not, and what to look at.
    pub differences: Vec<Difference>,
    /// What differs and may: the key, and both values.
    pub own: Vec<(String, [Option<String>; 2])>,
    /// [`policy_digest`] of both.
    pub policy: [u64; 2],
    /// [`layout_digest`] of both.
    pub layout: [u64; 2],
    /// Warnings about the files themselves.
    pub warnings: Vec<Diagnostic>,
}

impl PairReport {
    /// Can the two be a pair?
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.differences.iter().all(|of| of.severity != Severity::Error)
    }
}

/// Compares the files of a pair's two nodes.
///
/// # Errors
/// What is wrong with either of them by itself.
pub fn check_pair(files: &dyn Files, paths: [&Path; 2]) -> Result<PairReport, Diagnostics> {
    let trees = paths.map(|path| check_tree(files, path));
    // What both include is found twice.
    let mut findings: Vec<Diagnostic> = Vec::new();
    for finding in trees.iter().flat_map(|tree| tree.checked.diagnostics.iter()) {
        if !findings.contains(finding) {
            findings.push(finding.clone());
        }
    }
    let [Some(a), Some(b)] = trees.each_ref().map(|tree| tree.checked.config.clone()) else {
        return Err(Diagnostics::new(findings));
    };
    let configs = [a, b];
    let mut compare = Compare {
        files,
        paths,
        trees: &trees,
        configs: &configs,
        differences: Vec::new(),
        own: Vec::new(),
    };
    compare.values();
    compare.pair();
    let Compare {
        mut differences, own, ..
    } = compare;
    differences.sort_by(|a, b| {
        (a.severity, &a.sides[0].place, &a.key).cmp(&(b.severity, &b.sides[0].place, &b.key))
    });
    Ok(PairReport {
        policy: configs.each_ref().map(policy_digest),
        layout: configs.each_ref().map(layout_digest),
        configs,
        differences,
        own,
        warnings: findings,
    })
}

struct Compare<'c> {
    files: &'c dyn Files,
    paths: [&'c Path; 2],
    trees: &'c [CheckedTree; 2],
    configs: &'c [Config; 2],
    differences: Vec<Difference>,
    own: Vec<(String, [Option<String>; 2])>,
}

const SHARE_IT: &str = "write it in the file that both nodes include";

impl Compare<'_> {
    /// Everything that is to be alike, or may differ.
    fn values(&mut self) {
        let both = self.configs.each_ref().map(leaves);
        let [a, b] = &both;
        let ways: BTreeSet<&Way> = a.keys().chain(b.keys()).collect();
        // Whole members that one of them lacks: all of their keys follow from that.
        let members = both
            .each_ref()
            .map(|leaves| leaves.keys().filter_map(member).collect::<BTreeSet<_>>());
        let [of_a, of_b] = &members;
        let lacking: BTreeSet<_> = of_a.symmetric_difference(of_b).copied().collect();
        for (array, name) in &lacking {
            let has = members
                .each_ref()
                .map(|members| members.contains(&(*array, *name)));
            self.lacks_member(array, name, has);
        }
        let both_are_of_pairs = self.configs.iter().all(|config| config.ha.is_some());
        for way in ways {
            if !both_are_of_pairs && way.0.starts_with(&of_ha("").0[..1]) {
                continue;
            }
            let values = [a.get(way), b.get(way)];
            if values[0] == values[1] {
                continue;
            }
            let of_lacking = member(way).is_some_and(|member| lacking.contains(&member));
            match way.concern() {
                Concern::Paired => {}
                _ if of_lacking => {}
                Concern::Own => {
                    self.own
                        .push((way.to_string(), values.map(|value| value.map(Json::to_string))));
                }
                Concern::Layout | Concern::Policy => match &way.0[..] {
                    [Step::Key(array)] if array == "rule" || array == "port" => self.order(array, values),
                    _ => self.differs(way, values),
                },
            }
        }
    }

    /// What stands in an array of the one and not of the other.
    fn lacks_member(&mut self, array: &str, name: &str, has: [bool; 2]) {
        let way = Way(vec![Step::Key(array.to_owned()), Step::Named(name.to_owned())]);
        let (with, without) = if has[0] { (0, 1) } else { (1, 0) };
        let message = format!(
            "{way} is in {}, and not in {}",
            self.name(with),
            self.name(without)
        );
        let sides = [0, 1].map(|node| Side {
            value: has[node].then(|| format!("{name:?}")),
            ..self.side(node, &way, None)
        });
        let help = match array {
            "rule" => {
                "write all rules in the file that both nodes include (a rule with `enabled = false` counts as none)"
            }
            "port" => {
                "write all ports in the file that both nodes include, and their devices in `[devices]` of each node"
            }
            _ => SHARE_IT,
        };
        self.push(Severity::Error, &way, message, help, sides);
    }

    /// The order of what both have.
    fn order(&mut self, array: &str, values: [Option<&Json>; 2]) {
        let names = |value: Option<&Json>| -> Vec<String> {
            let names = value.and_then(Json::as_array).into_iter().flatten();
            names
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect()
        };
        let [a, b] = values.map(names);
        let common = |mine: &[String], theirs: &[String]| -> Vec<String> {
            mine.iter()
                .filter(|name| theirs.contains(name))
                .cloned()
                .collect()
        };
        let (a, b) = (common(&a, &b), common(&b, &a));
        let Some((first, other)) = a.iter().zip(&b).find(|(first, other)| first != other) else {
            return;
        };
        let way = |name: &str| Way(vec![Step::Key(array.to_owned()), Step::Named(name.to_owned())]);
        let sides = [
            Side {
                value: Some(format!("{first:?}")),
                ..self.side(0, &way(first), None)
            },
            Side {
                value: Some(format!("{other:?}")),
                ..self.side(1, &way(other), None)
            },
        ];
        let message = format!(
            "the order of {array}s differs from here on: {array} \"{first}\" comes here, \"{other}\" in {}",
            self.name(1)
        );
        let help = format!("write all {array}s in the file that both nodes include");
        self.push(
            Severity::Error,
            &Way(vec![Step::Key(array.to_owned())]),
            message,
            &help,
            sides,
        );
    }

    /// One value.
    fn differs(&mut self, way: &Way, values: [Option<&Json>; 2]) {
        let sides = [0, 1].map(|node| self.side(node, way, values[node]));
        let said = |side: &Side| match (&side.value, side.is_default) {
            (None, _) => "not set".to_owned(),
            (Some(value), false) => value.clone(),
            (Some(value), true) => format!("{value} (the default)"),
        };
        let message = format!(
            "`{way}` is {} here, and {} in {}",
            said(&sides[0]),
            said(&sides[1]),
            self.name(1)
        );
        self.push(Severity::Error, way, message, SHARE_IT, sides);
    }

    /// What is to differ, or to mirror the other node's.
    fn pair(&mut self) {
        let [a, b] = self.configs;
        let key = |key: &str| Way(vec![Step::Key(key.to_owned())]);
        if a.node.name == b.node.name {
            let way = Way(vec![Step::Key("node".to_owned()), Step::Key("name".to_owned())]);
            let message = format!("both nodes are called \"{}\"", a.node.name);
            self.say(
                Severity::Warning,
                &way,
                message,
                "give each node a name of its own",
            );
        }
        let (Some(a), Some(b)) = (&a.ha, &b.ha) else {
            // Both, if neither has one.
            for node in [0, 1] {
                if self.configs[node].ha.is_none() {
                    let message = format!("{} is no node of a pair: it has no `[ha]`", self.name(node));
                    self.say(
                        Severity::Error,
                        &key("ha"),
                        message,
                        "add `[ha]` with `node_id`, `link` and `key_file`",
                    );
                }
            }
            return;
        };
        self.identities(a, b);
        self.links(a, b);
        self.keys(a, b);
    }

    fn identities(&mut self, a: &Ha, b: &Ha) {
        if a.node_id == b.node_id {
            let message = format!("both nodes have `node_id = {}`", a.node_id);
            self.say(
                Severity::Error,
                &of_ha("node_id"),
                message,
                "one node is 1, the other one 2",
            );
        }
        if a.priority == b.priority {
            let message = format!(
                "both nodes have `priority = {}`: at the start node 1 leads",
                a.priority
            );
            let help = "give the node that is to lead the higher priority";
            self.say(Severity::Warning, &of_ha("priority"), message, help);
        }
        if a.witness != b.witness {
            let said = |of: &Ha| {
                of.witness
                    .map_or("none".to_owned(), |address| address.to_string())
            };
            let message = format!(
                "the witness is {} here, and {} in {}",
                said(a),
                said(b),
                self.name(1)
            );
            let help = "nodes that ask the same witness find out more often which of them is cut off";
            self.say(Severity::Warning, &of_ha("witness"), message, help);
        }
    }

    fn links(&mut self, a: &Ha, b: &Ha) {
        self.link("link", a.link, b.link);
        match (a.second_link, b.second_link) {
            (None, None) => {}
            (Some(a), Some(b)) => self.link("second_link", a, b),
            (a, _) => {
                let (with, without) = if a.is_some() { (0, 1) } else { (1, 0) };
                let message = format!(
                    "`ha.second_link` is in {}, and not in {}",
                    self.name(with),
                    self.name(without)
                );
                let help = "write its mirror image in the other node's file, or remove it";
                self.say(Severity::Error, &of_ha("second_link"), message, help);
            }
        }
    }

    /// One node's `local` is the other one's `peer`.
    fn link(&mut self, key: &str, a: Link, b: Link) {
        let way = |end: &str| of_ha(key).with(Step::Key(end.to_owned()));
        for (mine, theirs, ours, other) in [
            ("local", "peer", a.local, b.peer),
            ("peer", "local", a.peer, b.local),
        ] {
            if ours == other {
                continue;
            }
            let message = format!(
                "`ha.{key}.{mine}` is {ours} here, and `{theirs}` is {other} in {}",
                self.name(1)
            );
            let sides = [
                Side {
                    value: Some(ours.to_string()),
                    ..self.side(0, &way(mine), None)
                },
                Side {
                    value: Some(other.to_string()),
                    ..self.side(1, &way(theirs), None)
                },
            ];
            let help = "each node's `local` is the other one's `peer`";
            self.push(Severity::Error, &way(mine), message, help, sides);
        }
    }

    /// The same key; nothing of it is shown.
    fn keys(&mut self, a: &Ha, b: &Ha) {
        let keys = [a, b].map(|ha| self.files.key(&ha.key_file));
        let (severity, message, help) = match &keys {
            [Some(Ok(a)), Some(Ok(b))] if a == b => return,
            [Some(Ok(_)), Some(Ok(_))] => (
                Severity::Error,
                "the nodes have different keys".to_owned(),
                "copy one node's key file to the other one",
            ),
            _ => {
                let why = keys.iter().flatten().find_map(|key| key.as_ref().err());
                let why = why.map_or_else(String::new, |error: &KeyFileError| format!(": {error}"));
                (
                    Severity::Warning,
                    format!("the nodes' keys were not compared{why}"),
                    "ask where both key files are, as who may read them",
                )
            }
        };
        self.say(severity, &of_ha("key_file"), message, help);
    }

    /// A finding about a key of both.
    fn say(&mut self, severity: Severity, way: &Way, message: String, help: &str) {
        let both = self.configs.each_ref().map(leaves);
        let sides = [0, 1].map(|node| self.side(node, way, both[node].get(way)));
        self.push(severity, way, message, help, sides);
    }

    fn push(&mut self, severity: Severity, way: &Way, message: String, help: &str, sides: [Side; 2]) {
        self.differences.push(Difference {
            severity,
            key: way.to_string(),
            message,
            help: help.to_owned(),
            sides,
        });
    }

    fn name(&self, node: usize) -> String {
        self.paths[node].display().to_string()
    }

    fn side(&self, node: usize, way: &Way, value: Option<&Json>) -> Side {
        let tree = &self.trees[node];
        let found = find(&tree.root, &way.0);
        let (place, source) = match found {
            Some((span, _)) => {
                let (place, source) = tree.report.place(span);
                (place, Some(source))
            }
            None => {
                let whole = Place {
                    file: self.paths[node].to_owned(),
                    line: 0,
                    column: 0,
                };
                (whole, None)
            }
        };
        Side {
            value: value.map(Json::to_string),
            place,
            is_default: !found.is_some_and(|(_, is_key)| is_key),
            source,
        }
    }
}

/// The array and the name of the member that a leaf belongs to.
fn member(way: &Way) -> Option<(&str, &str)> {
    match &way.0[..] {
        [Step::Key(array), Step::Named(name), ..] => Some((array, name)),
        _ => None,
    }
}

fn of_ha(key: &str) -> Way {
    Way(vec![Step::Key("ha".to_owned()), Step::Key(key.to_owned())])
}

/// Where a key stands, and whether it does; else the nearest table around it.
fn find(root: &Table, way: &[Step]) -> Option<(Span, bool)> {
    let mut table = root;
    let mut around = None;
    let mut steps = way.iter();
    while let Some(step) = steps.next() {
        let Step::Key(key) = step else { return around };
        let Some(entry) = table.get(key) else {
            return around;
        };
        let mut item = &entry.item;
        if let Value::Array(items) = &item.value {
            match steps.next() {
                Some(Step::Named(name)) => match items.iter().find(|item| is_named(item, name)) {
                    Some(member) => item = member,
                    None => return around,
                },
                _ => return Some((item.span, true)),
            }
        }
        around = Some((item.span, false));
        match &item.value {
            Value::Table(inner) => table = inner,
            _ => return Some((item.span, true)),
        }
    }
    around.map(|(span, _)| (span, true))
}

fn is_named(item: &Item, name: &str) -> bool {
    let Value::Table(table) = &item.value else {
        return false;
    };
    matches!(table.get("name").map(|entry| &entry.item.value), Some(Value::String(text)) if text == name)
}
