//! Where a command's answer goes: standard output, which may be closed at any time, or a file.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Failure;

/// Few calls for many short lines.
const BUFFER: usize = 1 << 16;

/// Buffered; what matters is written with [`Output::finish`].
pub(in crate::cli) struct Output {
    writer: BufWriter<Box<dyn Write>>,
    name: String,
}

impl Output {
    pub(in crate::cli) fn stdout() -> Output {
        Output::new(Box::new(io::stdout()), "standard output".to_owned())
    }

    /// A file in place of whatever was there, for its owner alone: events carry numbers and digits.
    pub(in crate::cli) fn file(path: &Path) -> Result<Output, Failure> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let name = path.display().to_string();
        match options.open(path) {
            Ok(file) => Ok(Output::new(Box::new(file), name)),
            Err(source) => Err(Failure::Output { to: name, source }),
        }
    }

    fn new(writer: Box<dyn Write>, name: String) -> Output {
        Output {
            writer: BufWriter::with_capacity(BUFFER, writer),
            name,
        }
    }

    pub(in crate::cli) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.writer.write_all(bytes);
        written.map_err(|source| self.failed(source))
    }

    /// One line of whatever can be shown.
    pub(in crate::cli) fn line(&mut self, line: impl std::fmt::Display) -> Result<(), Failure> {
        let written = writeln!(self.writer, "{line}");
        written.map_err(|source| self.failed(source))
    }

    /// So that whoever reads it sees it now.
    pub(in crate::cli) fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.writer.flush();
        flushed.map_err(|source| self.failed(source))
    }

    pub(in crate::cli) fn finish(mut self) -> Result<(), Failure> {
        self.flush()
    }

    fn failed(&self, source: io::Error) -> Failure {
        match source.kind() {
            ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Output {
                to: self.name.clone(),
                source,
            },
        }
    }
}
