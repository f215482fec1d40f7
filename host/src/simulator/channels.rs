//! The channels that exist, as `show channels` lists them. Kept up to date from the events themselves.

use std::collections::HashMap;

use super::encode;
use super::names::Mask;
use super::stamp::Date;
use super::subscription::Lookup;

/// What `show channels as json` gives for each channel, in its order, and which header of an event says so.
const COLUMNS: [(&str, &str); 38] = [
    ("uuid", "Unique-ID"),
    ("direction", "Call-Direction"),
    ("created", ""),
    ("created_epoch", ""),
    ("name", "Channel-Name"),
    ("state", "Channel-State"),
    ("cid_name", "Caller-Caller-ID-Name"),
    ("cid_num", "Caller-Caller-ID-Number"),
    ("ip_addr", "Caller-Network-Addr"),
    ("dest", "Caller-Destination-Number"),
    ("application", "Application"),
    ("application_data", "Application-Data"),
    ("dialplan", "Caller-Dialplan"),
    ("context", "Caller-Context"),
    ("read_codec", "Channel-Read-Codec-Name"),
    ("read_rate", "Channel-Read-Codec-Rate"),
    ("read_bit_rate", "Channel-Read-Codec-Bit-Rate"),
    ("write_codec", "Channel-Write-Codec-Name"),
    ("write_rate", "Channel-Write-Codec-Rate"),
    ("write_bit_rate", "Channel-Write-Codec-Bit-Rate"),
    ("secure", ""),
    ("hostname", ""),
    ("presence_id", "Channel-Presence-ID"),
    ("presence_data", ""),
    ("accountcode", "variable_accountcode"),
    ("callstate", "Channel-Call-State"),
    ("callee_name", "Caller-Callee-ID-Name"),
    ("callee_num", "Caller-Callee-ID-Number"),
    ("callee_direction", ""),
    ("call_uuid", "Channel-Call-UUID"),
    ("sent_callee_name", ""),
    ("sent_callee_num", ""),
    ("initial_cid_name", "Caller-Caller-ID-Name"),
    ("initial_cid_num", "Caller-Caller-ID-Number"),
    ("initial_ip_addr", "Caller-Network-Addr"),
    ("initial_dest", "Caller-Destination-Number"),
    ("initial_dialplan", "Caller-Dialplan"),
    ("initial_context", "Caller-Context"),
];

/// What changes while a channel lives.
const CHANGING: [&str; 4] = [
    "Channel-State",
    "Channel-Call-State",
    "Application",
    "Application-Data",
];

/// The channels by UUID.
#[derive(Debug)]
pub(super) struct Channels {
    create: Option<Mask>,
    destroy: Option<Mask>,
    created: u64,
    rows: HashMap<Vec<u8>, Channel>,
}

#[derive(Debug)]
struct Channel {
    /// Rows are listed in the order of their creation.
    number: u64,
    created_us: u64,
    values: HashMap<&'static str, Vec<u8>>,
}

impl Default for Channels {
    fn default() -> Channels {
        Channels {
            create: Mask::named("CHANNEL_CREATE"),
            destroy: Mask::named("CHANNEL_DESTROY"),
            created: 0,
            rows: HashMap::new(),
        }
    }
}

impl Channels {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn has(&self, uuid: &str) -> bool {
        self.rows.contains_key(uuid.as_bytes())
    }

    /// Takes note of an event, if it is one of a channel.
    pub(super) fn note<'a>(&mut self, mask: Mask, first: Lookup<'a>) {
        if mask == Mask::CUSTOM {
            return;
        }
        let Some(uuid) = first(b"Unique-ID") else {
            return;
        };
        if Some(mask) == self.create {
            self.created += 1;
            let micros = first(b"Event-Date-Timestamp")
                .and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
            let headers = COLUMNS
                .iter()
                .map(|(_, header)| *header)
                .filter(|header| !header.is_empty());
            let values =
                headers.filter_map(|header| Some((header, first(header.as_bytes())?.into_owned())));
            let channel = Channel {
                number: self.created,
                created_us: micros.unwrap_or(0),
                values: values.collect(),
            };
            self.rows.insert(uuid.into_owned(), channel);
        } else if Some(mask) == self.destroy {
            self.rows.remove(&*uuid);
        } else if let Some(channel) = self.rows.get_mut(&*uuid) {
            for header in CHANGING {
                let Some(value) = first(header.as_bytes()) else {
                    continue;
                };
                let kept = channel.values.entry(header).or_default();
                if *kept != *value {
                    *kept = value.into_owned();
                }
            }
        }
    }

    /// The answer to `show channels as json`.
    pub(super) fn as_json(&self, hostname: &str) -> Vec<u8> {
        let mut out = format!("{{\"row_count\":{}", self.rows.len()).into_bytes();
        if self.rows.is_empty() {
            // Without rows the real one prints it another way, space included.
            return b"{\"row_count\": 0}\n".to_vec();
        }
        out.extend_from_slice(b",\"rows\":[");
        let mut channels: Vec<&Channel> = self.rows.values().collect();
        channels.sort_by_key(|channel| channel.number);
        for channel in channels {
            out.push(b'{');
            for (column, header) in COLUMNS {
                let seconds = channel.created_us / 1_000_000;
                let made = match column {
                    "created" => Date::at(seconds).local(),
                    "created_epoch" => seconds.to_string(),
                    "hostname" => hostname.to_owned(),
                    _ => String::new(),
                };
                let value = channel
                    .values
                    .get(header)
                    .map_or(made.as_bytes(), Vec::as_slice);
                out.extend_from_slice(format!("\"{column}\":\"").as_bytes());
                encode::json_text(&mut out, value);
                out.extend_from_slice(b"\",");
            }
            out.pop();
            out.extend_from_slice(b"},");
        }
        out.pop();
        out.extend_from_slice(b"]}");
        out
    }
}
