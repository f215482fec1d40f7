//! Values as one key of fixed size, so that the buckets have a bound whatever the values are: FNV-1a over 128 bits.
//!
//! Two of a billion keys are equal by chance with a probability of 10⁻²¹; they would share a bucket.

/// A key.
pub(crate) type Key = [u8; 16];

const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// The key of these values in this order; a header that is absent is a value of its own.
pub(crate) fn of<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> Key {
    // No text has the bytes 254 and 255: they keep `a`, `bc` apart from `ab`, `c`, and an empty value from none.
    let bytes = values.into_iter().flat_map(|value| {
        let end = if value.is_some() { 255 } else { 254 };
        value.unwrap_or_default().bytes().chain([end])
    });
    let hash = bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    });
    hash.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn values_and_their_borders_make_the_key() {
        let key = of([Some("a"), Some("bc")]);
        assert_eq!(key, of([Some("a"), Some("bc")]));
        for other in [
            &[Some("ab"), Some("c")][..],
            &[Some("abc")],
            &[Some("bc"), Some("a")],
            &[Some("a"), Some("bc"), None],
        ] {
            assert_ne!(key, of(other.iter().copied()), "{other:?}");
        }
        assert_ne!(of([Some("")]), of([None]));
    }
}
