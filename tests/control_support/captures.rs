//! Capture files for tests, written by the crate's own writers.

use std::time::Duration;

use haechi::packet::synth::PacketSpec;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::SectionHeaderBlock;
use pcap_file::{DataLink, Endianness, TsResolution};

/// A frame from its description.
pub fn frame(words: &str) -> Vec<u8> {
    words
        .parse::<PacketSpec>()
        .unwrap_or_else(|e| panic!("{words}: {e}"))
        .frame()
}

/// Time and frame.
pub type Packet = (Duration, Vec<u8>);

/// A pcap file.
pub fn pcap(packets: &[Packet], endianness: Endianness, ts_resolution: TsResolution) -> Vec<u8> {
    let header = PcapHeader {
        endianness,
        ts_resolution,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    for (time, frame) in packets {
        writer
            .write_packet(&PcapPacket::new(
                *time,
                u32::try_from(frame.len()).unwrap(),
                frame,
            ))
            .unwrap();
    }
    writer.into_writer()
}

/// A pcapng file; with `if_tsresol`: 9 decimal digits, or 2^-30 seconds, or none (microseconds).
pub fn pcapng(packets: &[Packet], endianness: Endianness, resolution: Option<u8>) -> Vec<u8> {
    let section = SectionHeaderBlock {
        endianness,
        ..SectionHeaderBlock::default()
    };
    let mut writer = PcapNgWriter::with_section_header(Vec::new(), section).unwrap();
    let options = resolution.map(InterfaceDescriptionOption::IfTsResol);
    writer
        .write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: options.into_iter().collect(),
        })
        .unwrap();
    for (time, frame) in packets {
        let nanos = time.as_nanos();
        let units = match resolution {
            None => nanos / 1000,
            Some(9) => nanos,
            Some(_) => (nanos << 30).div_ceil(1_000_000_000),
        };
        writer
            .write_pcapng_block(EnhancedPacketBlock {
                interface_id: 0,
                // The crate writes nanoseconds as units of whatever size.
                timestamp: Duration::from_nanos(u64::try_from(units).unwrap()),
                original_len: u32::try_from(frame.len()).unwrap(),
                data: frame.into(),
                options: Vec::new(),
            })
            .unwrap();
    }
    writer.into_inner()
}

/// A handshake that a rule allows, and a packet that one refuses half a minute later.
pub fn handshake() -> Vec<Packet> {
    let at = |ms| Duration::from_secs(1_700_000_000) + Duration::from_millis(ms);
    vec![
        (at(0), frame("tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=100")),
        (
            at(10),
            frame("tcp 192.0.2.7:80 > 10.0.0.5:1234 syn ack seq=300 ack=101"),
        ),
        (
            at(20),
            frame("tcp 10.0.0.5:1234 > 192.0.2.7:80 ack seq=101 ack=301"),
        ),
        (at(30_000), frame("tcp 10.0.0.5:1234 > 192.0.2.7:25 syn")),
    ]
}
