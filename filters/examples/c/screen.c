// The filter `screen` in C: drops calls to test numbers, and tells of every other call who calls whom.
//
// It does what filters/examples/rust does, in the same order. The types and the functions that begin with `filter_` are those that
// `wit-bindgen c` makes of wit/filter.wit. What a function returns is freed by the generated code, with free(), after the host
// has read it; so everything in it is a copy of its own, which filter_string_dup makes.

#include <stdlib.h>
#include <string.h>

#include "filter.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static const char *const EVENTS[] = {"CHANNEL_ANSWER", "CHANNEL_HANGUP_COMPLETE"};
static const char *const HEADERS[] = {"Caller-Caller-ID-Number", "Caller-Destination-Number"};
// Calls to numbers that begin so are tests.
static const char TEST_PREFIX[] = "999";

// A failure is never a verdict: without memory the call traps, and the host treats it as `on_error` says.
static void *allocate(size_t bytes) {
  void *memory = malloc(bytes);
  if (memory == NULL) __builtin_trap();
  return memory;
}

static filter_list_string_t strings(const char *const *texts, size_t length) {
  filter_list_string_t list = {allocate(length * sizeof(filter_string_t)), length};
  for (size_t i = 0; i < length; i++) filter_string_dup(&list.ptr[i], texts[i]);
  return list;
}

// True is success, with the manifest; false is a refusal, with why.
bool exports_jackfield_filter_handler_configure(filter_string_t *settings, filter_list_u8_t *saved,
                                                exports_jackfield_filter_handler_manifest_t *manifest,
                                                filter_string_t *error) {
  bool none = settings->len == 2 && memcmp(settings->ptr, "{}", 2) == 0;
  filter_string_free(settings);
  if (saved != NULL) filter_list_u8_free(saved);
  if (!none) {
    filter_string_dup(error, "this filter has no settings: leave its file empty, or out");
    return false;
  }
  filter_string_dup(&manifest->name, "screen");
  filter_string_dup(&manifest->version, "0.1.0");
  manifest->events = strings(EVENTS, LENGTH(EVENTS));
  manifest->headers = strings(HEADERS, LENGTH(HEADERS));
  manifest->tick_interval = 0;
  return true;
}

// `CALLER -> NUMBER`, as a string of its own.
static filter_string_t call_text(const filter_string_t *caller, const filter_string_t *number) {
  static const char ARROW[] = " -> ";
  const size_t arrow = sizeof ARROW - 1;
  filter_string_t text = {allocate(caller->len + arrow + number->len), caller->len + arrow + number->len};
  memcpy(text.ptr, caller->ptr, caller->len);
  memcpy(text.ptr + caller->len, ARROW, arrow);
  memcpy(text.ptr + caller->len + arrow, number->ptr, number->len);
  return text;
}

void exports_jackfield_filter_handler_handle(uint64_t now, filter_list_option_string_t *headers,
                                             exports_jackfield_filter_handler_decision_t *decision) {
  (void)now;
  memset(decision, 0, sizeof *decision);
  decision->verdict.tag = JACKFIELD_FILTER_TYPES_VERDICT_PASS;
  const filter_option_string_t *caller = &headers->ptr[0], *number = &headers->ptr[1];
  const size_t prefix = sizeof TEST_PREFIX - 1;
  if (number->is_some && number->val.len >= prefix && memcmp(number->val.ptr, TEST_PREFIX, prefix) == 0) {
    decision->verdict.tag = JACKFIELD_FILTER_TYPES_VERDICT_DROP;
    filter_string_dup(&decision->verdict.val.drop, "test call");
  } else if (caller->is_some && number->is_some) {
    jackfield_filter_types_edit_t *edit = allocate(sizeof *edit);
    edit->tag = JACKFIELD_FILTER_TYPES_EDIT_SET;
    filter_string_dup(&edit->val.set.name, "X-Call");
    edit->val.set.value = call_text(&caller->val, &number->val);
    decision->edits.ptr = edit;
    decision->edits.len = 1;
  }
  filter_list_option_string_free(headers);
}

void exports_jackfield_filter_handler_tick(uint64_t now, exports_jackfield_filter_handler_list_derived_t *derived) {
  (void)now;
  memset(derived, 0, sizeof *derived);
}

void exports_jackfield_filter_handler_save(filter_list_u8_t *state) {
  memset(state, 0, sizeof *state);
}
