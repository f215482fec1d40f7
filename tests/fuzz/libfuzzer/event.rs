#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jackfield_fuzz::event::run(data));
