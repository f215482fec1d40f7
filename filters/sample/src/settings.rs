//! The settings file, checked; see `sample.toml`.

use serde::Deserialize;

use crate::Sample;

/// The settings file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    one_in: Option<u64>,
    share: Option<f64>,
    by: Vec<String>,
    events: Vec<String>,
}

impl Settings {
    /// The filter, or what is wrong with the settings.
    pub(crate) fn checked(self) -> Result<Sample, String> {
        let below = match (self.one_in, self.share) {
            (Some(0), None) => {
                return Err("`one_in` is 0: allowed is 1, which keeps all, or more".into());
            }
            (Some(one_in), None) => u64::MAX / one_in,
            (None, Some(share)) if !(share > 0.0 && share <= 1.0) => {
                return Err(format!(
                    "`share` is {share}: allowed is more than 0, up to 1, which keeps all"
                ));
            }
            (None, Some(share)) => part(share),
            (Some(_), Some(_)) => return Err("it has `one_in` and `share`: choose one".into()),
            (None, None) => {
                return Err(
                    "nothing says how much to keep: give `one_in = 10` or `share = 0.1`".into(),
                );
            }
        };
        if self.by.iter().any(String::is_empty) {
            return Err("`by` has an empty name".into());
        }
        Ok(Sample {
            by: self.by,
            events: self.events,
            below,
        })
    }
}

/// This share of all hashes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of 0 to 1, and what is too large becomes the largest"
)]
fn part(share: f64) -> u64 {
    (share * 2_f64.powi(64)) as u64
}
