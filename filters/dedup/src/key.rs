//! Values as one key of fixed size, so that the memory has a bound whatever the values are: FNV-1a over 128 bits.
//!
//! Two of a billion keys are equal by chance with a probability of 10⁻²¹. Who makes equal ones on purpose gains nothing: the same
//! values would do.

/// A key.
pub(crate) type Key = [u8; 16];

/// The low half and the high half.
type Hash = [u64; 2];

const OFFSET: Hash = [0x62b8_2175_6295_c58d, 0x6c62_272e_07bb_0142];
/// FNV's prime for 128 bits is 2⁸⁸ and this.
const PRIME_LOW: u64 = 0x13b;

/// The key of these values in this order.
pub(crate) fn of<'a>(values: impl IntoIterator<Item = &'a str>) -> Key {
    // No text has the byte 255: it keeps `a`, `bc` apart from `ab`, `c`.
    let bytes = values
        .into_iter()
        .flat_map(|value| value.bytes().chain([255]));
    let hash = bytes.fold(OFFSET, |[low, high], byte| {
        times_prime([low ^ u64::from(byte), high])
    });
    whole(hash).to_le_bytes()
}

/// WebAssembly multiplies 64 bits at most: a product of 128 would be a call for every byte, and several times as long.
fn times_prime([low, high]: Hash) -> Hash {
    let first = (low & 0xffff_ffff) * PRIME_LOW;
    let second = (low >> 32) * PRIME_LOW + (first >> 32);
    let high = high.wrapping_mul(PRIME_LOW);
    let carried = (second >> 32).wrapping_add(low << 24);
    [
        second << 32 | first & 0xffff_ffff,
        high.wrapping_add(carried),
    ]
}

fn whole([low, high]: Hash) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

#[cfg(test)]
mod tests {
    use super::{OFFSET, PRIME_LOW, of, times_prime, whole};

    #[test]
    fn the_product_is_that_of_the_whole_prime() {
        let prime = 1 << 88 | u128::from(PRIME_LOW);
        let mut hash = OFFSET;
        for _ in 0..1_000 {
            let product = times_prime(hash);
            assert_eq!(whole(product), whole(hash).wrapping_mul(prime));
            hash = [product[0] ^ 0x5a, product[1]];
        }
        for hash in [[0, 0], [1, 0], [u64::MAX, 0], [u64::MAX, u64::MAX]] {
            assert_eq!(whole(times_prime(hash)), whole(hash).wrapping_mul(prime));
        }
    }

    #[test]
    fn values_and_their_borders_make_the_key() {
        assert_eq!(of(["a", "bc"]), of(["a", "bc"]));
        for other in [&["ab", "c"][..], &["abc"], &["bc", "a"], &["a", "bc", ""]] {
            assert_ne!(of(["a", "bc"]), of(other.iter().copied()), "{other:?}");
        }
    }
}
