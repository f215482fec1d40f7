//! All links of a host: what they are worth together, and what is said of them as events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use tokio::sync::watch;

use super::{Health, Level, Link, Notice, Snapshot, State};
use crate::esl::Subscription;
use crate::event::{Own, subclass};

/// The links by what they are for.
#[derive(Debug)]
pub struct Links {
    /// Events of FreeSWITCH.
    pub esl: Arc<Link>,
    /// Commands to FreeSWITCH; the host does its job without it.
    pub commands: Arc<Link>,
    /// Redis, or standard output in its place.
    pub redis: Arc<Link>,
    /// One without which the host is not ready was lost, and not all are back.
    broken: AtomicBool,
}

/// What `/status` shows of all links.
#[derive(Debug, Serialize)]
pub struct LinksStatus {
    /// Events of FreeSWITCH.
    pub esl: Snapshot,
    /// Commands to FreeSWITCH.
    pub commands: Snapshot,
    /// Redis.
    pub redis: Snapshot,
}

/// The worst of the links that the host needs: a mean would hide it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Overall {
    /// From 0 to 100.
    pub value: u8,
    /// The same in a word.
    pub level: Level,
    /// Whose it is.
    pub link: &'static str,
}

impl Default for Links {
    /// Links to nowhere.
    fn default() -> Links {
        Links::new(
            Link::new("esl", String::new(), 1),
            Link::optional("commands", String::new(), 1),
            Link::new("redis", String::new(), 1),
        )
    }
}

impl Links {
    /// These links.
    pub fn new(esl: Link, commands: Link, redis: Link) -> Links {
        Links {
            esl: Arc::new(esl),
            commands: Arc::new(commands),
            redis: Arc::new(redis),
            broken: AtomicBool::new(false),
        }
    }

    /// Every one.
    pub fn all(&self) -> [&Arc<Link>; 3] {
        [&self.esl, &self.commands, &self.redis]
    }

    /// Those that are to be up.
    pub fn required(&self) -> [&Arc<Link>; 2] {
        [&self.esl, &self.redis]
    }

    /// As they are.
    pub fn status(&self) -> LinksStatus {
        LinksStatus {
            esl: self.esl.snapshot(),
            commands: self.commands.snapshot(),
            redis: self.redis.snapshot(),
        }
    }

    /// What they are worth together.
    pub fn health(&self) -> Overall {
        let each = self.required().map(|link| {
            let Health { value, level, .. } = link.snapshot().health;
            Overall {
                value,
                level,
                link: link.name(),
            }
        });
        let [esl, redis] = each;
        if redis.value < esl.value { redis } else { esl }
    }

    /// From now on, what happens to a link is an event, as far as somebody wants it. `tell` must not wait.
    pub fn announce(
        self: &Arc<Links>,
        wanted: &watch::Receiver<Subscription>,
        tell: impl Fn(&Own) + Clone + Send + Sync + 'static,
    ) {
        for link in self.all() {
            let (links, name) = (Arc::downgrade(self), link.name());
            let (wanted, tell) = (wanted.clone(), tell.clone());
            link.on_change(move |notice, now| {
                let mut events = Vec::from_iter(event(name, notice, now));
                events.extend(
                    links
                        .upgrade()
                        .and_then(|links| links.restored(notice, now)),
                );
                for own in events {
                    if wanted.borrow().wants_own(own.subclass) {
                        tell(&own);
                    }
                }
            });
        }
    }

    fn restored(&self, notice: Notice, now: &Snapshot) -> Option<Own> {
        if !now.required {
            return None;
        }
        match notice {
            Notice::StateChanged(before) if before.is_up() && !now.state.is_up() => {
                self.broken.store(true, Ordering::Release);
                None
            }
            Notice::Up { .. } => {
                let all_up = self.required().iter().all(|link| link.is_ready());
                let restored = all_up && self.broken.swap(false, Ordering::AcqRel);
                restored.then(|| {
                    let names = self.required().map(|link| link.name());
                    let own = Own::new(subclass::LINKS_RESTORED, now.since_us);
                    own.with("Links", names.join(" "))
                })
            }
            _ => None,
        }
    }
}

/// What happened to one link. That of events comes back with what was missed: the roll call says so.
fn event(name: &'static str, notice: Notice, now: &Snapshot) -> Option<Own> {
    let about = |subclass| {
        let own = Own::new(subclass, now.since_us);
        own.with("Link", name).with("Link-Peer", &now.peer)
    };
    let error = |own: Own| {
        let kind = now.error_kind.map_or("", |kind| kind.label());
        let text = now.last_error.as_deref().unwrap_or_default();
        own.with("Link-Error-Kind", kind).with("Link-Error", text)
    };
    match notice {
        // Who would write it?
        Notice::StateChanged(_) if now.state == State::Stopped && name == "redis" => None,
        Notice::StateChanged(before) => {
            let own = about(subclass::LINK_STATE_CHANGED);
            let own = own.with("Link-State", now.state.label());
            let own = own.with("Link-Previous-State", before.label());
            Some(error(own.with("Link-Health", now.health.value.to_string())))
        }
        Notice::Alarm => {
            let own = about(subclass::LINK_ALARM);
            Some(error(own.with("Link-Attempts", now.attempts.to_string())))
        }
        Notice::Up { again: true } if name != "esl" => {
            let loss = now.last_loss.as_ref()?;
            let own = about(subclass::LINK_RECONNECTED);
            let own = own.with("Link-Error", &loss.error);
            let own = own.with("Link-Attempts", loss.attempts.to_string());
            let down_ms = loss.down_us.unwrap_or_default() / 1_000;
            Some(own.with("Link-Downtime-Ms", down_ms.to_string()))
        }
        Notice::Up { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::sync::watch;

    use super::Links;
    use crate::esl::Subscription;
    use crate::link::{Fault, Link};

    fn links() -> Arc<Links> {
        let link = |name| Link::new(name, "peer".to_owned(), 2);
        let commands = Link::optional("commands", "peer".to_owned(), 2);
        Arc::new(Links::new(link("esl"), commands, link("redis")))
    }

    fn lose(link: &Link) {
        link.waiting("reset", Fault::Peer, Duration::ZERO);
    }

    /// What is said while this happens, as `link: subclass state`.
    fn said(wanted: &[&str], happens: impl FnOnce(&Links)) -> Vec<String> {
        let links = links();
        let mut subscription = Subscription::new();
        for one in wanted {
            subscription.add("JACKFIELD", Some(one));
        }
        let (_sender, wanted) = watch::channel(subscription);
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let into = Arc::clone(&said);
        links.announce(&wanted, move |own| {
            let header = |name: &str| {
                let found = own.headers.iter().find(|(header, _)| header == name);
                found.map_or("", |(_, value)| value)
            };
            let line = format!(
                "{} {} {}",
                own.subclass,
                header("Link"),
                header("Link-State")
            );
            into.lock().unwrap().push(line.trim().to_owned());
        });
        happens(&links);
        said.lock().unwrap().clone()
    }

    #[test]
    fn they_are_worth_as_much_as_the_worst_that_is_needed() {
        let links = links();
        assert_eq!((links.health().value, links.health().link), (40, "esl"));
        links.esl.ready();
        assert_eq!((links.health().value, links.health().link), (40, "redis"));
        links.redis.ready();
        assert_eq!(links.health().value, 100, "commands are not needed");
        lose(&links.redis);
        links.redis.ready();
        assert_eq!((links.health().value, links.health().link), (90, "redis"));
    }

    #[test]
    fn what_somebody_wants_is_said_and_nothing_else() {
        let outage = |links: &Links| {
            links.esl.resyncing();
            links.redis.ready();
            lose(&links.redis);
            lose(&links.redis);
            lose(&links.redis);
            links.redis.ready();
        };
        assert!(said(&[], outage).is_empty());
        assert_eq!(
            said(&["link.state_changed"], outage),
            [
                "link.state_changed esl resyncing",
                "link.state_changed redis ready",
                "link.state_changed redis waiting",
                "link.state_changed redis ready",
            ]
        );
        assert_eq!(
            said(
                &["link.reconnected", "link.alarm", "links.restored"],
                outage
            ),
            [
                "link.alarm redis",
                "link.reconnected redis",
                "links.restored"
            ]
        );
    }

    #[test]
    fn links_are_restored_when_the_last_one_is_back() {
        let outage = |links: &Links| {
            links.esl.resyncing();
            links.redis.ready();
            links.commands.ready();
            lose(&links.esl);
            lose(&links.redis);
            lose(&links.commands);
            links.redis.ready();
            links.esl.resyncing();
            links.esl.resynced(2);
            links.commands.ready();
        };
        assert_eq!(said(&["links.restored"], outage), ["links.restored"]);
    }
}
