//! Filters that no compiler makes: core modules written as text, which say of themselves that they are components of the contract.
//! The host encodes them as it does what wit-bindgen makes.
//!
//! A [`Forged`] is a filter that passes everything; a test replaces the part that is its attack.

use std::fmt::Write;

use wit_component::StringEncoding;
use wit_parser::Resolve;

use crate::harness::root;

/// Where `configure` finds its answer.
const MANIFEST: usize = 64 << 10;
/// Zeros: the answer that passes an event, derives nothing and saves nothing.
pub const NOTHING: &str = "(i32.const 1024)";

/// A core module of the contract, in parts.
pub struct Forged {
    /// The version of the contract, and its text.
    pub version: &'static str,
    pub wit: String,
    /// Further fields of the module, such as a start function.
    pub fields: String,
    /// The bodies of the functions that the host calls.
    pub realloc: String,
    pub configure: &'static str,
    pub handle: &'static str,
    pub tick: &'static str,
    pub save: &'static str,
    /// Pages of memory.
    pub memory: usize,
    pub manifest: Manifest,
}

impl Default for Forged {
    fn default() -> Forged {
        Forged {
            version: "0.1.0",
            wit: contract(),
            fields: String::new(),
            // Everything to the same place: it is not read.
            realloc: "(i32.const 8192)".to_owned(),
            configure: "(i32.const 65536)",
            handle: NOTHING,
            tick: NOTHING,
            save: NOTHING,
            memory: 64,
            manifest: Manifest::default(),
        }
    }
}

/// What `configure` answers.
#[derive(Clone)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    pub events: Vec<String>,
    pub headers: Vec<String>,
    pub tick_ms: u32,
}

impl Default for Manifest {
    fn default() -> Manifest {
        Manifest {
            name: "forged".to_owned(),
            version: "1".to_owned(),
            events: Vec::new(),
            headers: vec!["Event-Name".to_owned()],
            tick_ms: 0,
        }
    }
}

impl Manifest {
    /// As it lies in memory from [`MANIFEST`] on: the result's record, then the lists, then the text.
    fn bytes(&self) -> Vec<u8> {
        let lists = [&self.events, &self.headers];
        let mut strings_at = MANIFEST + 40 + lists.iter().map(|list| 8 * list.len()).sum::<usize>();
        let mut text = Vec::new();
        let mut string = |value: &str| {
            let at = strings_at;
            strings_at += value.len();
            text.extend(value.as_bytes());
            [at, value.len()]
        };
        let mut words = vec![0];
        words.extend(string(&self.name));
        words.extend(string(&self.version));
        let mut items = Vec::new();
        for list in lists {
            words.extend([MANIFEST + 40 + 4 * items.len(), list.len()]);
            items.extend(list.iter().flat_map(|value| string(value)));
        }
        words.push(self.tick_ms as usize);
        words.extend(items);
        let words = words.iter().flat_map(|word| (*word as u32).to_le_bytes());
        words.chain(text).collect()
    }
}

impl Forged {
    pub fn bytes(&self) -> Vec<u8> {
        let Forged {
            fields,
            realloc,
            configure,
            handle,
            tick,
            save,
            memory,
            version,
            wit,
            ..
        } = self;
        let handler = format!("jackfield:filter/handler@{version}");
        let manifest = escaped(&self.manifest.bytes());
        let module = format!(
            r#"(module
                {fields}
                (memory (export "memory") {memory})
                (data (i32.const {MANIFEST}) "{manifest}")
                (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
                (func (export "{handler}#configure") (param i32 i32 i32 i32 i32) (result i32) {configure})
                (func (export "{handler}#handle") (param i64 i32 i32) (result i32) {handle})
                (func (export "{handler}#tick") (param i64) (result i32) {tick})
                (func (export "{handler}#save") (result i32) {save}))"#
        );
        let wit = wit.replace("@0.1.0", &format!("@{version}"));
        of_world(&module, &wit, "filter")
    }
}

/// The text of the contract.
pub fn contract() -> String {
    std::fs::read_to_string(root().join("wit/filter.wit")).unwrap()
}

/// A core module that says of itself that it is a component of this world.
pub fn of_world(module: &str, wit: &str, world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(module).unwrap();
    let mut resolve = Resolve::default();
    let package = resolve.push_str("forged.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let encoding = StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, encoding, false).unwrap();
    module
}

/// A component of one function with this body, and nothing else: enough for a compiler to work on.
pub fn of_body(body: &[u8]) -> Vec<u8> {
    let section = |id: u8, content: &[u8]| [&[id], &*length(content.len()), content].concat();
    let function = [&*length(body.len()), body].concat();
    let module = [
        b"\0asm\x01\0\0\0",
        &*section(1, b"\x01\x60\x00\x01\x7f"),
        &*section(3, b"\x01\x00"),
        &*section(5, b"\x01\x00\x01"),
        &*section(10, &[b"\x01", &*function].concat()),
    ];
    [b"\0asm\x0d\0\x01\0", &*section(1, &module.concat())].concat()
}

fn length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// As a string of the text format.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "\\{byte:02x}").unwrap();
        text
    })
}
