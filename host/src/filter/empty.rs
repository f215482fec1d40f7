//! A filter that does nothing, as a component: what a call costs at least. Its source is `empty.wat`.

/// The component's bytes.
pub const EMPTY: &[u8] = include_bytes!("empty.wasm");

#[cfg(test)]
mod tests {
    use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
    use wit_parser::Resolve;

    use super::EMPTY;

    #[test]
    fn the_component_is_made_of_its_source() {
        let mut resolve = Resolve::default();
        let contract = include_str!("../../../wit/filter.wit");
        let package = resolve.push_str("filter.wit", contract).unwrap();
        let world = resolve.select_world(&[package], Some("filter")).unwrap();
        let mut module = wat::parse_str(include_str!("empty.wat")).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)
            .unwrap();
        let mut encoder = ComponentEncoder::default();
        let made = encoder.module(&module).unwrap().encode().unwrap();
        if made != EMPTY {
            let to = std::env::temp_dir().join("empty.wasm");
            std::fs::write(&to, &made).unwrap();
            panic!(
                "empty.wasm is not what empty.wat says: copy {} over it",
                to.display()
            );
        }
    }
}
