//! The hash that decides: FNV-1a, mixed so that each bit counts. It is part of what users rely on and must not change: a sample
//! taken today and one taken next year hold the same calls.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash of these values in this order.
pub(crate) fn of<'a>(values: impl IntoIterator<Item = &'a str>) -> u64 {
    // No text has the byte 255: it keeps `a`, `bc` apart from `ab`, `c`.
    let bytes = values
        .into_iter()
        .flat_map(|value| value.bytes().chain([255]));
    let hash = bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    mixed(hash)
}

/// The last step of MurmurHash3. Without it the high bits say little of the last characters.
fn mixed(mut hash: u64) -> u64 {
    for multiplier in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(multiplier);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn the_hash_never_changes() {
        let values = ["6fedf11d-0a31-422f-9395-44217280da00"];
        assert_eq!(of(values), 0x83fa_1839_9a3e_9c51);
    }

    #[test]
    fn consecutive_values_are_spread_evenly() {
        let mut tenths = [0_u32; 10];
        for number in 0..100_000 {
            let hash = of([number.to_string().as_str()]);
            let tenth = usize::try_from((u128::from(hash) * 10) >> 64).unwrap();
            tenths[tenth] += 1;
        }
        let even = tenths.iter().all(|count| (9_500..10_500).contains(count));
        assert!(even, "each tenth of the range gets a tenth: {tenths:?}");
    }
}
