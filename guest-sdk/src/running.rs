//! A configured filter, between the contract's functions and the author's trait. Only `export!` and `testing` use it.

use std::rc::Rc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::bindings::jackfield::filter::types::Decision;
use crate::{Derived, Event, Filter, Manifest};

/// A filter and the headers that its manifest declared.
#[derive(Debug)]
pub struct Running<F> {
    filter: F,
    declared: Rc<[String]>,
}

impl<F: Filter> Running<F> {
    /// Build the filter from its settings (JSON text), and ask for its manifest.
    pub fn configure(settings: &str, saved: Option<Vec<u8>>) -> Result<(Self, Manifest), String> {
        let settings = serde_json::from_str(settings)
            .map_err(|error| format!("settings are no JSON: {error}"))?;
        let filter = F::new(read(settings)?, saved)?;
        let manifest = filter.manifest();
        let declared = manifest.headers.clone().into();
        Ok((Self { filter, declared }, manifest))
    }

    /// Handle one event; `values` are those of the declared headers.
    pub fn handle(&mut self, now: u64, values: Vec<Option<String>>) -> Decision {
        let mut event = Event::new(now, Rc::clone(&self.declared), values);
        let verdict = self.filter.handle(&mut event);
        event.decide(verdict)
    }

    /// Give the filter time.
    pub fn tick(&mut self, now: u64) -> Vec<Derived> {
        self.filter.tick(now)
    }

    /// The filter's state.
    pub fn save(&self) -> Vec<u8> {
        self.filter.save()
    }
}

/// Settings as their type. An error names the setting, which serde's own text does not.
pub(crate) fn read<S: DeserializeOwned>(settings: Value) -> Result<S, String> {
    serde_path_to_error::deserialize(settings).map_err(|error| {
        let setting = error.path().to_string();
        let cause = error.into_inner();
        match setting.as_str() {
            "." => format!("settings: {cause}"),
            setting => format!("settings: `{setting}`: {cause}"),
        }
    })
}
