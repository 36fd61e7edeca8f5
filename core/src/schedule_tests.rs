use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron(expression: &str, zone: &str) -> Schedule {
    Schedule::cron(expression, zone).unwrap()
}

fn ticks(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
    schedule.upcoming(at(after), count).iter().map(|tick| tick.format("%FT%TZ").to_string()).collect()
}

#[test]
fn a_fixed_time_in_the_gap_runs_after_it_and_in_the_overlap_once() {
    let nightly = cron("30 2 * * *", "Europe/Berlin");
    // 02:30 does not exist on 29 March 2026, when clocks go from 02:00 to 03:00 (01:00 UTC).
    assert_eq!(
        ticks(&nightly, "2026-03-27T12:00:00Z", 3),
        ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    );
    // It comes twice on 25 October 2026: at 00:30 and 01:30 UTC.
    assert_eq!(ticks(&nightly, "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
}

#[test]
fn other_expressions_skip_the_gap_and_run_through_the_overlap() {
    let half_hourly = cron("*/30 * * * *", "America/New_York");
    // 8 March 2026: from 02:00 to 03:00, at 07:00 UTC.
    assert_eq!(
        ticks(&half_hourly, "2026-03-08T06:29:59Z", 4),
        ["2026-03-08T06:30:00Z", "2026-03-08T07:00:00Z", "2026-03-08T07:30:00Z", "2026-03-08T08:00:00Z"]
    );
    let twice_a_day = cron("0 2,14 * * *", "America/New_York");
    assert_eq!(
        ticks(&twice_a_day, "2026-03-07T20:00:00Z", 2),
        ["2026-03-08T18:00:00Z", "2026-03-09T06:00:00Z"]
    );
    // 1 November 2026: 01:00 to 02:00 comes twice, at 05:00 and at 06:00 UTC.
    let half_past = cron("30 1,13 * * *", "America/New_York");
    assert_eq!(
        ticks(&half_past, "2026-11-01T00:00:00Z", 3),
        ["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-01T18:30:00Z"]
    );
}

#[test]
fn seconds_and_intervals() {
    assert_eq!(
        ticks(&cron("*/20 * * * * *", "UTC"), "2026-01-01T00:00:05Z", 2),
        ["2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z"]
    );
    let every = Schedule::every(Duration::from_secs(30)).unwrap();
    assert_eq!(ticks(&every, "2026-01-01T00:00:30Z", 2), ["2026-01-01T00:01:00Z", "2026-01-01T00:01:30Z"]);
    for interval in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
        assert_eq!(Schedule::every(interval), Err(InvalidSchedule::Interval));
    }
}

#[test]
fn what_can_never_work_is_refused_at_once() {
    let begun = std::time::Instant::now();
    for expression in ["0 0 30 2 *", "0 0 0 31 4,6 *", "0 0 0 1 1 * 1969"] {
        assert_eq!(Schedule::cron(expression, "Europe/Berlin"), Err(InvalidSchedule::Never), "{expression}");
    }
    for expression in ["", "* * *", "61 * * * *", "soon", "* * * * * * * *", &"1,".repeat(200)] {
        let refused = Schedule::cron(expression, "UTC");
        assert!(matches!(refused, Err(InvalidSchedule::Cron(_))), "{expression}: {refused:?}");
    }
    for zone in ["", "Mars/Olympus", "CET+1", "europe/berlin"] {
        assert_eq!(Schedule::cron("0 0 * * *", zone), Err(InvalidSchedule::Zone), "{zone}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn missed_ticks_by_policy() {
    let hourly = cron("0 * * * *", "UTC");
    let next = at("2026-01-01T01:00:00Z");
    let due = |missed, now: &str| hourly.clone().missed(missed).due(next, at(now));
    let texts = |due: Due| due.ticks.iter().map(|t| t.format("%H:%M").to_string()).collect::<Vec<_>>();
    for missed in [Missed::Skip, Missed::Once, Missed::All] {
        assert_eq!(texts(due(missed, "2026-01-01T00:59:59Z")), [""; 0]);
        assert_eq!(texts(due(missed, "2026-01-01T01:00:29Z")), ["01:00"], "late, but not missed");
    }
    let between = "2026-01-01T05:10:00Z";
    assert_eq!(texts(due(Missed::Skip, between)), [""; 0]);
    assert_eq!(texts(due(Missed::Once, between)), ["05:00"]);
    assert_eq!(texts(due(Missed::All, between)), ["01:00", "02:00", "03:00", "04:00", "05:00"]);
    let on_the_hour = "2026-01-01T05:00:01Z";
    assert_eq!(texts(due(Missed::Skip, on_the_hour)), ["05:00"]);
    assert_eq!(texts(due(Missed::Once, on_the_hour)), ["05:00"], "it stands for those missed");
    assert_eq!(texts(due(Missed::All, on_the_hour)), ["01:00", "02:00", "03:00", "04:00", "05:00"]);
    let much_later = due(Missed::All, "2027-01-01T00:00:00Z");
    assert_eq!(much_later.ticks.len(), MOST_MISSED + 1, "the newest hundred, and the one in time");
    assert_eq!(much_later.next, Some(at("2027-01-01T01:00:00Z")));
}

#[test]
fn a_kept_schedule_is_the_same() {
    let named = cron("0 0 12 * * MON-FRI", "Asia/Tokyo").named("lunch").unwrap();
    let schedule = named.missed(Missed::All).jitter(Duration::from_millis(1500));
    for schedule in [schedule, Schedule::every(Duration::from_millis(1500)).unwrap()] {
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule, "{text}");
    }
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let zone = prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]);
    let field = |range: std::ops::Range<u32>, step: u32| {
        prop_oneof![
            3 => range.clone().prop_map(|n| n.to_string()),
            1 => Just("*".to_owned()),
            1 => (1..step).prop_map(|n| format!("*/{n}")),
            1 => (range.clone(), range).prop_map(|(a, b)| format!("{a},{b}")),
        ]
    };
    let day =
        prop_oneof![3 => Just("* * *"), 1 => Just("* * SUN"), 1 => Just("29 * *"), 1 => Just("* 3,10 *")];
    let fields = (field(0..60, 30), field(0..60, 30), field(0..5, 6), day);
    let crons = (fields, zone).prop_map(|((second, minute, hour, day), zone)| {
        cron(&format!("{second} {minute} {hour} {day}"), zone)
    });
    prop_oneof![4 => crons, 1 => (1u64..100_000).prop_map(|s| Schedule::every(Duration::from_secs(s)).unwrap())]
}

/// Around the changes of clocks of 2026, mostly.
fn instants() -> impl Strategy<Value = Timestamp> {
    let changes = [
        "2026-03-29T01:00:00Z",
        "2026-10-25T01:00:00Z",
        "2026-03-08T07:00:00Z",
        "2026-11-01T06:00:00Z",
        "2026-04-04T15:00:00Z",
        "2026-10-03T15:30:00Z",
        "2026-07-01T00:00:00Z",
    ];
    (prop::sample::select(changes.to_vec()), -10_800_000_000i64..10_800_000_000)
        .prop_map(|(change, micros)| at(change) + TimeDelta::microseconds(micros))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn ticks_grow_and_are_found_from_both_sides(schedule in schedules(), from in instants()) {
        let found = schedule.upcoming(from, 20);
        prop_assert!(found.first().is_none_or(|first| *first > from));
        for pair in found.windows(2) {
            prop_assert!(pair[0] < pair[1], "{schedule:?}: {pair:?}");
            let between = pair[1] - TimeDelta::microseconds(1);
            prop_assert_eq!(schedule.last_before(between), Some(pair[0]), "{:?} before {}", schedule, pair[1]);
            prop_assert_eq!(schedule.last_before(pair[0]), Some(pair[0]));
            prop_assert_eq!(schedule.next_after(pair[0] + (pair[1] - pair[0]) / 2), Some(pair[1]));
        }
    }

    /// However irregular the looks are: nothing twice, nothing early, nothing out of order, and with `All` nothing left out.
    #[test]
    fn each_tick_is_dealt_with_once(
        schedule in schedules(), from in instants(), all in any::<bool>(),
        steps in prop::collection::vec(1u64..400_000_000, 1..20),
    ) {
        let schedule = schedule.missed(if all { Missed::All } else { Missed::Once });
        let (mut now, mut next, mut fired) = (from, schedule.next_after(from), Vec::new());
        for step in steps {
            now += TimeDelta::microseconds(i64::try_from(step).unwrap());
            let Some(tick) = next else { break };
            let due = schedule.due(tick, now);
            prop_assert!(due.ticks.iter().all(|tick| *tick <= now));
            prop_assert!(due.next.is_none_or(|next| next > now));
            fired.extend(due.ticks);
            next = due.next;
        }
        prop_assert!(fired.windows(2).all(|pair| pair[0] < pair[1]), "{fired:?}");
        let expected: Vec<_> = std::iter::successors(schedule.next_after(from), |tick| schedule.next_after(*tick))
            .take_while(|tick| *tick <= now).take(5000).collect();
        prop_assert!(fired.iter().all(|tick| expected.contains(tick)));
        // No look is later than 400 s, so only a tick every three seconds could exceed what is made up for.
        if all && expected.windows(2).all(|pair| pair[1] - pair[0] > TimeDelta::seconds(4)) {
            prop_assert_eq!(fired, expected);
        }
    }

    #[test]
    fn jitter_stays_within_bounds_and_is_the_same_for_all(tick in instants(), millis in 0u64..100_000_000) {
        let schedule = Schedule::every(Duration::from_secs(60)).unwrap().jitter(Duration::from_millis(millis));
        let (name, other) = ("a".parse().unwrap(), "b".parse().unwrap());
        let start = schedule.start_of(&name, tick);
        prop_assert!(start >= tick && start - tick <= TimeDelta::from_std(schedule.longest_jitter()).unwrap());
        prop_assert_eq!(start, schedule.clone().start_of(&name, tick));
        if millis > 10_000_000 {
            prop_assert_ne!(start, schedule.start_of(&other, tick));
        }
    }
}

#[test]
fn jitter_uses_its_whole_range() {
    let schedule = Schedule::every(Duration::from_secs(1)).unwrap().jitter(Duration::from_secs(100));
    let name = "spread".parse().unwrap();
    let from = at("2026-01-01T00:00:00Z");
    let starts: Vec<i64> = schedule
        .upcoming(from, 200)
        .iter()
        .map(|t| (schedule.start_of(&name, *t) - *t).num_seconds())
        .collect();
    for quarter in 0..4 {
        let within = starts.iter().filter(|s| (quarter * 25..quarter * 25 + 25).contains(*s)).count();
        assert!((20..=80).contains(&within), "{within} of 200 in quarter {quarter}");
    }
}
