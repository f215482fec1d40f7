//! `jackfield check`: the configuration and the filters as a start would find them.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::{FAILED, Settings, WRONG_CONFIG, print_error};
use crate::filter::{Engine, Loader};

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    settings: Settings,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn main(self) -> ExitCode {
        let config = match self.settings.load() {
            Ok(config) => config,
            Err(code) => return code,
        };
        let engine = match Engine::new() {
            Ok(engine) => Arc::new(engine),
            Err(error) => {
                print_error(&error);
                return ExitCode::from(FAILED);
            }
        };
        let dir = config.filters.dir.display().to_string();
        let planned = Loader::new(engine, config.filters)
            .apart(Arc::default())
            .load()
            .planned;
        let refused = planned
            .iter()
            .filter(|filter| filter.refusal().is_some())
            .count();
        if self.json {
            let filters = planned.iter().map(|filter| {
                let error = filter.refusal().map(ToString::to_string);
                json!({ "file": &*filter.file, "ok": error.is_none(), "error": error })
            });
            let streams = config.streams.iter().map(|stream| stream.name.as_str());
            let answer = json!({
                "ok": refused == 0,
                "streams": streams.collect::<Vec<_>>(),
                "filters": filters.collect::<Vec<_>>(),
                "notes": config.notes.iter().map(|note| json!({ "variable": note.variable, "why": note.why })).collect::<Vec<_>>(),
            });
            println!("{answer:#}");
        } else {
            for note in &config.notes {
                println!("{}: {}", note.variable, note.why);
            }
            for stream in &config.streams {
                println!("stream {}", stream.name);
            }
            for filter in &planned {
                match filter.refusal() {
                    None => println!("filter {dir}/{}.wasm: ok", filter.file),
                    Some(why) => println!("filter {dir}/{}.wasm: {why}", filter.file),
                }
            }
            println!(
                "configuration ok, {} filters, {refused} refused",
                planned.len()
            );
        }
        if refused == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(WRONG_CONFIG)
        }
    }
}
