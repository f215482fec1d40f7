//! The macro that makes a crate a component.

/// Make the crate a filter component: `export!(MyFilter);`, once, where `MyFilter` implements [`Filter`](crate::Filter).
///
/// Natively it only checks the type, so that the crate's unit tests link.
#[macro_export]
macro_rules! export {
    ($filter:ty) => {
        const _: () = {
            const fn is_a_filter<F: $crate::Filter>() {}
            is_a_filter::<$filter>();
        };

        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::bindings::exports::jackfield::filter::handler::{Decision, Derived, Guest, Manifest};

            ::std::thread_local! {
                static RUNNING: ::std::cell::RefCell<::std::option::Option<$crate::Running<$filter>>> =
                    const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }

            /// A call before `configure` traps: a failure is never a verdict.
            fn running<R>(call: impl ::std::ops::FnOnce(&mut $crate::Running<$filter>) -> R) -> R {
                RUNNING.with_borrow_mut(|running| match running {
                    ::std::option::Option::Some(running) => call(running),
                    ::std::option::Option::None => ::std::process::abort(),
                })
            }

            struct Component;

            impl Guest for Component {
                fn configure(
                    settings: ::std::string::String,
                    saved: ::std::option::Option<::std::vec::Vec<u8>>,
                ) -> ::std::result::Result<Manifest, ::std::string::String> {
                    let (filter, manifest) = $crate::Running::<$filter>::configure(&settings, saved)?;
                    RUNNING.set(::std::option::Option::Some(filter));
                    ::std::result::Result::Ok(Manifest {
                        name: ::std::string::String::from(::std::env!("CARGO_PKG_NAME")),
                        version: ::std::string::String::from(::std::env!("CARGO_PKG_VERSION")),
                        ..manifest
                    })
                }

                fn handle(
                    now: u64,
                    headers: ::std::vec::Vec<::std::option::Option<::std::string::String>>,
                ) -> Decision {
                    running(|filter| filter.handle(now, headers))
                }

                fn tick(now: u64) -> ::std::vec::Vec<Derived> {
                    running(|filter| filter.tick(now))
                }

                fn save() -> ::std::vec::Vec<u8> {
                    running(|filter| filter.save())
                }
            }

            $crate::bindings::export!(Component with_types_in $crate::bindings);
        };
    };
}
