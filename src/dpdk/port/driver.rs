//! What drivers do each in their own way: how long a frame may be, what buffer it takes, whether they know their link.
//! Read in the sources of DPDK 22.11 to 24.11 (drivers/net).

use super::{
    super::mempool::{FRAME_OVERHEAD, Layout, Pool, round_up},
    device::argument,
};

/// Poll-mode drivers that want to be treated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A buffer is one AF_XDP chunk and has to fit a page; the link is the kernel's; buffers of the fill ring are lost on
    /// close.
    AfXdp,
    /// Frames longer than its ring's frames are cut short in silence; the link is the kernel's.
    AfPacket,
    /// Sends what fits its MTU with two tags.
    Tap,
    /// Shared memory between two processes; a frame longer than one of its buffers arrives in several.
    Memif,
    /// null, ring, pcap: what they say of lengths means nothing, any fits.
    Virtual,
    /// virtio: with checksum offload on reception its host leaves checksums out.
    Virtio,
    /// A NIC.
    Nic,
}

/// What a driver's receive interrupts are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupts {
    /// It has none, or its queues are sockets, which serve better.
    None,
    /// The queue's descriptor is readable as long as packets wait. There is nothing to be armed.
    Readable,
    /// As DPDK means them: armed before a sleep, masked while the queue is polled. Of every driver that is not known to
    /// be different; if it has them will be seen.
    Masked,
    /// As `Masked`, while a guest is there, which makes the link: one that comes brings queues of its own, unarmed.
    Guest,
    /// Never masked once they were armed: masked, these NICs write back received descriptors by cache lines only, so that
    /// up to three packets wait for the next ones while their queue is polled.
    Unmasked,
}

impl Interrupts {
    /// By the driver's name.
    pub(super) fn of(driver: &str) -> Self {
        match Kind::of(driver) {
            Kind::AfXdp | Kind::AfPacket | Kind::Memif | Kind::Virtual => Self::None,
            Kind::Tap => Self::Readable,
            Kind::Nic if driver.starts_with("net_vhost") => Self::Guest,
            Kind::Nic if driver.starts_with("net_i40e") || driver.starts_with("net_iavf") => Self::Unmasked,
            Kind::Nic | Kind::Virtio => Self::Masked,
        }
    }
}

/// What an MTU takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frames {
    /// Bytes of a buffer behind the headroom.
    pub(super) room: u16,
    /// What the driver is told as MTU.
    pub(super) device_mtu: u16,
}

/// What a device says of lengths (`rte_eth_dev_info`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub(super) max_mtu: u16,
    pub(super) max_rx_pktlen: u32,
    pub(super) min_rx_bufsize: u32,
}

/// Why an MTU is refused: the largest that works, and what would make a larger one work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TooLong {
    pub(super) largest: u16,
    pub(super) hint: String,
}

/// Largest MTU of all: its frame fits a 16-bit length and its buffer a 16-bit room.
const LARGEST: u16 = 65_000;
/// XDP_PACKET_HEADROOM (linux/bpf.h): what the kernel keeps in front of each frame.
const XDP_HEADROOM: usize = 256;
/// What a block of a packet_mmap ring is a multiple of.
const PAGE: usize = Pool::PAGE as usize;
/// Where a frame starts in one of AF_PACKET's ring frames: TPACKET_ALIGN(TPACKET2_HDRLEN + 16) - ETH_HLEN.
const PACKET_MMAP_HEADER: usize = 66;
/// TPACKET2_HDRLEN - sizeof(struct sockaddr_ll): how the driver computes the data part of a ring frame.
const PACKET_MMAP_DRIVER_HEADER: usize = 32;
/// The drivers' defaults: DFLT_FRAME_SIZE, ETH_MEMIF_PKT_BUFFER_SIZE.
const PACKET_MMAP_FRAME: usize = 2048;
const MEMIF_BUFFER: usize = 2048;
/// ETH_MEMIF_MAX_LOG2_RING_SIZE.
const MEMIF_LARGEST_RING: u32 = 14;

/// Does the driver mean sorting when it is asked to XOR source and destination (mlx5: `rx_hash_symmetric` of its TIR)?
pub(super) fn sorts(driver: &str) -> bool {
    driver.starts_with("mlx5") || driver.starts_with("net_mlx5")
}

impl Kind {
    /// By the driver's name, or a virtual device's.
    pub(super) fn of(name: &str) -> Self {
        const KINDS: [(&str, Kind); 13] = [
            ("net_af_xdp", Kind::AfXdp),
            ("net_af_packet", Kind::AfPacket),
            ("eth_af_packet", Kind::AfPacket),
            ("net_tap", Kind::Tap),
            ("net_tun", Kind::Tap),
            ("net_memif", Kind::Memif),
            ("net_null", Kind::Virtual),
            ("eth_null", Kind::Virtual),
            ("net_ring", Kind::Virtual),
            ("eth_ring", Kind::Virtual),
            ("net_pcap", Kind::Virtual),
            ("eth_pcap", Kind::Virtual),
            ("net_virtio", Kind::Virtio),
        ];
        KINDS
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map_or(Self::Nic, |(_, kind)| *kind)
    }

    /// Stands on the kernel interface that its argument `iface` names.
    pub(super) const fn takes_interface(self) -> bool {
        matches!(self, Self::AfXdp | Self::AfPacket)
    }

    /// Its link state can be believed.
    pub(super) const fn knows_link(self) -> bool {
        !self.takes_interface()
    }

    /// Checksum offload on reception may be switched on. (The tap driver computes them in software, like haechi.)
    pub(super) const fn checksum_offload(self) -> bool {
        matches!(self, Self::Nic)
    }

    /// How the port's buffers lie in memory.
    pub(super) const fn layout(self) -> Layout {
        match self {
            Self::AfXdp => Layout::Pages,
            _ => Layout::Cached,
        }
    }

    /// Buffers that a receive queue takes at once.
    pub(super) const fn queue_fill(self, descriptors: u16) -> u32 {
        match self {
            // ETH_AF_XDP_DFLT_NUM_DESCS in the fill ring, whatever the ring's size.
            Self::AfXdp => 2048,
            Self::AfPacket | Self::Tap | Self::Memif | Self::Virtual => 0,
            Self::Virtio | Self::Nic => descriptors as u32,
        }
    }

    /// Frames that wait for reception in a queue at most.
    pub(super) fn ring_size(self, descriptors: u16, args: &str) -> u32 {
        match self {
            // DFLT_FRAME_COUNT, or the argument.
            Self::AfPacket => argument(args, "framecnt")
                .and_then(|v| v.parse().ok())
                .unwrap_or(512),
            // ETH_MEMIF_DEFAULT_RING_SIZE, or the argument. (The client's counts; both ends are to say the same.)
            Self::Memif => argument(args, "rsize")
                .and_then(|v| v.parse().ok())
                .map_or(1024, |log2: u32| 1 << log2.min(MEMIF_LARGEST_RING)),
            // TUN_READQ_SIZE of older kernels; newer ones take 1000.
            Self::Tap => 500,
            // net_ring's rings, whatever the descriptors.
            Self::Virtual => 1024,
            Self::AfXdp | Self::Virtio | Self::Nic => u32::from(descriptors),
        }
    }

    /// How to have receive rings of at least `frames` frames, or the most that there can be, of which the device says that
    /// it has `most`: a key or argument, and the frames. `None`: there is no way.
    pub(super) fn larger_ring(self, frames: u32, most: u16) -> Option<(String, u32)> {
        match self {
            Self::AfXdp | Self::Virtio | Self::Nic => {
                // The largest that the configuration takes.
                let most = if most == 0 {
                    32_768
                } else {
                    u32::from(most).min(32_768)
                };
                let frames = frames.next_power_of_two().min(most);
                Some((format!("rx_descriptors = {frames}"), frames))
            }
            Self::Memif => {
                let log2 = frames.next_power_of_two().ilog2().min(MEMIF_LARGEST_RING);
                Some((format!("rsize={log2} at both ends"), 1 << log2))
            }
            Self::AfPacket => Some((format!("framecnt={frames}"), frames)),
            Self::Tap | Self::Virtual => None,
        }
    }

    /// The speed at which its rings fill, Mbit/s, where that is known. (A memif is memory between two processes; the 100
    /// Gbit/s that its driver tells are a constant.)
    pub(super) const fn line_speed(self, told: Option<u32>) -> Option<u32> {
        match self {
            Self::Memif => None,
            _ => told,
        }
    }

    /// A virtual device's arguments, completed so that frames of this MTU fit.
    pub(super) fn complete_args(self, args: &str, mtu: u16) -> String {
        let frame = usize::from(mtu) + FRAME_OVERHEAD;
        let with = |more: String| {
            if args.is_empty() {
                more
            } else {
                format!("{args},{more}")
            }
        };
        let given = |key| argument(args, key).is_some();
        match self {
            Self::AfPacket
                if !given("framesz")
                    && !given("blocksz")
                    && frame + PACKET_MMAP_HEADER > PACKET_MMAP_FRAME =>
            {
                // packet_mmap: blocks are whole pages. One frame a block (see `check_args`).
                let frame = round_up(frame + PACKET_MMAP_HEADER, PAGE);
                with(format!("blocksz={frame},framesz={frame}"))
            }
            Self::Memif if !given("bsize") && frame > MEMIF_BUFFER => {
                with(format!("bsize={}", round_up(frame, 64)))
            }
            _ => args.to_owned(),
        }
    }

    /// Are a virtual device's arguments ones that work? If not, the fix.
    pub(super) fn check_args(self, args: &str) -> Result<(), String> {
        let size = |key: &str, default: usize| argument(args, key).map_or(Some(default), |v| v.parse().ok());
        match (self, size("framesz", PACKET_MMAP_FRAME), size("blocksz", PAGE)) {
            // The driver computes frame places as if blocks had no unused end, and the kernel does not: they would lose
            // each other after the first frame.
            (Self::AfPacket, Some(frame), Some(block)) if frame == 0 || block % frame != 0 => Err(format!(
                "its blocksz ({block}) must be a multiple of its framesz ({frame})"
            )),
            _ => Ok(()),
        }
    }

    /// What an MTU takes with this driver.
    pub(super) fn frames(self, mtu: u16, lengths: &Lengths, args: &str) -> Result<Frames, TooLong> {
        let frame = usize::from(mtu) + FRAME_OVERHEAD;
        let size = |key: &str, default| {
            argument(args, key)
                .and_then(|v| v.parse().ok())
                .unwrap_or(default)
        };
        let too_long = |largest: usize, hint: &str| TooLong {
            largest: u16::try_from(largest).unwrap_or(LARGEST).min(LARGEST),
            hint: hint.to_owned(),
        };
        if mtu > LARGEST {
            return Err(too_long(usize::from(LARGEST), ""));
        }
        // NICs take buffers in steps of up to 1 KiB.
        let ordinary = |frame: usize| round_up(frame, 1024).min(usize::from(u16::MAX) - 1024);
        let (room, device_mtu) = match self {
            Self::AfXdp if frame > AF_XDP_FRAME => {
                let hint = "an AF_XDP buffer is a page";
                return Err(too_long(AF_XDP_FRAME - FRAME_OVERHEAD, hint));
            }
            Self::AfXdp => (usize::from(Pool::PAGE_ROOM), mtu),
            Self::AfPacket => {
                let ring_frame: usize = size("framesz", PACKET_MMAP_FRAME);
                let largest = ring_frame.saturating_sub(PACKET_MMAP_HEADER);
                if frame > largest {
                    let enough = round_up(frame + PACKET_MMAP_HEADER, PAGE);
                    let hint = format!("blocksz={enough},framesz={enough} would do");
                    return Err(too_long(largest.saturating_sub(FRAME_OVERHEAD), &hint));
                }
                // The driver refuses a pool whose buffers are smaller than its ring's frames.
                (
                    ordinary(frame.max(ring_frame - PACKET_MMAP_DRIVER_HEADER)),
                    nominal(mtu, lengths),
                )
            }
            Self::Memif => {
                let largest: usize = size("bsize", MEMIF_BUFFER);
                if frame > largest {
                    return Err(too_long(
                        largest.saturating_sub(FRAME_OVERHEAD),
                        &format!("bsize={frame} would do"),
                    ));
                }
                (ordinary(frame.max(largest)), nominal(mtu, lengths))
            }
            Self::Virtual => (ordinary(frame), nominal(mtu, lengths)),
            Self::Tap => {
                // Its lengths count both tags and no CRC.
                let largest = lengths.max_rx_pktlen as usize;
                if frame > largest {
                    return Err(too_long(largest.saturating_sub(FRAME_OVERHEAD), ""));
                }
                (ordinary(frame), mtu)
            }
            Self::Virtio | Self::Nic => {
                let extra = lengths.missing_overhead();
                let largest = lengths.largest_mtu().saturating_sub(extra);
                if u32::from(mtu) > largest {
                    return Err(too_long(largest as usize, ""));
                }
                let device_mtu = u16::try_from(u32::from(mtu) + extra).unwrap_or(u16::MAX);
                // CRC, and what some drivers add for tags that they count themselves.
                (
                    ordinary(frame + 4 + 8).max(lengths.min_rx_bufsize as usize),
                    device_mtu,
                )
            }
        };
        let room = u16::try_from(room).map_err(|_| too_long(usize::from(LARGEST), ""))?;
        Ok(Frames { room, device_mtu })
    }
}

impl Lengths {
    /// Bytes of a frame that the driver adds to an MTU (`eth_dev_get_overhead_len` of ethdev).
    fn overhead(&self) -> u32 {
        let told = self.max_mtu != u16::MAX && self.max_rx_pktlen > u32::from(self.max_mtu);
        if told {
            self.max_rx_pktlen - u32::from(self.max_mtu)
        } else {
            14 + 4
        }
    }

    /// What is missing in that for two tags and the CRC.
    fn missing_overhead(&self) -> u32 {
        (FRAME_OVERHEAD as u32 + 4).saturating_sub(self.overhead())
    }

    /// The largest MTU that ethdev lets through (`eth_dev_validate_mtu`).
    fn largest_mtu(&self) -> u32 {
        u32::from(self.max_mtu).min(self.max_rx_pktlen.saturating_sub(self.overhead()))
    }
}

/// What to tell a driver as MTU whose lengths mean nothing, so that ethdev lets it through.
fn nominal(mtu: u16, lengths: &Lengths) -> u16 {
    u16::try_from(u32::from(mtu).min(lengths.largest_mtu())).unwrap_or(mtu)
}

/// The longest frame that an AF_XDP buffer holds. A buffer is a whole mempool object with its header, and fills a page: the
/// driver takes the pool for objects without gaps (`xdp_umem_configure`), and the kernel no chunk beyond a page.
const AF_XDP_FRAME: usize = Pool::PAGE_ROOM as usize - XDP_HEADROOM;

#[cfg(test)]
mod tests {
    use super::*;

    const ETHERNET: Lengths = Lengths {
        max_mtu: u16::MAX,
        max_rx_pktlen: 1518,
        min_rx_bufsize: 0,
    };

    #[test]
    fn a_nic_gets_room_for_two_tags() {
        // ixgbe counts header and CRC: 8 bytes are added for the tags; ice counts the tags: none is.
        let ixgbe = Lengths {
            max_mtu: 15_854,
            max_rx_pktlen: 15_872,
            min_rx_bufsize: 1024,
        };
        let ice = Lengths {
            max_mtu: 9702,
            max_rx_pktlen: 9728,
            min_rx_bufsize: 1024,
        };
        let frames = |mtu, lengths: &Lengths| Kind::Nic.frames(mtu, lengths, "").unwrap();
        assert_eq!(
            frames(1500, &ixgbe),
            Frames {
                room: 2048,
                device_mtu: 1508
            }
        );
        assert_eq!(
            frames(1500, &ice),
            Frames {
                room: 2048,
                device_mtu: 1500
            }
        );
        assert_eq!(
            frames(9000, &ice),
            Frames {
                room: 9216,
                device_mtu: 9000
            }
        );
        assert_eq!(frames(9702, &ice).device_mtu, 9702);
        assert_eq!(Kind::Nic.frames(9703, &ice, "").unwrap_err().largest, 9702);
        assert_eq!(Kind::Nic.frames(15_847, &ixgbe, "").unwrap_err().largest, 15_846);
        // A virtual function held to 1518 bytes cannot take tags beyond 1500.
        let vf = Lengths {
            max_mtu: 1500,
            max_rx_pktlen: 1518,
            min_rx_bufsize: 1024,
        };
        assert_eq!(Kind::Nic.frames(1500, &vf, "").unwrap_err().largest, 1492);
    }

    #[test]
    fn virtual_devices_have_their_own_limits() {
        assert_eq!(
            Kind::Virtual.frames(9000, &ETHERNET, "").unwrap(),
            Frames {
                room: 9216,
                device_mtu: 1500
            }
        );
        assert_eq!(
            Kind::Virtual.frames(65_001, &ETHERNET, "").unwrap_err().largest,
            65_000
        );
        let tap = Lengths {
            max_mtu: u16::MAX,
            max_rx_pktlen: 1522,
            min_rx_bufsize: 0,
        };
        assert_eq!(Kind::Tap.frames(1500, &tap, "").unwrap().device_mtu, 1500);
        assert_eq!(Kind::Tap.frames(1501, &tap, "").unwrap_err().largest, 1500);
    }

    #[test]
    fn rings_are_made_for_the_mtu_or_refused() {
        for (kind, given, bad) in [
            (Kind::AfPacket, "iface=x", "iface=x,framesz=2048"),
            (Kind::Memif, "role=client", "role=client,bsize=2048"),
        ] {
            assert_eq!(kind.complete_args(given, 1500), given);
            let jumbo = kind.complete_args(given, 9000);
            assert_ne!(jumbo, given);
            assert!(kind.frames(9000, &ETHERNET, &jumbo).unwrap().room >= 9022);
            assert!(kind.frames(1500, &ETHERNET, given).is_ok());
            assert_eq!(kind.complete_args(bad, 9000), bad);
            let why = kind.frames(9000, &ETHERNET, bad).unwrap_err();
            assert!(why.largest < 2048 && !why.hint.is_empty());
            assert!(kind.frames(why.largest, &ETHERNET, bad).is_ok());
            assert!(kind.frames(why.largest + 1, &ETHERNET, bad).is_err());
        }
        assert_eq!(
            Kind::AfPacket.complete_args("iface=x", 9000),
            "iface=x,blocksz=12288,framesz=12288"
        );
    }

    #[test]
    fn ring_frames_that_do_not_fill_their_blocks_are_refused() {
        for good in [
            "iface=x",
            "framesz=1024",
            "blocksz=8192",
            "framesz=4096",
            "framesz=junk",
        ] {
            assert_eq!(Kind::AfPacket.check_args(good), Ok(()), "{good}");
        }
        for bad in ["framesz=1500", "framesz=9088,blocksz=12288", "framesz=0"] {
            assert!(
                Kind::AfPacket.check_args(bad).unwrap_err().contains("multiple"),
                "{bad}"
            );
            assert_eq!(Kind::Memif.check_args(bad), Ok(()));
        }
    }

    #[test]
    fn rings_have_the_size_that_their_drivers_give_them() {
        for (kind, args, size) in [
            (Kind::Nic, "", 4096),
            (Kind::AfXdp, "iface=x", 4096),
            (Kind::AfPacket, "iface=x", 512),
            (Kind::AfPacket, "iface=x,framecnt=64", 64),
            (Kind::Memif, "role=client", 1024),
            (Kind::Memif, "role=client,rsize=14", 16_384),
            (Kind::Memif, "rsize=99", 16_384),
            (Kind::Virtual, "", 1024),
        ] {
            assert_eq!(kind.ring_size(4096, args), size, "{kind:?} {args}");
        }
    }

    #[test]
    fn a_larger_ring_is_one_that_can_be_had() {
        let larger = |kind: Kind, most| kind.larger_ring(14_881, most);
        let told = |text: &str, frames| Some((text.to_owned(), frames));
        assert_eq!(larger(Kind::Nic, 4096), told("rx_descriptors = 4096", 4096));
        assert_eq!(
            larger(Kind::Nic, u16::MAX),
            told("rx_descriptors = 16384", 16_384)
        );
        assert_eq!(larger(Kind::Nic, 0), told("rx_descriptors = 16384", 16_384));
        assert_eq!(
            Kind::Nic.larger_ring(300_000, 0),
            told("rx_descriptors = 32768", 32_768)
        );
        assert_eq!(larger(Kind::Memif, 0), told("rsize=14 at both ends", 16_384));
        assert_eq!(larger(Kind::Virtual, 0), None);
    }

    #[test]
    fn interrupts_are_used_as_the_driver_needs() {
        for (driver, kind) in [
            ("net_ixgbe", Interrupts::Masked),
            ("mlx5_pci", Interrupts::Masked),
            ("net_virtio_user", Interrupts::Masked),
            ("net_i40e", Interrupts::Unmasked),
            ("net_iavf", Interrupts::Unmasked),
            ("net_vhost", Interrupts::Guest),
            ("net_tap", Interrupts::Readable),
            ("net_af_xdp", Interrupts::None),
            ("net_memif", Interrupts::None),
        ] {
            assert_eq!(Interrupts::of(driver), kind, "{driver}");
        }
    }

    #[test]
    fn an_af_xdp_buffer_is_a_page() {
        let lengths = Lengths {
            max_mtu: 3542,
            max_rx_pktlen: 3560,
            min_rx_bufsize: 0,
        };
        let frames = |mtu| Kind::AfXdp.frames(mtu, &lengths, "");
        assert_eq!(frames(9000).unwrap_err().largest, 3498);
        assert!(frames(3499).is_err());
        for mtu in [68, 1500, 3498] {
            let room = frames(mtu).unwrap().room;
            assert!(usize::from(room) >= usize::from(mtu) + FRAME_OVERHEAD + XDP_HEADROOM);
        }
    }
}
