//! HMAC-SHA256, cut to 128 bits. A plain hash of a phone number is no secret: all numbers can be hashed in minutes.

use sha2::{Digest, Sha256};

const BLOCK: usize = 64;
/// Two different numbers out of billions then practically never meet.
const SHOWN_BYTES: usize = 16;

/// A key, with its two blocks already hashed: that halves the work for a short value.
pub(crate) struct KeyedHash {
    inner: Sha256,
    outer: Sha256,
}

impl KeyedHash {
    pub(crate) fn new(key: &[u8]) -> Self {
        let hashed = Sha256::digest(key);
        let key = if key.len() > BLOCK {
            hashed.as_slice()
        } else {
            key
        };
        let padded = |with: u8| {
            let mut block = [with; BLOCK];
            for (byte, key) in block.iter_mut().zip(key) {
                *byte ^= key;
            }
            Sha256::new_with_prefix(block)
        };
        Self {
            inner: padded(0x36),
            outer: padded(0x5c),
        }
    }

    /// 32 lower-case hex digits.
    pub(crate) fn hex(&self, value: &str) -> String {
        let inner = self.inner.clone().chain_update(value).finalize();
        let outer = self.outer.clone().chain_update(inner).finalize();
        let digits = outer
            .iter()
            .take(SHOWN_BYTES)
            .flat_map(|byte| [byte >> 4, byte & 15]);
        let mut hex = String::with_capacity(2 * SHOWN_BYTES);
        hex.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
        hex
    }
}

#[cfg(test)]
mod tests {
    use super::KeyedHash;

    #[test]
    fn equals_the_vectors_of_rfc_4231() {
        let hex = |key: &[u8], value| KeyedHash::new(key).hex(value);
        assert_eq!(
            hex(&[0x0b; 20], "Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b"
        );
        assert_eq!(
            hex(b"Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c7"
        );
        let long = "Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(hex(&[0xaa; 131], long), "60e431591ee0b67f0d8a26aacbf5b77f");
    }
}
