//! The contract in `wit/`, as Rust: types, imports and the macro that exports a component.
//! Generated code; what authors use of it is re-exported at the top of the crate.

wit_bindgen::generate!({
    world: "filter",
    path: "../wit",
    pub_export_macro: true,
    default_bindings_module: "jackfield_sdk::bindings",
    additional_derives: [PartialEq, Eq],
});
