//! `jackfield compile-filter`: what the host runs itself as, to compile a filter apart. No command for people.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::FAILED;
use crate::filter::compile_confined;

/// How the host wants it compiled.
#[derive(Debug, Args)]
pub(super) struct CompileFilter {
    /// Take only time of the processors that nothing else wants.
    #[arg(long)]
    idle: bool,
}

impl CompileFilter {
    /// Reads a filter from standard input and writes machine code to standard output; what is wrong goes to standard error.
    pub(super) fn main(&self) -> ExitCode {
        let compiled = compile_confined(std::io::stdin().lock(), self.idle);
        let written = compiled.and_then(|code| {
            let mut out = std::io::stdout().lock();
            out.write_all(&code)
                .and_then(|()| out.flush())
                .map_err(|error| format!("the machine code cannot be written: {error}"))
        });
        match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{why}");
                ExitCode::from(FAILED)
            }
        }
    }
}
