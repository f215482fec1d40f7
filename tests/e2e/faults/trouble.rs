//! What the host says of a Redis that is in trouble: all the while on `/readyz`, and once in its log.

use std::thread;
use std::time::Duration;

use super::trial::Trial;
use crate::harness::{Setup, wait_for};

/// A host that gives up on Redis soon, and tries again soon.
pub(crate) fn impatient(setup: Setup) -> Setup {
    setup.env("REDIS_REMOTE_WRITE_TIMEOUT", "300ms")
}

impl Trial {
    /// Waits until the host says that it is not ready because of this; then it must go on to say that it is not ready until so many
    /// events more were sent.
    #[track_caller]
    pub(crate) fn wait_in_trouble(&self, words: &str, more: usize) {
        self.wait_trouble(words);
        let until = self.sent() + more;
        while self.sent() < until {
            let (code, why) = self.host().get("/readyz");
            assert_eq!(code, 503, "not ready all the while: {why}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the host says that it is not ready because of this.
    #[track_caller]
    pub(crate) fn wait_trouble(&self, words: &str) {
        wait_for(words, || {
            let (code, why) = self.host().get("/readyz");
            (code == 503 && why.contains(words)).then_some(())
        });
    }

    /// How many lines of the log on this level have these words.
    pub(crate) fn logged(&self, level: &str, words: &str) -> usize {
        let log = self.host().log();
        let lines = log.lines().filter(|line| line.contains(level));
        lines.filter(|line| line.contains(words)).count()
    }

    /// How often the host has said this so far: when it began, and as an alarm when it had lasted long.
    pub(crate) fn said(&self, words: &str) -> [usize; 2] {
        [" WARN ", " ERROR "].map(|level| self.logged(level, words))
    }

    /// Since then it was said once.
    #[track_caller]
    pub(crate) fn check_said_once(&self, words: &str, before: [usize; 2]) {
        let [warnings, alarms] = self.said(words);
        let said = (warnings - before[0], alarms - before[1]);
        let log = self.host().log();
        assert!(
            matches!(said, (1, 0 | 1) | (0, 1)),
            "{words:?} as warnings and alarms: {said:?}\n{log}"
        );
    }

    /// Nothing that the host shows has this in it.
    #[track_caller]
    pub(crate) fn check_secret(&self, secret: &str) {
        let host = self.host();
        let pages = ["/health", "/status", "/metrics", "/readyz"];
        let shown = pages.map(|path| host.get(path).1).concat() + &host.log();
        assert!(!shown.contains(secret), "the password is shown nowhere");
    }
}
