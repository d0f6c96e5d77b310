//! Frames from capture files: pcap in both byte orders with micro- or nanoseconds, and pcapng.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::PcapNgReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

use crate::control::node::{ErrorKind, NodeError};

/// A frame with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// What was captured of it.
    pub bytes: Vec<u8>,
    /// How long it was on the wire.
    pub original_len: u32,
}

/// An open capture file.
pub struct Capture {
    path: PathBuf,
    reader: Reader,
    frames: u64,
    /// Of the frame before: a simple packet block has no time of its own.
    at_ns: u64,
}

enum Reader {
    Pcap(PcapReader<File>),
    PcapNg(PcapNgReader<File>),
}

/// The section header block's type, which begins a pcapng file and reads the same in both byte orders.
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Block types with packets in them (pcapng, sections 4.3, 4.4 and appendix A).
const ENHANCED_PACKET: u32 = 6;
const SIMPLE_PACKET: u32 = 3;
const OBSOLETE_PACKET: u32 = 2;

impl Capture {
    /// Opens a file and looks at its head.
    ///
    /// # Errors
    /// When it cannot be read, is no capture, or is one of something else than Ethernet.
    pub fn open(path: &Path) -> Result<Self, NodeError> {
        let unreadable = |e: &io::Error| error(path, format!("cannot be read: {e}"));
        let mut file = File::open(path).map_err(|e| unreadable(&e))?;
        let mut magic = [0; 4];
        if let Err(e) = file.read_exact(&mut magic) {
            return Err(match e.kind() {
                io::ErrorKind::UnexpectedEof => not_a_capture(path),
                _ => unreadable(&e),
            });
        }
        file.rewind().map_err(|e| unreadable(&e))?;
        let reader = if magic == PCAPNG_MAGIC {
            Reader::PcapNg(PcapNgReader::new(file).map_err(|e| broken_head(path, &e))?)
        } else {
            let reader = PcapReader::new(file).map_err(|e| broken_head(path, &e))?;
            ethernet(path, reader.header().datalink)?;
            Reader::Pcap(reader)
        };
        Ok(Self {
            path: path.to_owned(),
            reader,
            frames: 0,
            at_ns: 0,
        })
    }

    /// The next frame; `None`: that was the last.
    ///
    /// # Errors
    /// When the file is broken from here on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, NodeError> {
        let frame = match &mut self.reader {
            Reader::Pcap(reader) => next_pcap(reader),
            Reader::PcapNg(reader) => next_pcapng(reader, self.at_ns),
        };
        let frame = frame.map_err(|broken| {
            error(
                &self.path,
                format!("broken after {} packets: {}", self.frames, broken.0),
            )
        })?;
        if let Some(frame) = &frame {
            self.frames += 1;
            self.at_ns = frame.at_ns;
        }
        Ok(frame)
    }
}

/// What is wrong with the rest of a file.
struct Broken(String);

impl From<PcapError> for Broken {
    fn from(e: PcapError) -> Self {
        Self(why(&e))
    }
}

fn next_pcap(reader: &mut PcapReader<File>) -> Result<Option<Frame>, Broken> {
    let nanos = match reader.header().ts_resolution {
        TsResolution::MicroSecond => 1000,
        TsResolution::NanoSecond => 1,
    };
    // The raw form: the other one takes a frame that the capture cut short for an error.
    let Some(packet) = reader.next_raw_packet().transpose()? else {
        return Ok(None);
    };
    let fraction = u64::from(packet.ts_frac) * nanos;
    Ok(Some(Frame {
        at_ns: u64::from(packet.ts_sec) * 1_000_000_000 + fraction,
        bytes: packet.data.into_owned(),
        original_len: packet.orig_len,
    }))
}

fn next_pcapng(reader: &mut PcapNgReader<File>, last_ns: u64) -> Result<Option<Frame>, Broken> {
    loop {
        let order = reader.section().endianness;
        let Some(block) = reader.next_raw_block().transpose()? else {
            return Ok(None);
        };
        // The parts of a packet block are read here: the crate knows nothing of a timestamp's resolution.
        let kind = block.type_;
        if !matches!(kind, ENHANCED_PACKET | SIMPLE_PACKET | OBSOLETE_PACKET) {
            continue;
        }
        let body = block.body.into_owned();
        let packet = PacketBlock::parse(kind, &body, order)
            .ok_or_else(|| Broken("a packet block is too short".into()))?;
        let interface = reader
            .interfaces()
            .get(packet.interface as usize)
            .ok_or_else(|| Broken(format!("interface {} is not described", packet.interface)))?;
        ethernet_link(interface.linktype).map_err(Broken)?;
        let original_len = packet.original_len;
        return Ok(Some(Frame {
            at_ns: packet
                .units
                .map_or(last_ns, |units| nanoseconds(units, interface)),
            bytes: packet.data.to_vec(),
            original_len,
        }));
    }
}

/// The body of a block with a packet in it.
struct PacketBlock<'a> {
    interface: u32,
    /// Time in the interface's units.
    units: Option<u64>,
    original_len: u32,
    data: &'a [u8],
}

impl<'a> PacketBlock<'a> {
    fn parse(kind: u32, body: &'a [u8], order: Endianness) -> Option<Self> {
        let word = |at: usize| {
            let bytes = body.get(at..)?.first_chunk::<4>()?;
            Some(match order {
                Endianness::Big => u32::from_be_bytes(*bytes),
                Endianness::Little => u32::from_le_bytes(*bytes),
            })
        };
        if kind == SIMPLE_PACKET {
            let original_len = word(0)?;
            let padded = body.get(4..)?;
            return Some(Self {
                interface: 0,
                units: None,
                original_len,
                data: padded.get(..original_len as usize).unwrap_or(padded),
            });
        }
        let interface = match kind {
            ENHANCED_PACKET => word(0)?,
            _ => u32::from(match order {
                Endianness::Big => u16::from_be_bytes(*body.first_chunk::<2>()?),
                Endianness::Little => u16::from_le_bytes(*body.first_chunk::<2>()?),
            }),
        };
        let captured = word(12)? as usize;
        Some(Self {
            interface,
            units: Some((u64::from(word(4)?) << 32) | u64::from(word(8)?)),
            original_len: word(16)?,
            data: body.get(20..)?.get(..captured)?,
        })
    }
}

/// A time in an interface's units, as nanoseconds (`if_tsresol`; microseconds where it is not there).
fn nanoseconds(units: u64, interface: &InterfaceDescriptionBlock<'_>) -> u64 {
    let resolution = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
        _ => None,
    });
    let resolution = resolution.unwrap_or(6);
    let exponent = u32::from(resolution & 0x7f);
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    // More units a second than a u128 holds: all times are within one nanosecond.
    let a_second = base.checked_pow(exponent).unwrap_or(u128::MAX);
    u64::try_from(u128::from(units) * 1_000_000_000 / a_second).unwrap_or(u64::MAX)
}

fn ethernet(path: &Path, link: DataLink) -> Result<(), NodeError> {
    ethernet_link(link).map_err(|why| {
        error(path, why).fix("capture on an Ethernet interface (not on `any`): tcpdump -i INTERFACE -w FILE")
    })
}

fn ethernet_link(link: DataLink) -> Result<(), String> {
    match link {
        DataLink::ETHERNET => Ok(()),
        other => Err(format!("a capture of link type {other:?}, not of Ethernet")),
    }
}

fn broken_head(path: &Path, e: &PcapError) -> NodeError {
    match e {
        PcapError::InvalidField(_) | PcapError::IoError(_) => not_a_capture(path),
        e => error(path, why(e)),
    }
}

fn not_a_capture(path: &Path) -> NodeError {
    error(path, "not a capture file (pcap or pcapng)".to_owned())
}

fn why(e: &PcapError) -> String {
    match e {
        PcapError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            "the file ends inside a packet".to_owned()
        }
        PcapError::IoError(e) => e.to_string(),
        e => e.to_string(),
    }
}

fn error(path: &Path, what: String) -> NodeError {
    NodeError::new(ErrorKind::BadRequest, format!("{}: {what}", path.display()))
}
