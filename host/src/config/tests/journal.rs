//! The journal's settings: how each is written, and how long it keeps what Redis has.

use std::path::Path;
use std::time::Duration;

use super::Situation;
use crate::config::types::Sync;

#[test]
fn a_journal_has_a_folder_a_size_a_retention_and_a_way_to_sync() {
    let file = "[journal]\ndir = \"/var/lib/j\"\nmax_size = \"16MiB\"\nretain = \"1h\"";
    let journal = Situation::file(file)
        .and_variable("JACKFIELD_JOURNAL_DIR", "/srv/j")
        .and_variable("JACKFIELD_JOURNAL_SYNC", "batch")
        .config()
        .journal;
    assert_eq!(
        journal.dir,
        Path::new("/srv/j"),
        "the variable is above the file"
    );
    assert_eq!(journal.max_size, 16 << 20);
    assert_eq!(journal.retain, Duration::from_secs(3600));
    assert_eq!(journal.sync, Sync::Batch);
    for (text, sync) in [("interval", Sync::Interval), ("never", Sync::Never)] {
        let config = Situation::variable("JACKFIELD_JOURNAL_SYNC", text).config();
        assert_eq!(config.journal.sync, sync, "{text}");
    }
}

#[test]
fn what_redis_has_is_kept_as_long_as_the_longest_stream() {
    let retain = |file: &str| Situation::file(file).config().journal.retain.as_secs();
    let longest = "stream = [{ name = \"a\", expire = \"1h\" }, { name = \"b\", expire = \"1m\" }, { name = \"c\", expire = \"0\" }]";
    assert_eq!(retain(longest), 3600);
    let never = "stream = [{ name = \"c\", expire = \"0\" }]";
    assert_eq!(retain(never), 600, "no stream expires");
    let shortest = "stream = [{ name = \"b\", expire = \"1m\" }]";
    assert_eq!(retain(shortest), 60);
}
