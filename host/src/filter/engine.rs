//! wasmtime as this host uses it: how components are compiled, and what they are linked to.
//!
//! Calls are bounded by epochs, which advance while somebody holds a [`Ticking`].

use std::io;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::{Linker, Resource};
use wasmtime::{Config, OptLevel};
use wasmtime_wasi::p2::DynPollable;
use wit_component::ComponentEncoder;

use super::contract::{self, Form};
use super::guest::{Guest, bindings};
use super::refusal::Refusal;
use super::ticker::{Ticker, Ticking};
use crate::config::Wasi;

/// A filter file, validated, compiled, known by its digest.
#[derive(Clone)]
pub struct Component {
    /// SHA-256 of the file, in hexadecimal.
    pub digest: Arc<str>,
    /// The names of what it imports.
    pub imports: Arc<[String]>,
    pub(super) pre: bindings::FilterPre<Guest>,
}

impl Component {
    /// Whether `wasi` lets it run.
    pub fn admit(&self, wasi: Wasi) -> Result<(), Refusal> {
        let import = self.imports.iter().find(|name| name.starts_with("wasi:"));
        match (import, wasi) {
            (Some(import), Wasi::Deny) => Err(Refusal::Wasi(import.clone())),
            _ => Ok(()),
        }
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> Arc<str> {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        .into()
}

/// wasmtime with its linker, shared by all filters of a host.
pub struct Engine {
    engine: wasmtime::Engine,
    linker: Linker<Guest>,
    ticker: Arc<Ticker>,
}

impl Engine {
    /// One engine, and its ticking thread.
    ///
    /// # Errors
    /// This machine cannot run WebAssembly, or has no thread left.
    pub fn new() -> io::Result<Engine> {
        let engine = wasmtime::Engine::new(&config()).map_err(io::Error::other)?;
        let linker = linker(&engine).map_err(io::Error::other)?;
        let ticker = Ticker::start(engine.clone())?;
        Ok(Engine {
            engine,
            linker,
            ticker,
        })
    }

    /// Compiles a file here and now, without bounds, and checks it against the contract.
    pub fn compile(&self, bytes: &[u8]) -> Result<Component, Refusal> {
        contract::form(bytes)?;
        let code = compile(&self.engine, bytes).map_err(Refusal::Invalid)?;
        self.load(digest(bytes), &code)
    }

    /// Takes what [`compile`] made of the file with this digest, and checks it against the contract.
    pub(super) fn load(&self, digest: Arc<str>, code: &[u8]) -> Result<Component, Refusal> {
        let component =
            deserialize(&self.engine, code).map_err(|error| Refusal::Invalid(one_line(&error)))?;
        let kind = component.component_type();
        let imports: Vec<String> = kind
            .imports(&self.engine)
            .map(|(name, _)| name.to_owned())
            .collect();
        let exports: Vec<String> = kind
            .exports(&self.engine)
            .map(|(name, _)| name.to_owned())
            .collect();
        contract::check(&imports, &exports)?;
        let mismatch = |error: wasmtime::Error| Refusal::Mismatch(one_line(&error));
        let pre = self.linker.instantiate_pre(&component).map_err(mismatch)?;
        let pre = bindings::FilterPre::new(pre).map_err(mismatch)?;
        Ok(Component {
            digest,
            imports: imports.into(),
            pre,
        })
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.engine
    }

    /// Epochs advance, and so deadlines hold, until the guard is dropped. Hold one while calling filters.
    pub fn ticking(&self) -> Ticking {
        self.ticker.tick()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.ticker.stop();
    }
}

/// What compiles and what runs must agree on.
pub(super) fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_component_model(true);
    config
}

/// Code for this machine. A core module that describes its component is made that component first.
pub(super) fn compile(engine: &wasmtime::Engine, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let encoded = match contract::form(bytes).map_err(|refusal| refusal.to_string())? {
        Form::Component => None,
        Form::CoreModule => Some(encode(bytes)?),
    };
    engine
        .precompile_component(encoded.as_deref().unwrap_or(bytes))
        .map_err(|error| one_line(&error))
}

fn encode(module: &[u8]) -> Result<Vec<u8>, String> {
    let mut encoder = ComponentEncoder::default();
    encoder
        .module(module)
        .and_then(ComponentEncoder::encode)
        .map_err(|error| {
            format!(
                "the core module cannot be made a component (build it for wasm32-wasip2): {}",
                words(&format!("{error:#}"))
            )
        })
}

/// Runs no code yet, but believes it.
#[expect(unsafe_code, reason = "the one way to take compiled code")]
fn deserialize(
    engine: &wasmtime::Engine,
    code: &[u8],
) -> wasmtime::Result<wasmtime::component::Component> {
    // SAFETY: `code` must be what `Engine::precompile_component` returned, unchanged, as it becomes machine code. It comes from
    // `compile` above: in this process, over a pipe from a process of this same binary that ended well, or out of a folder
    // that only this host's user may write, where it is believed after its SHA-256 was checked. That it was made
    // by this version of wasmtime for this machine's features, wasmtime checks itself.
    unsafe { wasmtime::component::Component::deserialize(engine, code) }
}

/// The causes of an error; they say what is wrong, in one line for the log and the status.
fn one_line(error: &wasmtime::Error) -> String {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    words(&causes.join(": "))
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
    // A wait is not bounded by epochs: it would stop the pipeline. So waiting traps.
    linker.allow_shadowing(true);
    let mut poll = linker.instance("wasi:io/poll@0.2.12")?;
    poll.func_wrap(
        "poll",
        |_, (_,): (Vec<Resource<DynPollable>>,)| -> wasmtime::Result<(Vec<u32>,)> {
            Err(wasmtime::Error::msg(NO_WAITING))
        },
    )?;
    poll.func_wrap(
        "[method]pollable.block",
        |_, (_,): (Resource<DynPollable>,)| -> wasmtime::Result<()> {
            Err(wasmtime::Error::msg(NO_WAITING))
        },
    )?;
    linker.allow_shadowing(false);
    bindings::Filter::add_to_linker::<Guest, wasmtime::component::HasSelf<Guest>>(
        &mut linker,
        |guest| guest,
    )?;
    Ok(linker)
}

const NO_WAITING: &str = "a filter must not wait (sleep or poll)";
