//! What a filter keeps over a restart.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::journal::Lsn;

/// The state of one filter, and how much of the past is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The filter's file.
    pub file: Arc<str>,
    /// Of every input up to here that came to the filter it knows, and of none after it.
    pub lsn: Lsn,
    /// What `save` returned, if that was anything. Not copied: it may be large, and several hold it.
    pub state: Option<Bytes>,
}
