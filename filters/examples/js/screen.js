// The filter `screen` in JavaScript: drops calls to test numbers, and tells of every other call who calls whom.
//
// It does what filters/examples/rust does, in the same order. The names are those of wit/filter.wit as JavaScript spells them:
// `tick-interval` is `tickInterval`, a variant is an object with `tag` and `val`, an absent `option` is null, a u64 is a number (exact up to
// 2^53, which microseconds reach in the year 2255), and what `configure` throws is its error.

const TEST_PREFIX = "999";

export const handler = {
  configure(settings, saved) {
    if (settings !== "{}") {
      throw "this filter has no settings: leave its file empty, or out";
    }
    return {
      name: "screen",
      version: "0.1.0",
      events: ["CHANNEL_ANSWER", "CHANNEL_HANGUP_COMPLETE"],
      headers: ["Caller-Caller-ID-Number", "Caller-Destination-Number"],
      tickInterval: 0,
    };
  },

  handle(now, [caller, number]) {
    if (number?.startsWith(TEST_PREFIX)) {
      return { verdict: { tag: "drop", val: "test call" }, edits: [], emit: [] };
    }
    const edits = [];
    if (caller !== null && number !== null) {
      edits.push({ tag: "set", val: { name: "X-Call", value: `${caller} -> ${number}` } });
    }
    return { verdict: { tag: "pass" }, edits, emit: [] };
  },

  tick(now) {
    return [];
  },

  save() {
    return new Uint8Array();
  },
};
