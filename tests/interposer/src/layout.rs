//! What tests and library have agreed on: the words of the control file, the places where a rule can strike, the entries of the log
//! for power cuts. Both sides compile this file.

/// Rules of one process.
pub(crate) const RULES: u64 = 8;
/// Words of the control file, 64 bits each, little-endian: eight of its own, then eight a rule.
pub(crate) const WORDS: u64 = 8 + 8 * RULES;
/// The word that moves the wall clock, in microseconds.
pub(crate) const CLOCK_OFFSET_US: u64 = 0;
/// The word with the port that connections to Redis go to.
pub(crate) const REDIS_PORT: u64 = 1;

/// The words of a rule.
pub(crate) const POINT: u64 = 0;
pub(crate) const SKIP: u64 = 1;
pub(crate) const TIMES: u64 = 2;
pub(crate) const ACTION: u64 = 3;
pub(crate) const ARGUMENT: u64 = 4;
pub(crate) const HITS: u64 = 5;

/// What a rule does: the argument is an error number, milliseconds, or thousandths of what is written.
pub(crate) const FAIL: u64 = 1;
pub(crate) const HANG: u64 = 2;
pub(crate) const KILL_BEFORE: u64 = 3;
pub(crate) const KILL_AFTER: u64 = 4;
pub(crate) const KILL_WITHIN: u64 = 5;
pub(crate) const FILL_WITHIN: u64 = 6;

/// A place in the program where a rule can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Point {
    /// A segment of the journal is made.
    SegmentCreate = 1,
    SegmentWrite = 2,
    SegmentSync = 3,
    SegmentRead = 4,
    SegmentRemove = 5,
    SegmentTruncate = 6,
    /// A folder's new and removed names are forced to the disk.
    FolderSync = 7,
    /// The filters' saved state.
    StateWrite = 8,
    StateRename = 9,
    /// A transaction goes to Redis: something that moves the cursor, with `EXEC` in it.
    BatchSend = 10,
    /// Its reply has come, and nobody has looked at it.
    BatchReply = 11,
}

/// What the log for power cuts tells. Each entry is four words (what, the segment's number, where, how many bytes follow) and these
/// bytes.
pub(crate) const CREATED: u64 = 1;
/// With what stood there before; fewer bytes than were written where the file was shorter.
pub(crate) const WRITTEN: u64 = 2;
/// A force of the file begins; where: its name.
pub(crate) const SYNC_BEGAN: u64 = 3;
/// The force of this name has succeeded.
pub(crate) const SYNCED: u64 = 4;
pub(crate) const REMOVED: u64 = 5;
/// To the length where; with what was cut off.
pub(crate) const TRUNCATED: u64 = 6;
pub(crate) const FOLDER_SYNC_BEGAN: u64 = 7;
pub(crate) const FOLDER_SYNCED: u64 = 8;
