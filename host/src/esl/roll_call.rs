//! The calls that FreeSWITCH says are alive, as they go into the journal: what was missed follows from them and from the events.
//!
//! Pure: the answer to `show channels as json` in, parts of a roll call out. The calls are split by their UUIDs, so that what one
//! part makes the host say stays small whatever the number of calls.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Calls in one part, more or less.
const PART: usize = 512;

/// What asks for the calls.
pub(super) const SHOW_CHANNELS: &str = "show channels as json";

/// One part of a roll call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollCall {
    /// When FreeSWITCH was asked, in microseconds since the epoch.
    pub asked_us: u64,
    /// Which part, from 0.
    pub part: u32,
    /// Of how many.
    pub parts: u32,
    /// This process of FreeSWITCH.
    pub core_uuid: Option<String>,
    /// The outage that made it necessary, if one did.
    pub outage: Option<Outage>,
    /// Those of this part, or why it is not known which there are.
    pub calls: Result<Vec<LiveCall>, String>,
}

/// How the link was away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// Where FreeSWITCH is.
    pub peer: String,
    /// Why it was lost.
    pub error: String,
    /// How long, in microseconds.
    pub down_us: u64,
    /// Failed tries meanwhile.
    pub attempts: u64,
}

/// A channel, with the columns of `show channels` that say whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveCall {
    /// `Unique-ID`.
    pub uuid: String,
    /// `Channel-Name`.
    pub name: String,
    /// `Call-Direction`.
    pub direction: String,
    /// In seconds since the epoch.
    pub created_epoch: String,
    /// `Channel-Call-State`.
    pub callstate: String,
    /// `Caller-Caller-ID-Number`.
    pub cid_num: String,
    /// `Caller-Destination-Number`.
    pub dest: String,
    /// `Channel-Call-UUID`.
    pub call_uuid: String,
}

#[derive(Deserialize)]
struct Channels {
    #[serde(default)]
    rows: Vec<LiveCall>,
}

/// Reads the answer to [`SHOW_CHANNELS`].
pub(super) fn read(answer: &[u8]) -> Result<Vec<LiveCall>, String> {
    // Names are what callers sent, in whatever encoding.
    let text = String::from_utf8_lossy(answer);
    let channels: Result<Channels, _> = serde_json::from_str(&text);
    channels.map(|channels| channels.rows).map_err(|error| {
        let begin: String = text.trim().chars().take(80).collect();
        format!("{SHOW_CHANNELS:?} is answered with {begin:?}: {error}")
    })
}

/// In which part of so many a call is.
pub fn part_of(uuid: &str, parts: u32) -> u32 {
    crc32c::crc32c(uuid.as_bytes()) % parts.max(1)
}

impl RollCall {
    /// The parts, for about `believed` calls on our side.
    pub(super) fn split(self, believed: usize) -> Vec<RollCall> {
        let Ok(calls) = &self.calls else {
            return vec![self];
        };
        let parts = calls.len().max(believed).div_ceil(PART).max(1);
        let parts = u32::try_from(parts).unwrap_or(u32::MAX);
        let part = |part| {
            let calls = calls
                .iter()
                .filter(|call| part_of(&call.uuid, parts) == part);
            RollCall {
                part,
                parts,
                calls: Ok(calls.cloned().collect()),
                ..self.clone_without_calls()
            }
        };
        (0..parts).map(part).collect()
    }

    fn clone_without_calls(&self) -> RollCall {
        RollCall {
            asked_us: self.asked_us,
            part: 0,
            parts: 1,
            core_uuid: self.core_uuid.clone(),
            outage: self.outage.clone(),
            calls: Ok(Vec::new()),
        }
    }

    /// For the journal.
    pub(super) fn encode(&self) -> serde_json::Result<Bytes> {
        serde_json::to_vec(self).map(Bytes::from)
    }

    /// What [`RollCall::encode`] wrote.
    ///
    /// # Errors
    /// It did not.
    pub fn decode(bytes: &[u8]) -> serde_json::Result<RollCall> {
        serde_json::from_slice(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{LiveCall, RollCall, read};

    fn roll(calls: Vec<LiveCall>) -> RollCall {
        RollCall {
            asked_us: 7,
            part: 0,
            parts: 1,
            core_uuid: Some("c".to_owned()),
            outage: None,
            calls: Ok(calls),
        }
    }

    #[test]
    fn the_answer_of_a_real_switch_is_read() {
        assert_eq!(read(b"{\"row_count\": 0}\n"), Ok(Vec::new()));
        let answer = b"{\"row_count\":1,\"rows\":[{\"uuid\":\"4875ea3e\",\"direction\":\"outbound\",\"created\":\"2026-11-21 00:32:50\",\"created_epoch\":\"1795221170\",\"name\":\"loopback/110-a\",\"state\":\"CS_EXECUTE\",\"cid_name\":\"Zo\xeb\",\"cid_num\":\"lab\",\"dest\":\"110\",\"callstate\":\"ACTIVE\",\"call_uuid\":\"4875ea3e\"}]}";
        let expected = LiveCall {
            uuid: "4875ea3e".to_owned(),
            name: "loopback/110-a".to_owned(),
            direction: "outbound".to_owned(),
            created_epoch: "1795221170".to_owned(),
            callstate: "ACTIVE".to_owned(),
            cid_num: "lab".to_owned(),
            dest: "110".to_owned(),
            call_uuid: "4875ea3e".to_owned(),
        };
        assert_eq!(read(answer), Ok(vec![expected]));
        let error = read(b"-ERR Command not found!\n").unwrap_err();
        assert!(error.contains("\"-ERR Command not found!\""), "{error}");
    }

    #[test]
    fn every_call_is_in_one_part_and_parts_are_small() {
        let call = |number: u32| LiveCall {
            uuid: format!("00000000-0000-4000-8000-{number:012}"),
            ..LiveCall::default()
        };
        let parts = roll((0..10_000).map(call).collect()).split(0);
        assert_eq!(parts.len(), 20);
        let calls = parts.iter().map(|part| part.calls.as_ref().unwrap());
        assert!(calls.clone().all(|calls| calls.len() < 700));
        assert_eq!(calls.map(Vec::len).sum::<usize>(), 10_000);
        assert_eq!(
            roll(Vec::new()).split(10_000).len(),
            20,
            "those that are gone"
        );
        assert_eq!(roll(Vec::new()).split(0), [roll(Vec::new())], "none at all");
        let decoded = RollCall::decode(&parts[3].encode().unwrap()).unwrap();
        assert_eq!(decoded, parts[3]);
    }
}
