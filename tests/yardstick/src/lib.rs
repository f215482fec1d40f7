//! The filter that benchmarks call: it reads four headers, sets two and routes, as the project's numbers are stated.

use jackfield_sdk::{Event, Filter, Manifest, NoSettings, Verdict};

struct Yardstick;

impl Filter for Yardstick {
    type Settings = NoSettings;

    fn new(_: NoSettings, _: Option<Vec<u8>>) -> Result<Self, String> {
        Ok(Self)
    }

    fn manifest(&self) -> Manifest {
        Manifest::new().headers([
            "Unique-ID",
            "Caller-Caller-ID-Number",
            "Caller-Destination-Number",
            "variable_tenant",
        ])
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let lengths: usize = (0..4)
            .filter_map(|at| event.declared(at))
            .map(str::len)
            .sum();
        event.set("X-Tenant", event.declared(3).unwrap_or("none").to_owned());
        event.set("X-Length", lengths.to_string());
        Verdict::route(["freeswitch:telephony:events"])
    }
}

jackfield_sdk::export!(Yardstick);
