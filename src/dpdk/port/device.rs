//! How the configuration names a device.

use std::str::FromStr;

use super::super::error::{Error, Result};

/// A device as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// A PCI address, with its domain: `0000:3b:00.0`.
    Pci(String),
    /// A virtual device, `net_af_xdp0,iface=veth0`: driver name with a number, arguments.
    Vdev {
        /// `net_af_xdp0`
        name: String,
        /// `iface=veth0`
        args: String,
    },
}

impl Device {
    /// The PCI address, if it is a PCI device.
    #[must_use]
    pub fn pci(&self) -> Option<&str> {
        match self {
            Self::Pci(address) => Some(address),
            Self::Vdev { .. } => None,
        }
    }

    /// DPDK's name of the device: what two ports cannot share.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Pci(address) => address,
            Self::Vdev { name, .. } => name,
        }
    }

    /// The kernel interface that a virtual device stands on, from its arguments (`iface=`).
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        match self {
            Self::Vdev { name, args } if super::driver::Kind::of(name).takes_interface() => {
                argument(args, "iface")
            }
            _ => None,
        }
    }
}

/// The value of an argument in `a=1,b=2`.
pub(super) fn argument<'a>(args: &'a str, key: &str) -> Option<&'a str> {
    args.split(',').find_map(|arg| {
        arg.split_once('=')
            .filter(|(k, _)| k.trim() == key)
            .map(|(_, v)| v.trim())
    })
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pci(address) => f.write_str(address),
            Self::Vdev { name, args } if args.is_empty() => write!(f, "vdev:{name}"),
            Self::Vdev { name, args } => write!(f, "vdev:{name},{args}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// Reads `0000:3b:00.0`, `3b:00.0` or `vdev:NAME[,ARGS]`.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::BadDevice(format!(
                "device {text:?}: {why}; write a PCI address (\"0000:3b:00.0\", `lspci -D` lists them) or \
                 \"vdev:NAME,ARGUMENTS\" (\"vdev:net_af_xdp0,iface=eth1\")"
            ))
        };
        let Some(vdev) = text.strip_prefix("vdev:") else {
            return pci_address(text).map(Self::Pci).ok_or_else(|| {
                if text.starts_with("net_") {
                    bad("the prefix \"vdev:\" is missing")
                } else {
                    bad("not a PCI address")
                }
            });
        };
        let (name, args) = vdev.split_once(',').unwrap_or((vdev, ""));
        // RTE_DEV_NAME_MAX_LEN is 64, with the NUL.
        if name.is_empty() || name.len() > 63 {
            return Err(bad("a virtual device's name has 1 to 63 characters"));
        }
        if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        {
            return Err(bad(
                "a virtual device's name is made of letters, digits, '_', '-' and '.'",
            ));
        }
        // EAL_DEV_MP_DEV_ARGS_MAX_LEN is 4096.
        if args.len() > 2048 || args.bytes().any(|b| b.is_ascii_control() || b == b' ') {
            return Err(bad(
                "a virtual device's arguments are up to 2048 characters without blanks",
            ));
        }
        if args
            .split(',')
            .any(|a| !args.is_empty() && a.split_once('=').is_none_or(|(k, _)| k.is_empty()))
        {
            return Err(bad(
                "a virtual device's arguments are KEY=VALUE, with commas between",
            ));
        }
        Ok(Self::Vdev {
            name: name.into(),
            args: args.into(),
        })
    }
}

/// `[DOMAIN:]BUS:DEVICE.FUNCTION` in hexadecimal, completed and in lower case.
fn pci_address(text: &str) -> Option<String> {
    let hex = |part: &str, digits: usize| {
        (part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u32::from_str_radix(part, 16).ok())
            .flatten()
    };
    let mut parts: Vec<&str> = text.split(':').collect();
    if parts.len() == 2 {
        parts.insert(0, "0000");
    }
    let [domain, bus, rest] = parts[..] else {
        return None;
    };
    let (device, function) = rest.split_once('.')?;
    let (domain, bus) = (hex(domain, 4)?, hex(bus, 2)?);
    let (device, function) = (
        hex(device, 2).filter(|d| *d < 32)?,
        hex(function, 1).filter(|f| *f < 8)?,
    );
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_written() {
        let pci = |a: &str| Device::Pci(a.into());
        let vdev = |n: &str, a: &str| Device::Vdev {
            name: n.into(),
            args: a.into(),
        };
        for (text, device, shown) in [
            ("0000:3b:00.0", pci("0000:3b:00.0"), "0000:3b:00.0"),
            ("3B:1f.7", pci("0000:3b:1f.7"), "0000:3b:1f.7"),
            ("vdev:net_null0", vdev("net_null0", ""), "vdev:net_null0"),
            (
                "vdev:net_af_xdp0,iface=veth0,busy_budget=0",
                vdev("net_af_xdp0", "iface=veth0,busy_budget=0"),
                "vdev:net_af_xdp0,iface=veth0,busy_budget=0",
            ),
        ] {
            let read: Device = text.parse().unwrap();
            assert_eq!(read, device);
            assert_eq!(read.to_string(), shown);
        }
        assert_eq!(
            vdev("net_af_xdp0", "iface=veth0,busy_budget=0").interface(),
            Some("veth0")
        );
        assert_eq!(vdev("net_null0", "iface=veth0").interface(), None);
    }

    #[test]
    fn what_is_no_device_is_refused_with_the_form() {
        for text in [
            "",
            "eth0",
            "net_null0",
            "3b:00",
            "0000:3b:20.0",
            "0000:3b:00.8",
            "00000:3b:00.0",
            "0000:3g:00.0",
            "vdev:",
            "vdev:,iface=x",
            "vdev:net null",
            "vdev:net_af_xdp0,iface",
            "vdev:net_af_xdp0,iface=a,",
            "vdev:net_af_xdp0,iface=a b",
            "vdev:net_af_xdp0,=x",
            "1:2:3:4.5",
        ] {
            let Err(Error::BadDevice(why)) = text.parse::<Device>() else {
                panic!("{text:?} was taken")
            };
            assert!(why.contains("vdev:NAME") && why.lines().count() == 1, "{why}");
        }
        assert!(
            "net_null0"
                .parse::<Device>()
                .unwrap_err()
                .to_string()
                .contains("prefix")
        );
    }
}
