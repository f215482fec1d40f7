//! The allocator of a component: small pieces come from a list of free ones of their size and go back to it, in a few instructions.
//!
//! A call allocates and frees some twenty short strings: what the host hands in, and what the filter answers. What is larger, or
//! wants a stricter alignment, is the C library's.
#![expect(
    unsafe_code,
    reason = "an allocator is unsafe by contract; a component is a memory of its own, so nothing but the filter itself depends on it"
)]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;
use std::alloc::System;

/// Sizes are rounded up to multiples of this, which is also the alignment of what is given out.
const STEP: usize = 16;
/// The largest size that is kept in lists.
const LARGEST: usize = 512;
/// Small pieces are cut from pieces of this size.
const BLOCK: usize = 8 << 10;

#[global_allocator]
static ALLOCATOR: Lists = Lists(UnsafeCell::new(State {
    free: [ptr::null_mut(); LARGEST / STEP],
    block: ptr::null_mut(),
    left: 0,
}));

struct Lists(UnsafeCell<State>);

struct State {
    /// The first free piece of each size; it holds the address of the next one.
    free: [*mut u8; LARGEST / STEP],
    /// What is not given out yet of the newest block.
    block: *mut u8,
    left: usize,
}

// SAFETY: a component has one thread.
unsafe impl Sync for Lists {}

/// The list for a size; none for one that is the C library's. A size of zero never comes.
const fn list(layout: Layout) -> Option<usize> {
    let is_small = layout.size() <= LARGEST && layout.align() <= STEP;
    if is_small {
        Some((layout.size() - 1) / STEP)
    } else {
        None
    }
}

// SAFETY: a piece is in a list or given out, never both; a list's pieces are as large as its greatest size and aligned to STEP. The
// state is used by one call at a time: there is one thread, and nothing in here allocates through this allocator.
unsafe impl GlobalAlloc for Lists {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(list) = list(layout) else {
            return unsafe { System.alloc(layout) };
        };
        let state = unsafe { &mut *self.0.get() };
        let first = state.free[list];
        if !first.is_null() {
            state.free[list] = unsafe { first.cast::<*mut u8>().read() };
            return first;
        }
        state.cut((list + 1) * STEP)
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let Some(list) = list(layout) else {
            return unsafe { System.dealloc(piece, layout) };
        };
        let state = unsafe { &mut *self.0.get() };
        unsafe { piece.cast::<*mut u8>().write(state.free[list]) };
        state.free[list] = piece;
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller has seen to it that the size is none that overflows.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (list(layout), list(new)) {
            (None, None) => unsafe { System.realloc(piece, layout, size) },
            (before, after) if before == after => piece,
            _ => {
                let to = unsafe { self.alloc(new) };
                if !to.is_null() {
                    unsafe { ptr::copy_nonoverlapping(piece, to, layout.size().min(size)) };
                    unsafe { self.dealloc(piece, layout) };
                }
                to
            }
        }
    }
}

impl State {
    /// A piece that was never given out. What is left of a block that is too small for it is not used any more.
    fn cut(&mut self, size: usize) -> *mut u8 {
        if self.left < size {
            // SAFETY: neither is zero, and the alignment is a power of two.
            let block = unsafe { System.alloc(Layout::from_size_align_unchecked(BLOCK, STEP)) };
            if block.is_null() {
                return block;
            }
            (self.block, self.left) = (block, BLOCK);
        }
        let piece = self.block;
        // SAFETY: the piece ends within the block.
        self.block = unsafe { piece.add(size) };
        self.left -= size;
        piece
    }
}
