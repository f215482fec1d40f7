//! Where in an event's JSON text a string ends or is interrupted: its quotes, backslashes and control characters, in order.
//!
//! All of it in one pass of 64 bytes a step, none of which waits for the one before: an event is some hundred short strings, and a
//! search that begins anew for each of them is bound by its own latency. When it came, indexing an event of 4 KB and 106 headers went
//! from 51,100 instructions to 31,500 (callgrind). Pure.

use wide::u8x16;

/// Bytes that are looked at together.
const BLOCK: usize = 64;
/// Places that are kept; what a few more blocks have may follow as long as a whole block fits.
const KEPT: usize = 4 * BLOCK;
/// As many are written at once, whether there are so many or not: most blocks have fewer.
const AT_ONCE: usize = 8;

/// The places in `bytes`, found as they are asked for.
pub(super) struct Specials<'a> {
    bytes: &'a [u8],
    /// Where the next block begins.
    next: usize,
    found: [u32; KEPT],
    /// Those in `found` that were not passed yet.
    from: usize,
    to: usize,
}

impl<'a> Specials<'a> {
    /// Of an event below 4 GiB.
    pub(super) fn new(bytes: &'a [u8]) -> Specials<'a> {
        Specials {
            bytes,
            next: 0,
            found: [0; KEPT],
            from: 0,
            to: 0,
        }
    }

    /// The next four, if there are so many.
    #[inline]
    pub(super) fn four(&mut self) -> Option<[u32; 4]> {
        if self.to - self.from < 4 {
            self.find();
            if self.to - self.from < 4 {
                return None;
            }
        }
        self.found.get(self.from..)?.first_chunk().copied()
    }

    /// Those four are done with.
    #[inline]
    pub(super) fn pass_four(&mut self) {
        self.from += 4;
    }

    /// What stands before `at` is done with.
    pub(super) fn pass(&mut self, at: usize) {
        loop {
            match self.found.get(self.from..self.to) {
                Some([first, ..]) if (*first as usize) < at => self.from += 1,
                Some([]) if self.next < self.bytes.len() => self.find(),
                _ => return,
            }
        }
    }

    /// Goes on until no further block would fit.
    #[inline(never)]
    fn find(&mut self) {
        self.found.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        while let Some(room) = self
            .found
            .get_mut(self.to..)
            .and_then(<[u32]>::first_chunk_mut)
        {
            let rest = self.bytes.get(self.next..).unwrap_or_default();
            let hits = match rest.first_chunk() {
                Some(block) => hits(block),
                None if rest.is_empty() => return,
                None => {
                    let mut block = [b' '; BLOCK];
                    block
                        .iter_mut()
                        .zip(rest)
                        .for_each(|(to, from)| *to = *from);
                    hits(&block)
                }
            };
            self.to += place(hits, self.next, room);
            self.next += BLOCK;
        }
    }
}

/// Writes the place of each bit; how many there are.
fn place(hits: u64, start: usize, room: &mut [u32; BLOCK]) -> usize {
    let start = u32::try_from(start).unwrap_or(u32::MAX);
    let mut left = hits;
    for some in room.as_chunks_mut::<AT_ONCE>().0 {
        for one in some {
            *one = start.wrapping_add(left.trailing_zeros());
            left &= left.wrapping_sub(1);
        }
        if left == 0 {
            break;
        }
    }
    hits.count_ones() as usize
}

/// One bit a byte: whether it is a quote, a backslash or a control character.
#[inline]
fn hits(block: &[u8; BLOCK]) -> u64 {
    let sixteens = block.as_chunks().0.iter().rev();
    sixteens.fold(0, |hits, sixteen| {
        let bytes = u8x16::new(*sixteen);
        // What was no control character is none after this, either; only a quote becomes as low as a space.
        let moved = bytes ^ u8x16::splat(b'"' ^ b' ');
        let is_low = moved.min(u8x16::splat(b' ')).simd_eq(moved);
        let special = is_low | bytes.simd_eq(u8x16::splat(b'\\'));
        hits << 16 | u64::from(special.to_bitmask())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, prop_oneof, proptest};

    use super::{Specials, hits};

    fn expected(bytes: &[u8]) -> Vec<u32> {
        let numbered = (0..).zip(bytes);
        let special = numbered.filter(|(_, byte)| matches!(byte, b'"' | b'\\' | 0..0x20));
        special.map(|(at, _)| at).collect()
    }

    #[test]
    fn every_byte_is_judged_at_every_place() {
        for byte in 0..=u8::MAX {
            for at in 0..64 {
                let mut block = [0x7f; 64];
                block[at] = byte;
                let special = matches!(byte, b'"' | b'\\' | 0..0x20);
                assert_eq!(hits(&block), u64::from(special) << at, "{byte} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn all_places_are_found_in_order(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x18_u8..0x28, 0x58_u8..0x60], 0..1_500),
            skips in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let all = expected(&bytes);
            let mut specials = Specials::new(&bytes);
            for (four, _) in all.as_chunks::<4>().0.iter().zip(0..20) {
                prop_assert_eq!(specials.four(), Some(*four));
                specials.pass_four();
            }
            let mut skips: Vec<usize> = skips.iter().map(|skip| skip.index(bytes.len() + 1)).collect();
            skips.sort_unstable();
            for at in skips {
                let mut specials = Specials::new(&bytes);
                specials.four();
                specials.pass(at);
                let left: Vec<u32> = all.iter().copied().filter(|one| *one as usize >= at).collect();
                prop_assert_eq!(specials.four(), left.first_chunk().copied());
            }
        }
    }
}
