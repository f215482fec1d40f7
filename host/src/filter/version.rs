//! A version of a filter: a component with its settings and limits; and one that runs, with its instance and a spare.
//!
//! What a call costs and what becomes of a failure is for `slot` to say; here a version is started, called and rebuilt.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::decision::{self, Allowance, AllowedStreams};
use super::engine::{Component, Engine};
use super::guest::bindings::jackfield::filter::types;
use super::instance::{Failure, Instance};
use super::refusal::Refusal;
use super::step::SHORT_DIGEST;
use super::workshop::{self, Spare, Workshop};
use crate::config::FilterLimits;
use crate::event::{Event, Name, Selection, has_subclass, is_name};

/// Declared headers that a call needs no memory for.
const FEW: usize = 16;
/// How many names a manifest may list.
const MAX_DECLARED: usize = 1_024;

/// What a filter is made of.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) component: Component,
    /// The settings for the guest, as JSON text.
    pub(super) settings: Arc<str>,
    pub(super) limits: FilterLimits,
    /// The whole text of the settings file: with the digest it tells versions apart.
    pub(super) text: Arc<str>,
    /// What it says goes nowhere: it is only tried.
    pub(super) muted: bool,
}

impl Made {
    /// For a try.
    pub(super) fn muted(&self) -> Made {
        Made {
            muted: true,
            ..self.clone()
        }
    }

    pub(super) fn is_same(&self, other: &Made) -> bool {
        self.is_version(&other.component.digest, &other.text)
    }

    pub(super) fn is_version(&self, digest: &str, text: &str) -> bool {
        *self.component.digest == *digest && *self.text == *text
    }
}

/// A version that runs.
pub(super) struct Active {
    pub(super) made: Made,
    pub(super) name: String,
    pub(super) version: Arc<str>,
    pub(super) short_digest: Arc<str>,
    pub(super) wants: Wants,
    pub(super) tick_every: Option<Duration>,
    file: Arc<str>,
    allowed: AllowedStreams,
    declared: Vec<Name>,
    read: Values,
    /// None: it failed, and is to be built anew.
    instance: Option<Instance>,
    spare: Option<Spare>,
}

impl Active {
    /// A version that handles events from now on; `saved` is what it starts from.
    pub(super) fn start(
        workshop: &Workshop,
        file: &Arc<str>,
        made: Made,
        saved: Option<&Bytes>,
        now_us: u64,
    ) -> Result<Active, Refusal> {
        let state = saved.map(|saved| &**saved);
        let mut active = Active::alone(workshop.engine(), file, made, state, now_us)?;
        active.spare = workshop.order(file, &active.made, saved, now_us);
        Ok(active)
    }

    /// The same without a spare: for a try.
    pub(super) fn alone(
        engine: &Engine,
        file: &Arc<str>,
        made: Made,
        saved: Option<&[u8]>,
        now_us: u64,
    ) -> Result<Active, Refusal> {
        let (instance, manifest) = start(engine, file, &made, saved, now_us)?;
        let tick_every = Duration::from_millis(u64::from(manifest.tick_interval));
        let digest = &made.component.digest;
        Ok(Active {
            name: manifest.name.clone(),
            version: manifest.version.as_str().into(),
            short_digest: digest.get(..SHORT_DIGEST).unwrap_or(digest).into(),
            wants: Wants::of(&manifest),
            tick_every: Some(tick_every).filter(|every| !every.is_zero()),
            file: Arc::clone(file),
            allowed: AllowedStreams(made.limits.streams.clone()),
            declared: manifest
                .headers
                .iter()
                .map(|name| Name::new(name))
                .collect(),
            read: Values::default(),
            instance: Some(instance),
            spare: None,
            made,
        })
    }

    /// Makes sure that there is an instance: the spare, or a new one.
    pub(super) fn ready(
        &mut self,
        workshop: &Workshop,
        saved: Option<&Bytes>,
        now_us: u64,
    ) -> Result<(), Failure> {
        if self.instance.is_some() {
            return Ok(());
        }
        let spare = self.spare.take().and_then(Spare::take);
        let (instance, _) = match spare {
            Some(spare) => spare?,
            None => {
                let state = saved.map(|saved| &**saved);
                workshop::make(workshop.engine(), &self.file, &self.made, state, now_us)?
            }
        };
        self.instance = Some(instance);
        self.spare = workshop.order(&self.file, &self.made, saved, now_us);
        Ok(())
    }

    /// [`Active::ready`] without a workshop.
    pub(super) fn revive(
        &mut self,
        engine: &Engine,
        saved: Option<&[u8]>,
        now_us: u64,
    ) -> Result<(), Failure> {
        if self.instance.is_none() {
            let (instance, _) = workshop::make(engine, &self.file, &self.made, saved, now_us)?;
            self.instance = Some(instance);
        }
        Ok(())
    }

    /// A spare that starts from this state takes the place of the one there is.
    pub(super) fn renew_spare(&mut self, workshop: &Workshop, saved: Option<&Bytes>, now_us: u64) {
        workshop.discard(self.spare.take());
        self.spare = workshop.order(&self.file, &self.made, saved, now_us);
    }

    /// One event, which stays as it is: nothing of the answer is applied here.
    pub(super) fn handle(
        &mut self,
        event: &mut Event,
        now_us: u64,
        allowance: &mut Allowance,
    ) -> Result<types::Decision, Failure> {
        let Some(instance) = &mut self.instance else {
            return Err(Failure::NotRunning("no instance".to_owned()));
        };
        self.read.take(&self.declared, event);
        let read = &self.read;
        let decision = read.give(|values| instance.handle(event, values, now_us))?;
        decision::check(&decision, &self.allowed)?;
        allowance.take(&decision)?;
        Ok(decision)
    }

    pub(super) fn tick(
        &mut self,
        now_us: u64,
        allowance: &mut Allowance,
    ) -> Result<Vec<types::Derived>, Failure> {
        let Some(instance) = &mut self.instance else {
            return Err(Failure::NotRunning("no instance".to_owned()));
        };
        let derived = instance.tick(now_us)?;
        decision::check_derived(&derived, &self.allowed)?;
        allowance.take_derived(&derived)?;
        Ok(derived)
    }

    pub(super) fn instance(&mut self) -> Option<&mut Instance> {
        self.instance.as_mut()
    }

    /// After a failure: nothing is known of the state that it left.
    pub(super) fn discard_instance(&mut self) {
        self.instance = None;
    }
}

/// The declared headers' values of one event, copied out of it because the event itself moves into the store.
#[derive(Default)]
struct Values {
    text: String,
    spans: Vec<Option<Range<usize>>>,
}

impl Values {
    fn take(&mut self, declared: &[Name], event: &Event) {
        self.text.clear();
        self.spans.clear();
        for name in declared {
            let start = self.text.len();
            let value = event.get(name);
            self.text.push_str(value.as_deref().unwrap_or_default());
            self.spans.push(value.map(|_| start..self.text.len()));
        }
    }

    /// Nothing is allocated for as many as filters declare.
    fn give<T>(&self, to: impl FnOnce(&[Option<&str>]) -> T) -> T {
        let value = |span: &Option<Range<usize>>| self.text.get(span.clone()?);
        let mut few = [None; FEW];
        match few.get_mut(..self.spans.len()) {
            Some(few) => {
                for (place, span) in few.iter_mut().zip(&self.spans) {
                    *place = value(span);
                }
                to(few)
            }
            None => to(&self.spans.iter().map(value).collect::<Vec<_>>()),
        }
    }
}

/// The events that a filter subscribed to.
#[derive(Clone, Debug, Default)]
pub(super) struct Wants {
    pub(super) all: bool,
    pub(super) events: Selection,
}

impl Wants {
    pub(super) fn of(manifest: &types::Manifest) -> Wants {
        let mut wants = Wants {
            all: manifest.events.is_empty(),
            ..Wants::default()
        };
        for event in &manifest.events {
            match event.split_once(' ') {
                Some((name, subclass)) => wants.events.add(name, Some(subclass)),
                None => wants.events.add(event, None),
            }
        }
        wants
    }

    pub(super) fn event(&self, event: &Event) -> bool {
        self.all || self.events.matches(event)
    }
}

/// An instance that could go live, and its manifest.
pub(super) fn start(
    engine: &Engine,
    file: &Arc<str>,
    made: &Made,
    saved: Option<&[u8]>,
    now_us: u64,
) -> Result<(Instance, types::Manifest), Refusal> {
    let made = workshop::make(engine, file, made, saved, now_us);
    let (instance, manifest) = made.map_err(|failure| match failure {
        Failure::Deadline(_) => Refusal::Late(failure.to_string()),
        failure => Refusal::Configure(failure.to_string()),
    })?;
    check_manifest(&manifest).map_err(Refusal::Configure)?;
    Ok((instance, manifest))
}

fn check_manifest(manifest: &types::Manifest) -> Result<(), String> {
    let word =
        |text: &str| !text.is_empty() && text.len() <= 128 && !text.chars().any(char::is_control);
    let shown = |text: &str| text.chars().take(64).collect::<String>();
    if !word(&manifest.name) || !word(&manifest.version) {
        return Err(format!(
            "manifest: name {:?} or version {:?} is empty, over 128 bytes or has control characters",
            shown(&manifest.name),
            shown(&manifest.version)
        ));
    }
    if manifest.events.len() > MAX_DECLARED || manifest.headers.len() > MAX_DECLARED {
        return Err(format!("manifest: over {MAX_DECLARED} events or headers"));
    }
    for event in &manifest.events {
        let valid = match event.split_once(' ') {
            Some((name, subclass)) => {
                has_subclass(name) && word(subclass) && !subclass.contains(' ')
            }
            None => word(event) && is_name(event) && event != "ALL",
        };
        if !valid {
            return Err(format!(
                "manifest: event {:?}; allowed are an Event-Name in capitals, `CUSTOM <subclass>` and `JACKFIELD <subclass>`, up to 128 bytes",
                shown(event)
            ));
        }
    }
    match manifest.headers.iter().find(|header| header.is_empty()) {
        Some(_) => Err("manifest: a header's name is empty".to_owned()),
        None => Ok(()),
    }
}
