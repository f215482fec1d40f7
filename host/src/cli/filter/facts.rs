//! What `check` and `build` say of a component: the same words and the same JSON.

use serde::Serialize;

use crate::filter::Inspected;

/// Its facts as lines, each with a name and a value.
pub(super) fn lines(facts: &Inspected) -> Vec<(&'static str, String)> {
    let or = |list: &[String], none: &str| match list {
        [] => none.to_owned(),
        list => list.join(", "),
    };
    vec![
        ("filter", format!("{} {}", facts.name, facts.version)),
        ("digest", facts.digest.to_string()),
        ("size", format!("{} bytes", facts.size)),
        ("imports", or(&facts.imports, "nothing")),
        ("events", or(&facts.events, "every event")),
        ("headers", or(&facts.headers, "none")),
        (
            "tick",
            match facts.tick_ms {
                0 => "never".to_owned(),
                every => format!("every {every} ms"),
            },
        ),
        (
            "golden",
            match &facts.golden {
                Ok(0) => "no cases".to_owned(),
                Ok(cases) => format!("{cases} ok"),
                Err(broken) => broken.to_string(),
            },
        ),
    ]
}

/// Its facts for a program.
#[derive(Debug, Serialize)]
pub(super) struct Facts<'a> {
    name: &'a str,
    version: &'a str,
    digest: &'a str,
    size: usize,
    imports: &'a [String],
    events: &'a [String],
    headers: &'a [String],
    tick_ms: u32,
    /// None where one of them fails.
    golden_cases: Option<usize>,
}

impl Facts<'_> {
    pub(super) fn of(inspected: &Inspected) -> Facts<'_> {
        Facts {
            name: &inspected.name,
            version: &inspected.version,
            digest: &inspected.digest,
            size: inspected.size,
            imports: &inspected.imports,
            events: &inspected.events,
            headers: &inspected.headers,
            tick_ms: inspected.tick_ms,
            golden_cases: inspected.golden.as_ref().ok().copied(),
        }
    }
}
