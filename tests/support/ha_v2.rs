//! A later version of the HA pair's messages, that exists in tests alone: to each container it adds a field, makes one that there is
//! longer, and has a kind of frame of its own. Written against the form of `haechi::ha::wire`, not with its code.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use haechi::ha::Frame;
use haechi::ha::wire::{WireError, decode, kind};

/// The version that its heartbeats say.
pub(crate) const VERSION: u16 = 2;
/// The kind of frame that it adds.
pub(crate) const NEWS: u16 = 200;

const ADDED: u8 = 120;
const SYNC_SESSION: u8 = 2;
const SYNC_GONE: u8 = 3;
const COUNTS: u8 = 5;

/// What version 2 says beside version 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Added {
    /// Of each heartbeat, Sync and so on: one number.
    pub(crate) frames: Vec<u32>,
    /// Of each session or end of one.
    pub(crate) sessions: Vec<u32>,
    /// Of each session: bytes behind its counts.
    pub(crate) counts: Vec<u16>,
    /// The frames of the kind that is new.
    pub(crate) news: Vec<Vec<u8>>,
}

/// One field: tag, value.
type Field = (u8, Vec<u8>);

fn fields(mut bytes: &[u8], width: usize) -> Vec<Field> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = if width == 1 {
            usize::from(bytes[1])
        } else {
            usize::from(u16::from_le_bytes([bytes[1], bytes[2]]))
        };
        let (field, rest) = bytes.split_at(1 + width + length);
        found.push((field[0], field[1 + width..].to_vec()));
        bytes = rest;
    }
    found
}

fn bytes_of(fields: &[Field], width: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, value) in fields {
        bytes.push(*tag);
        bytes.extend_from_slice(&value.len().to_le_bytes()[..width]);
        bytes.extend_from_slice(value);
    }
    bytes
}

/// Kind and body of each frame.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let (frame, rest) = bytes.split_at(4 + usize::from(word(2)));
        found.push((word(0), frame[4..].to_vec()));
        bytes = rest;
    }
    found
}

fn append(out: &mut Vec<u8>, kind: u16, body: &[u8]) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&(body.len() as u16).to_le_bytes());
    out.extend_from_slice(body);
}

fn is_known(of: u16) -> bool {
    (kind::HEARTBEAT..=kind::RETURN).contains(&of)
}

/// What a node of version 2 sends for what a node of version 1 would send: the numbers that it adds count up from 1. Where `front`
/// is set, what it adds stands first.
pub(crate) fn write(version_1: &[u8], front: bool) -> (Vec<u8>, Added) {
    let (mut out, mut added) = (Vec::new(), Added::default());
    let mut number = 0;
    for (kind, body) in frames(version_1) {
        if !is_known(kind) {
            append(&mut out, kind, &body);
            continue;
        }
        let mut add = |to: &mut Vec<Field>, noted: &mut Vec<u32>| {
            number += 1;
            noted.push(number);
            let place = if front { 0 } else { to.len() };
            to.insert(place, (ADDED, number.to_le_bytes().to_vec()));
        };
        let mut outer = fields(&body, 2);
        for (tag, value) in &mut outer {
            if kind == kind::SYNC && [SYNC_SESSION, SYNC_GONE].contains(tag) {
                let mut inner = fields(value, 1);
                for (_, value) in inner.iter_mut().filter(|(tag, _)| *tag == COUNTS) {
                    value.extend_from_slice(&[7, 9]);
                    added.counts.push(u16::from_le_bytes([7, 9]));
                }
                add(&mut inner, &mut added.sessions);
                *value = bytes_of(&inner, 1);
            }
        }
        add(&mut outer, &mut added.frames);
        let news = format!("news {number}").into_bytes();
        append(&mut out, NEWS, &news);
        added.news.push(news);
        append(&mut out, kind, &bytes_of(&outer, 2));
    }
    (out, added)
}

/// What a node of version 2 understands: what version 1 says, and what is there of its own.
pub(crate) fn read(bytes: &[u8]) -> Result<(Vec<Frame>, Added), WireError> {
    let known = decode(bytes)?.filter_map(haechi::ha::wire::Message::into_frame);
    let known = known
        .filter(|frame| *frame != Frame::Unknown { kind: NEWS })
        .collect();
    let mut added = Added::default();
    let find = |of: &[Field]| {
        let found = of.iter().find(|(tag, _)| *tag == ADDED);
        found.map(|(_, value)| u32::from_le_bytes(value[..4].try_into().expect("four bytes")))
    };
    for (kind, body) in frames(bytes) {
        if kind == NEWS {
            added.news.push(body);
        } else if is_known(kind) {
            let outer = fields(&body, 2);
            added.frames.extend(find(&outer));
            for (_, value) in outer
                .iter()
                .filter(|(tag, _)| kind == kind::SYNC && [SYNC_SESSION, SYNC_GONE].contains(tag))
            {
                let inner = fields(value, 1);
                added.sessions.extend(find(&inner));
                let counts = inner
                    .iter()
                    .find(|(tag, value)| *tag == COUNTS && value.len() > 44);
                added
                    .counts
                    .extend(counts.map(|(_, value)| u16::from_le_bytes([value[44], value[45]])));
            }
        }
    }
    Ok((known, added))
}
