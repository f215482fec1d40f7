//! Tags answered calls with the site that they came to, and drops test calls.

use jackfield_sdk::{Event, Filter, Manifest, Verdict};

/// A longer one is hardly a site.
const SITE_MAX: usize = 64;

/// The settings file.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    site: String,
    test_prefix: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            site: "default".into(),
            test_prefix: String::new(),
        }
    }
}

/// The filter.
pub struct Tag {
    settings: Settings,
}

impl Filter for Tag {
    type Settings = Settings;

    fn new(settings: Settings, _saved: Option<Vec<u8>>) -> Result<Self, String> {
        let length = settings.site.chars().count();
        if length == 0 || length > SITE_MAX {
            return Err(format!(
                "`site` has {length} characters; allowed are 1 to {SITE_MAX}"
            ));
        }
        Ok(Self { settings })
    }

    fn manifest(&self) -> Manifest {
        Manifest::new()
            .events(["CHANNEL_ANSWER"])
            .headers(["Caller-Destination-Number"])
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let prefix = &self.settings.test_prefix;
        let number = event.get("Caller-Destination-Number").unwrap_or_default();
        if !prefix.is_empty() && number.starts_with(prefix) {
            return Verdict::drop("test call");
        }
        event.set("X-Site", self.settings.site.as_str());
        Verdict::Pass
    }
}

jackfield_sdk::export!(Tag);

#[cfg(test)]
mod tests {
    use jackfield_sdk::Verdict;
    use jackfield_sdk::testing::{event, filter};

    use super::Tag;

    #[test]
    fn calls_are_tagged_and_test_calls_dropped() {
        let mut tag: Tag = filter("site = 'berlin'\ntest_prefix = '999'").unwrap();
        let call =
            |number: &str| event("CHANNEL_ANSWER").header("Caller-Destination-Number", number);
        let after = call("100").run(&mut tag);
        assert_eq!(after.verdict, Verdict::Pass);
        assert_eq!(after.get("X-Site"), Some("berlin"));
        assert_eq!(
            call("9991").run(&mut tag).verdict,
            Verdict::drop("test call")
        );
    }

    #[test]
    fn a_site_without_a_name_is_refused() {
        assert_eq!(
            filter::<Tag>("site = ''").err().as_deref(),
            Some("`site` has 0 characters; allowed are 1 to 64")
        );
    }
}
