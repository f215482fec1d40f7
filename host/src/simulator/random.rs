//! A small seeded generator (splitmix64), so that the same seed makes the same calls on every machine.
//!
//! It is good enough to choose calls and to make UUIDs that do not collide; it is no source of secrets.

/// The generator's whole state.
#[derive(Debug, Clone)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 when there is nothing to choose from.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    /// An index into something of `len` elements.
    pub(super) fn index(&mut self, len: usize) -> usize {
        let limit = u64::try_from(len).unwrap_or(u64::MAX);
        usize::try_from(self.below(limit)).unwrap_or(0)
    }

    /// A version 4 UUID in lower case, as FreeSWITCH writes them.
    pub(super) fn uuid(&mut self) -> Uuid {
        const HEX: [u8; 16] = *b"0123456789abcdef";
        let (mut high, mut low) = (self.next(), self.next());
        high = (high & !0xF000) | 0x4000;
        low = (low & !(0b11 << 62)) | (0b10 << 62);
        let mut digits = (u128::from(high) << 64) | u128::from(low);
        let mut uuid = [b'-'; 36];
        for (place, byte) in uuid.iter_mut().enumerate().rev() {
            if matches!(place, 8 | 13 | 18 | 23) {
                continue;
            }
            let digit = usize::try_from(digits & 0xF).unwrap_or(0);
            *byte = HEX.get(digit).copied().unwrap_or(b'0');
            digits >>= 4;
        }
        uuid
    }
}

/// The text of a UUID.
pub(super) type Uuid = [u8; 36];

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_same_seed_makes_the_same_uuids() {
        let uuid = Random::new(7).uuid();
        assert_eq!(uuid, Random::new(7).uuid(), "seeded");
        assert_ne!(uuid, Random::new(8).uuid(), "another seed, another UUID");
        let text = String::from_utf8(uuid.to_vec()).unwrap();
        assert_eq!(
            text.split('-').map(str::len).collect::<Vec<_>>(),
            [8, 4, 4, 4, 12]
        );
        assert_eq!(text.as_bytes()[14], b'4', "version 4: {text}");
        assert!(b"89ab".contains(&text.as_bytes()[19]), "variant: {text}");
    }
}
