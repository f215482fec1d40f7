//! Compiles filter files in a process apart: the host runs itself as `jackfield compile-filter`, with the file on standard
//! input and machine code on standard output.
//!
//! A compiler cannot be interrupted, so what a hostile file may take is bounded from outside: processor time, memory and the
//! size of the result by the kernel, wall time by the host, which kills it. It has no environment, so no secrets. The child
//! sets its own limits before it reads: doing so between fork and exec would be unsafe code. What was compiled is cached.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::process::{Resource, Rlimit, Signal};

use super::cache::Cache;
use super::engine::{self, Component, Engine};
use super::refusal::Refusal;
use super::{contract, folder};

/// Processor time to compile one file: 15 MB of plain functions took 12 s on the slow core that this was measured on.
pub(super) const CPU: Duration = Duration::from_secs(60);
/// Wall time: twice that, for a machine with other things to do.
pub(super) const WALL: Duration = Duration::from_secs(120);
/// Address space of the compiler: four times what those 15 MB took.
pub(super) const MEMORY: u64 = 1 << 30;
/// Bytes of machine code: twice the largest file.
pub(super) const CODE: u64 = 2 * folder::MAX_COMPONENT;
/// How long a compiler that yields gets only what nothing else wants of the processors. Nobody without privileges leaves that class
/// again, and a machine that has nothing to spare must not keep a filter from going live: then another one begins anew.
const IDLE: Duration = Duration::from_millis(1_500);
/// The other one yields as well, but not so far: it has half the weight of a thread that moves events.
const NICE: i32 = 3;
/// How long a child that was killed is waited for. It dies by itself, for which it needs the processor once more.
const DEATH: Duration = Duration::from_secs(1);
/// How often the host looks whether the child has ended.
const LOOK: Duration = Duration::from_millis(5);
/// This binary, also after an upgrade has replaced its file.
const SELF: &str = "/proc/self/exe";
/// Bytes that are read of what the child says of an error.
const SAID: u64 = 1 << 10;

/// How the loader comes by components.
pub(super) struct Compiler {
    how: How,
    cache: Option<Cache>,
}

enum How {
    /// In this process, unbounded.
    Here,
    /// In a child, which is killed when this is set.
    Apart(Arc<AtomicBool>),
}

impl Compiler {
    /// In this process, for tests and benchmarks: their binaries have no `compile-filter`.
    pub(super) fn here() -> Compiler {
        Compiler {
            how: How::Here,
            cache: None,
        }
    }

    /// From now on in a child of its own, which `stop` ends.
    pub(super) fn go_apart(&mut self, stop: Arc<AtomicBool>) {
        self.how = How::Apart(stop);
    }

    /// From now on what was compiled is kept.
    pub(super) fn keep_in(&mut self, cache: Cache) {
        self.cache = Some(cache);
    }

    /// The component of a file with this digest, compiled unless it is known, and whether it was. A child is not waited for beyond
    /// `until`; one that `yields` keeps no event waiting for a processor.
    pub(super) fn component(
        &self,
        engine: &Engine,
        digest: &Arc<str>,
        wasm: &[u8],
        until: Option<Instant>,
        yields: bool,
    ) -> Result<(Component, bool), Refusal> {
        contract::form(wasm)?;
        let known = self.cache.as_ref().and_then(|cache| cache.find(digest));
        if let Some(code) = known {
            match engine.load(Arc::clone(digest), &code) {
                Err(Refusal::Invalid(error)) => {
                    tracing::warn!(error, "compiled filter does not load: compiling it again");
                }
                loaded => return Ok((loaded?, true)),
            }
        }
        let code = match &self.how {
            How::Here => engine::compile(engine.wasmtime(), wasm).map_err(Refusal::Invalid)?,
            How::Apart(stop) => compile_apart(wasm, stop, until, yields)?,
        };
        if let Some(cache) = &self.cache {
            cache.keep(digest, &code);
        }
        Ok((engine.load(Arc::clone(digest), &code)?, false))
    }
}

/// What the child does: gives up what it must not have, reads a file, compiles it. An `idle` one takes only time of the processors
/// that nothing else wants.
///
/// # Errors
/// The text for people: why the limits cannot be set or the file not be compiled.
pub fn compile_confined(mut wasm: impl Read, idle: bool) -> Result<Vec<u8>, String> {
    confine(idle).map_err(|error| format!("the compiler cannot be confined: {error}"))?;
    let mut bytes = Vec::new();
    wasm.read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    let engine = wasmtime::Engine::new(&engine::config()).map_err(|error| error.to_string())?;
    engine::compile(&engine, &bytes)
}

fn confine(idle: bool) -> io::Result<()> {
    limit(Resource::As, MEMORY)?;
    limit(Resource::Cpu, CPU.as_secs())?;
    limit(Resource::Fsize, CODE)?;
    limit(Resource::Core, 0)?;
    // With the host ends what it wanted.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Where the kernel or the C library refuses that class, there is still the nice value.
    if !idle || go_idle().is_err() {
        rustix::process::nice(NICE)?;
    }
    Ok(())
}

/// The scheduling class below all others of this container or service. It gives way the moment that something else wakes up; a mere
/// nice value would keep the processor for some milliseconds more, and every event that comes meanwhile waiting.
#[expect(unsafe_code, reason = "no crate in the tree makes this call")]
fn go_idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters are alive, and the call only reads them.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn limit(resource: Resource, to: u64) -> io::Result<()> {
    let maximum = rustix::process::getrlimit(resource).maximum;
    let current = Some(maximum.map_or(to, |maximum| to.min(maximum)));
    Ok(rustix::process::setrlimit(
        resource,
        Rlimit { current, maximum },
    )?)
}

fn compile_apart(
    wasm: &[u8],
    stop: &AtomicBool,
    until: Option<Instant>,
    yields: bool,
) -> Result<Vec<u8>, Refusal> {
    let no_compiler = |error: io::Error| Refusal::NoCompiler(error.to_string());
    let is_stopped = || stop.load(Ordering::Acquire);
    let latest = Instant::now() + WALL;
    let latest = until.map_or(latest, |until| until.min(latest));
    let idle = yields.then(|| (true, latest.min(Instant::now() + IDLE)));
    for (idle, give_up_at) in idle.into_iter().chain([(false, latest)]) {
        if is_stopped() {
            break;
        }
        let give_up = || is_stopped() || Instant::now() > give_up_at;
        let ended = run(wasm, idle, give_up).map_err(no_compiler)?;
        let Some((ended, mut output, mut said)) = ended else {
            continue;
        };
        if ended.success() {
            return contents(&mut output, CODE).map_err(no_compiler);
        }
        let said = contents(&mut said, SAID).map_err(no_compiler)?;
        return Err(failure(ended, &String::from_utf8_lossy(&said)));
    }
    Err(if is_stopped() {
        Refusal::NoCompiler("the host stops".to_owned())
    } else if until.is_some() {
        Refusal::NotYet
    } else {
        // It did not have its share of the processor.
        Refusal::NoCompiler(format!("not done after {} s", WALL.as_secs()))
    })
}

/// One child: how it ended, what it made and what it said; none if it was given up.
fn run(
    wasm: &[u8],
    idle: bool,
    give_up: impl Fn() -> bool,
) -> io::Result<Option<(ExitStatus, File, File)>> {
    // Files in memory, not pipes: nothing waits for the other side to read, and the kernel bounds them.
    let memory = |name| rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map(File::from);
    let (mut input, output, said) = (memory("wasm")?, memory("code")?, memory("said")?);
    input.write_all(wasm)?;
    input.rewind()?;
    let mut child = start([&input, &output, &said], idle)?;
    let ended = wait(&mut child, give_up)?;
    Ok(ended.map(|ended| (ended, output, said)))
}

fn start([input, output, said]: [&File; 3], idle: bool) -> io::Result<Child> {
    Command::new(SELF)
        .arg0("jackfield")
        .arg("compile-filter")
        .args(idle.then_some("--idle"))
        .env_clear()
        .stdin(Stdio::from(input.try_clone()?))
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(said.try_clone()?))
        // A signal to the host's terminal is the host's affair.
        .process_group(0)
        .spawn()
}

/// Waits for the child's end; none: it was killed because it took too long or the host stops.
fn wait(child: &mut Child, give_up: impl Fn() -> bool) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(ended) = child.try_wait()? {
            return Ok(Some(ended));
        }
        if give_up() {
            child.kill()?;
            let killed = Instant::now();
            while child.try_wait()?.is_none() && killed.elapsed() < DEATH {
                std::thread::sleep(LOOK);
            }
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

fn contents(file: &mut File, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Why a child failed, told by how it ended and what it said.
fn failure(ended: ExitStatus, said: &str) -> Refusal {
    let signal = ended.signal().and_then(Signal::from_named_raw);
    let line = said.lines().next().unwrap_or_default();
    match signal {
        None if ended.code() == Some(1) => Refusal::Invalid(line.to_owned()),
        Some(Signal::XCPU) => Refusal::CompileTime { limit: CPU },
        Some(Signal::XFSZ) => Refusal::CompiledSize,
        // Somebody ended it: the host's own stop, an operator, a kernel out of memory. That says nothing of the file.
        Some(Signal::TERM | Signal::INT | Signal::HUP | Signal::QUIT | Signal::KILL) => {
            Refusal::NoCompiler(format!("the compiler was ended: {ended}"))
        }
        Some(Signal::ABORT) if said.contains(OUT_OF_MEMORY) => Refusal::CompileMemory,
        _ => Refusal::CompilerCrash(format!("{ended} {line}").trim_end().to_owned()),
    }
}

/// What Rust says before it aborts for lack of memory.
const OUT_OF_MEMORY: &str = "memory allocation of ";
