//! Why a file is no filter that can run. Each reads as the rest of a sentence that starts with the file's name, and says
//! what its author can do.

use std::time::Duration;

use thiserror::Error;

use super::compiler;
use super::contract::{CONTRACT, HANDLER, VERSION};

/// Bytes of what is said of a file or of a failed call: it is in the log, in `/status`, and with each event that it concerns.
const TEXT: usize = 512;

/// Why a file is no filter that can run.
#[derive(Debug, Error)]
pub enum Refusal {
    /// Nothing in it.
    #[error("is empty; a filter is a WebAssembly component")]
    Empty,
    /// No WebAssembly at all.
    #[error("is not WebAssembly: it starts with \"{}\", not with \"\\x00asm\"", start.escape_ascii())]
    NotWasm {
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// A core module without a description of the component that it is to be.
    #[error("is a core module that does not say which component it is; build it for wasm32-wasip2")]
    CoreModule,
    /// The compiler does not understand it.
    #[error("is damaged or no valid component: {0}")]
    Invalid(String),
    /// No compiler came to work on it; a matter of this machine, not of the file.
    #[error("cannot be compiled: {0}")]
    NoCompiler(String),
    /// A bomb, or far too large.
    #[error("took longer to compile than {} s", limit.as_secs())]
    CompileTime {
        /// Of processor time or wall time.
        limit: Duration,
    },
    /// A bomb, or far too large.
    #[error("needed more memory to compile than {} bytes", compiler::MEMORY)]
    CompileMemory,
    /// A bomb, or far too large.
    #[error("compiles to more than {} bytes of machine code", compiler::CODE)]
    CompiledSize,
    /// It found a fault in the compiler.
    #[error("crashed the compiler: {0}")]
    CompilerCrash(String),
    /// Of this contract, but another number.
    #[error(
        "is built for contract jackfield:filter@{version}; this host speaks {VERSION}: rebuild it with the jackfield-sdk and \
        wit/ of this host, or run a host that speaks {version}"
    )]
    OtherVersion {
        /// The number that it wants.
        version: String,
    },
    /// A component that is no filter.
    #[error(
        "is no filter: it exports {}, not {HANDLER}; is `jackfield_sdk::export!` missing, or is it a program?",
        if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") }
    )]
    OtherWorld {
        /// What it exports.
        exports: Vec<String>,
    },
    /// It needs what nobody gives it.
    #[error(
        "imports {0}, which this host does not offer; it offers {CONTRACT} and WASI 0.2's cli, clocks, filesystem, io, \
        random, sockets"
    )]
    Import(String),
    /// The names are those of the contract, the types behind them are not.
    #[error("does not fit contract {CONTRACT}: {0}")]
    Mismatch(String),
    /// `wasi = "deny"`, and it imports WASI.
    #[error("imports {0}, and wasi = \"deny\" forbids WASI")]
    Wasi(String),
    /// Its settings file is wrong.
    #[error("{0}")]
    Settings(String),
    /// `configure` said no, or failed.
    #[error("{0}")]
    Configure(String),
    /// A golden case fails.
    #[error("{0}")]
    Golden(String),
    /// It does badly on past traffic.
    #[error("{0}")]
    Rehearsal(String),
    /// A deadline was missed: it may have been this machine.
    #[error("{0}")]
    Late(String),
    /// The host starts, and waited long enough.
    #[error("is still to be compiled: it goes live when it is")]
    NotYet,
    /// This very version was refused or taken back.
    #[error("not tried again: {0} (a change of the file or of its settings is another version)")]
    Before(String),
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

/// When a version that was refused is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// By itself, as soon as there is time.
    Soon,
    /// When somebody copies the file once more: it was this machine, or this moment.
    WhenCopied,
    /// When it or its settings are others.
    WhenChanged,
    /// Finding out cost so much that it is not done again at the next start either.
    Never,
    /// That is known from before.
    AsBefore,
}

impl Refusal {
    pub(super) fn tried_again(&self) -> Again {
        match self {
            Refusal::NotYet => Again::Soon,
            Refusal::Unreadable(_) | Refusal::NoCompiler(_) | Refusal::Late(_) => Again::WhenCopied,
            Refusal::CompileTime { .. }
            | Refusal::CompileMemory
            | Refusal::CompiledSize
            | Refusal::CompilerCrash(_) => Again::Never,
            Refusal::Before(_) => Again::AsBefore,
            _ => Again::WhenChanged,
        }
    }
}

/// A text of which a guest or a file may have made as much as it likes, cut to what people read.
pub(super) fn short(mut text: String) -> String {
    if text.len() > TEXT {
        text.truncate(text.floor_char_boundary(TEXT));
        text.push('…');
    }
    text
}
