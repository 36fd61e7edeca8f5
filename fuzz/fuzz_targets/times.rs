#![no_main]
//! Durations, instants and cron expressions.

use libfuzzer_sys::fuzz_target;
use windlass_core::Schedule;

fuzz_target!(|text: &str| {
    windlass_api::fuzzing::times(text);
    // The zone comes first, where there is one.
    let (zone, expression) = text.split_once('|').unwrap_or(("UTC", text));
    let Ok(schedule) = Schedule::cron(expression, zone) else { return };
    for from in [0, 1_774_742_400, 4_000_000_000] {
        let from = chrono::DateTime::from_timestamp(from, 0).expect("within the calendar");
        let mut last = from;
        for tick in schedule.upcoming(from, 3) {
            assert!(tick > last, "{expression} in {zone}: {tick} comes after {last}");
            last = tick;
        }
    }
});
