;; The filter that does nothing: it sees every event, reads no header, and passes each on unchanged.
(module
  (memory (export "memory") 2)
  (global $top (mut i32) (i32.const 4096))
  (data (i32.const 16) "empty")
  (data (i32.const 24) "1.0.0")
  ;; result<manifest, string>: ok, name, version, no events, no headers, no tick
  (data (i32.const 64) "\00\00\00\00" "\10\00\00\00" "\05\00\00\00" "\18\00\00\00" "\05\00\00\00")
  ;; Everything at 128 is zero: pass without edits, an empty list.
  (func (export "cabi_realloc") (param $old i32) (param $size i32) (param $align i32) (param $new i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get $new)))
    (local.get $at))
  (func (export "jackfield:filter/handler@0.1.0#configure") (param i32 i32 i32 i32 i32) (result i32)
    (global.set $top (i32.const 4096))
    (i32.const 64))
  (func (export "jackfield:filter/handler@0.1.0#handle") (param i64 i32 i32) (result i32)
    (global.set $top (i32.const 4096))
    (i32.const 128))
  (func (export "jackfield:filter/handler@0.1.0#tick") (param i64) (result i32) (i32.const 128))
  (func (export "jackfield:filter/handler@0.1.0#save") (result i32) (i32.const 128)))
