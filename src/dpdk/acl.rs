//! The classifier over DPDK's `rte_acl`: tries of all rules, one for IPv4 and one for IPv6, that answer for a burst of
//! packets at once and cost nearly the same for ten rules as for ten thousand.
//!
//! A trie is built on a control thread, never changed, and freed with its policy. What it cannot be built for (no rules,
//! or few; more entries than [`MAX_EXPANDED`](crate::policy::expand::MAX_EXPANDED); no memory) is left to the linear
//! classifier, which gives the same answers.

use std::ffi::{CString, c_int};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use arrayvec::ArrayVec;

use super::{Eal, sys};
use crate::policy::expand::{Address, Entry, Expanded, Prefix, Selected};
use crate::policy::linear::{Addresses, addresses};
use crate::policy::spec::Family;
use crate::policy::{Classifier, ClassifyKey, LinearClassifier, Method, Methods, RuleMatch, RuleSpec};

/// Keys that `rte_acl` is given at once: it looks for 16 side by side, and what they need fits a stack.
const CHUNK: usize = 64;

/// Up to so many rules that packets of a family can match, asking them in order is quicker than a trie
/// (`cargo bench --bench classify`).
pub const LINEAR_RULES: usize = 32;

/// First match by tries where they are quicker and possible, else by looking at the rules in order.
pub struct AclClassifier {
    linear: LinearClassifier,
    v4: Option<Trie<u32>>,
    v6: Option<Trie<u128>>,
    warnings: Vec<String>,
}

impl AclClassifier {
    /// Builds the tries of rules in their order, for a policy of so many zones; none for a family with no more than
    /// `linear_rules` ([`LINEAR_RULES`]). Takes its time (see `expand::MAX_EXPANDED`): on a control thread only.
    #[must_use]
    pub fn new(eal: &Eal, rules: &[RuleSpec], zones: usize, linear_rules: usize) -> Self {
        let linear = LinearClassifier::new(rules, zones);
        let mut warnings = Vec::new();
        let [count_v4, count_v6] = linear.rules();
        let mut left_to_linear = |family: &str, why: String| {
            warnings.push(format!(
                "rules for {family} are asked in order, which slows new sessions: {why}"
            ));
        };
        let v4 = trie(eal, rules, zones, count_v4, linear_rules).unwrap_or_else(|why| {
            left_to_linear("IPv4", why);
            None
        });
        let v6 = trie(eal, rules, zones, count_v6, linear_rules).unwrap_or_else(|why| {
            left_to_linear("IPv6", why);
            None
        });
        Self {
            linear,
            v4,
            v6,
            warnings,
        }
    }

    /// IPv4 keys by their trie, IPv6 keys left for a second look: are there any?
    #[inline]
    fn first_look(&self, keys: &[ClassifyKey], matches: &mut [RuleMatch]) -> bool {
        let (mut questions, mut more) = (Questions::new(), false);
        for (place, (key, found)) in (0..).zip(keys.iter().zip(&mut *matches)) {
            match (addresses(key), &self.v4) {
                (Some(Addresses::V4(source, destination)), Some(trie)) => {
                    *found = None;
                    trie.add(&mut questions, place, key, source, destination);
                }
                (Some(Addresses::V6(..)), _) => more = true,
                _ => self.one(key, found),
            }
        }
        if let Some(trie) = &self.v4 {
            trie.answer(&questions, matches);
        }
        more
    }

    #[inline(never)]
    fn second_look(&self, keys: &[ClassifyKey], matches: &mut [RuleMatch]) {
        let mut questions = Questions::new();
        for (place, (key, found)) in (0..).zip(keys.iter().zip(&mut *matches)) {
            match (addresses(key), &self.v6) {
                (Some(Addresses::V6(source, destination)), Some(trie)) => {
                    *found = None;
                    trie.add(&mut questions, place, key, source, destination);
                }
                (Some(Addresses::V6(..)), None) => self.one(key, found),
                _ => {}
            }
        }
        if let Some(trie) = &self.v6 {
            trie.answer(&questions, matches);
        }
    }

    fn one(&self, key: &ClassifyKey, found: &mut RuleMatch) {
        self.linear
            .classify(std::slice::from_ref(key), std::slice::from_mut(found));
    }
}

impl Classifier for AclClassifier {
    fn classify(&self, keys: &[ClassifyKey], matches: &mut [RuleMatch]) {
        if self.v4.is_none() && self.v6.is_none() {
            return self.linear.classify(keys, matches);
        }
        for (keys, matches) in keys.chunks(CHUNK).zip(matches.chunks_mut(CHUNK)) {
            if self.first_look(keys, matches) {
                self.second_look(keys, matches);
            }
        }
    }

    fn methods(&self) -> Methods {
        let method = |trie: bool| if trie { Method::RteAcl } else { Method::Linear };
        Methods {
            ipv4: method(self.v4.is_some()),
            ipv6: method(self.v6.is_some()),
        }
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// The trie of a family, if its rules are worth one; or why it cannot be had.
fn trie<A: Ip>(
    eal: &Eal,
    rules: &[RuleSpec],
    zones: usize,
    count: usize,
    linear_rules: usize,
) -> Result<Option<Trie<A>>, String> {
    if count <= linear_rules {
        return Ok(None);
    }
    let expanded = Expanded::new(rules, zones).map_err(|e| e.to_string())?;
    if expanded.entries.is_empty() {
        return Ok(None);
    }
    Trie::build(eal, expanded).map(Some)
}

/// What `rte_acl` is asked about one chunk of keys.
struct Questions<A: Ip> {
    rows: ArrayVec<A::Row, CHUNK>,
    /// Of the keys in their chunk.
    places: ArrayVec<u8, CHUNK>,
}

impl<A: Ip> Questions<A> {
    fn new() -> Self {
        Self {
            rows: ArrayVec::new(),
            places: ArrayVec::new(),
        }
    }
}

/// A built trie.
struct Trie<A> {
    context: Context,
    classes: crate::policy::expand::Classes,
    family: PhantomData<A>,
}

impl<A: Ip> Trie<A> {
    fn build(eal: &Eal, expanded: Expanded<A>) -> Result<Self, String> {
        let Expanded { entries, classes } = expanded;
        let rules: Vec<A::Rule> = entries.iter().map(A::rule).collect();
        let context = Context::build(eal, &rules, &A::config(classes.packed))?;
        Ok(Self {
            context,
            classes,
            family: PhantomData,
        })
    }

    #[inline]
    fn add(&self, questions: &mut Questions<A>, place: u8, key: &ClassifyKey, source: A, destination: A) {
        // Of a zone that the policy does not have: no rule matches.
        if let Some(selected) = self.classes.of::<A>(key) {
            questions
                .rows
                .push(A::row(selected, key.source_port, source, destination));
            questions.places.push(place);
        }
    }

    /// Fills in the matches of all questions.
    #[inline]
    fn answer(&self, questions: &Questions<A>, matches: &mut [RuleMatch]) {
        let mut results = [0_u32; CHUNK];
        self.context.classify(&questions.rows, &mut results);
        for (place, result) in questions.places.iter().zip(results) {
            // 0: no match. A rule's number begins with 1.
            matches[usize::from(*place)] = result.checked_sub(1);
        }
    }
}

/// Numbers the contexts, which must have different names.
static CONTEXTS: AtomicU32 = AtomicU32::new(0);

/// One `rte_acl` context with a built trie.
struct Context {
    raw: NonNull<sys::rte_acl_ctx>,
    /// The context is in its memory.
    _eal: Eal,
}

// SAFETY: a built context belongs to no thread: `rte_acl_classify` only reads it, and `rte_acl_free` takes the locks of the
// list of contexts and of the heap.
unsafe impl Send for Context {}
// SAFETY: what is called through a shared reference, `rte_acl_classify`, takes the context as const and writes only to its
// caller's results.
unsafe impl Sync for Context {}

impl Context {
    /// Builds a trie that holds `rules`, at least one; or says why not.
    fn build<R>(eal: &Eal, rules: &[R], config: &sys::rte_acl_config) -> Result<Self, String> {
        let number = CONTEXTS.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(format!("haechi-{number}")).map_err(|e| e.to_string())?;
        let count = u32::try_from(rules.len()).map_err(|e| e.to_string())?;
        let parameters = sys::rte_acl_param {
            name: name.as_ptr(),
            // Wherever there is room: one policy is for all workers.
            socket_id: -1,
            rule_size: size_of::<R>() as u32,
            max_rule_num: count,
        };
        let too_little = "DPDK's memory has no room for their trie (raise memory_mib in [node]), or they overlap in too \
                          many ways";
        // SAFETY: the parameters are read during the call alone, and no other context has this name.
        let raw = NonNull::new(unsafe { sys::rte_acl_create(&raw const parameters) })
            .ok_or_else(|| too_little.to_owned())?;
        let context = Self {
            raw,
            _eal: eal.clone(),
        };
        // SAFETY: `count` rules of the size that the context was made for are copied; nobody else knows the context yet.
        let added = unsafe { sys::rte_acl_add_rules(raw.as_ptr(), rules.as_ptr().cast(), count) };
        let built = match added {
            // SAFETY: as above; every rule has the fields that `config` names.
            0 => unsafe { sys::rte_acl_build(raw.as_ptr(), config) },
            error => error,
        };
        match -built {
            0 => Ok(context),
            libc::ENOMEM => Err(too_little.to_owned()),
            error => Err(format!("rte_acl cannot build their trie (error {error})")),
        }
    }

    /// Asks about up to [`CHUNK`] rows.
    #[inline]
    fn classify<R>(&self, rows: &[R], results: &mut [u32; CHUNK]) {
        let rows = &rows[..rows.len().min(CHUNK)];
        let mut pointers: ArrayVec<*const u8, CHUNK> =
            rows.iter().map(|row| std::ptr::from_ref(row).cast()).collect();
        // SAFETY: as many pointers as the call is told of, each to a row that holds every field that the context was built
        // for, and results for as many; one category. (It fails for other numbers of categories only.)
        unsafe {
            sys::rte_acl_classify(
                self.raw.as_ptr(),
                pointers.as_mut_ptr(),
                results.as_mut_ptr(),
                pointers.len() as u32,
                1,
            )
        };
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `rte_acl_create`, and nobody else has it; the EAL lives until this is done.
        unsafe { sys::rte_acl_free(self.raw.as_ptr()) };
    }
}

/// A rule in the layout of `struct rte_acl_rule`.
#[derive(Clone, Copy)]
#[repr(C)]
struct RawRule<const FIELDS: usize> {
    data: sys::rte_acl_rule_data,
    fields: [sys::rte_acl_field; FIELDS],
}

/// How the keys and rules of an address family lie in memory. A row is words in network order: the class in the first
/// byte, source, destination, ports, zones.
trait Ip: Family + Address {
    /// Words of an address.
    const WORDS: usize;
    type Row;
    type Rule;
    fn row(selected: Selected, source_port: u16, source: Self, destination: Self) -> Self::Row;
    fn rule(entry: &Entry<Self>) -> Self::Rule;

    /// Which fields a trie looks at, and where they are in a row and in a rule.
    fn config(packed: bool) -> sys::rte_acl_config {
        let types = [
            sys::RTE_ACL_FIELD_TYPE_MASK,
            sys::RTE_ACL_FIELD_TYPE_RANGE,
            sys::RTE_ACL_FIELD_TYPE_BITMASK,
        ];
        let [mask, range, bitmask] = types.map(|t| t as u8);
        let addresses = 2 * Self::WORDS;
        let mut defs = [sys::rte_acl_field_def {
            type_: 0,
            size: 0,
            field_index: 0,
            input_index: 0,
            offset: 0,
        }; sys::RTE_ACL_MAX_FIELDS as usize];
        let mut fields = 0;
        let mut define = |type_: u8, size: u8, input_index: usize, offset: usize| {
            defs[fields] = sys::rte_acl_field_def {
                type_,
                size,
                field_index: fields as u8,
                input_index: input_index as u8,
                offset: offset as u32,
            };
            fields += 1;
        };
        define(bitmask, 1, 0, 0);
        for word in 1..=addresses {
            define(mask, 4, word, 4 * word);
        }
        let ports = addresses + 1;
        define(range, 2, ports, 4 * ports);
        define(range, 2, ports, 4 * ports + 2);
        if !packed {
            define(bitmask, 2, ports + 1, 4 * ports + 4);
            define(bitmask, 2, ports + 1, 4 * ports + 6);
        }
        sys::rte_acl_config {
            num_categories: 1,
            num_fields: fields as u32,
            defs,
            // With a limit rte_acl first tries few tries of any size, and takes five times as long and as much memory
            // over rules that overlap in many ways; without, it parts such rules at once (into 8 tries at most).
            max_size: 0,
        }
    }
}

impl Ip for u32 {
    const WORDS: usize = 1;
    type Row = [u32; 5];
    type Rule = RawRule<7>;

    #[inline]
    fn row(selected: Selected, source_port: u16, source: Self, destination: Self) -> Self::Row {
        let [class, ports, zones] = ends(selected, source_port);
        [class, source.to_be(), destination.to_be(), ports, zones]
    }

    fn rule(entry: &Entry<Self>) -> Self::Rule {
        let [class, source_ports, selectors, from, to] = scalars(entry);
        let (source, destination) = (entry.source, entry.destination);
        let address = |prefix: Prefix<Self>| field(prefix.first.into(), prefix.len.into());
        RawRule {
            data: data(entry.rule),
            fields: [
                class,
                address(source),
                address(destination),
                source_ports,
                selectors,
                from,
                to,
            ],
        }
    }
}

impl Ip for u128 {
    const WORDS: usize = 4;
    type Row = [u32; 11];
    type Rule = RawRule<13>;

    #[inline]
    fn row(selected: Selected, source_port: u16, source: Self, destination: Self) -> Self::Row {
        let [class, ports, zones] = ends(selected, source_port);
        let [a, b, c, d] = words(source).map(u32::to_be);
        let [e, f, g, h] = words(destination).map(u32::to_be);
        [class, a, b, c, d, e, f, g, h, ports, zones]
    }

    fn rule(entry: &Entry<Self>) -> Self::Rule {
        let [class, source_ports, selectors, from, to] = scalars(entry);
        let address = |prefix: Prefix<Self>| {
            let words = words(prefix.first);
            std::array::from_fn(|i| {
                let len = prefix.len.saturating_sub(32 * i as u32).min(32);
                field(words[i].into(), len.into())
            })
        };
        let [a, b, c, d] = address(entry.source);
        let [e, f, g, h] = address(entry.destination);
        RawRule {
            data: data(entry.rule),
            fields: [class, a, b, c, d, e, f, g, h, source_ports, selectors, from, to],
        }
    }
}

/// The highest word first.
#[inline]
fn words(address: u128) -> [u32; 4] {
    [96, 64, 32, 0].map(|shift| (address >> shift) as u32)
}

/// Class, ports and zones of a row.
#[inline]
fn ends(selected: Selected, source_port: u16) -> [u32; 3] {
    let pair = |first: u16, second: u16| ((u32::from(first) << 16) | u32::from(second)).to_be();
    [
        u32::from_ne_bytes([selected.class, 0, 0, 0]),
        pair(source_port, selected.selector),
        pair(selected.from, selected.to),
    ]
}

/// Class, source ports, selectors and zones of an entry.
fn scalars<A>(entry: &Entry<A>) -> [sys::rte_acl_field; 5] {
    let range = |(first, last): (u16, u16)| field(first.into(), last.into());
    let [from, to] = entry
        .zones
        .map(|zones| field(zones.value.into(), zones.mask.into()));
    [
        field(entry.class.value.into(), entry.class.mask.into()),
        range(entry.source_ports),
        range(entry.selectors),
        from,
        to,
    ]
}

/// A value with its mask, its length or its range's end.
fn field(value: u64, mask_range: u64) -> sys::rte_acl_field {
    sys::rte_acl_field {
        value: sys::rte_acl_field_types { u64_: value },
        mask_range: sys::rte_acl_field_types { u64_: mask_range },
    }
}

/// The first rule has the highest priority.
fn data(rule: u32) -> sys::rte_acl_rule_data {
    sys::rte_acl_rule_data {
        category_mask: 1,
        priority: sys::RTE_ACL_MAX_PRIORITY as c_int - rule as c_int,
        userdata: rule + 1,
    }
}
