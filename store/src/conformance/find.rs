use std::collections::BTreeMap;

use uuid::Uuid;
use windlass_core::{JobFilter, JobId, NewJob, Outcome, State, Store, Timestamp};

use super::support::{Case, HOUR, dead, ids, job, jobs, of_tenant, raw, set, succeeded};

/// Everything a filter finds, page by page, newest first.
async fn all(store: &dyn Store, filter: &JobFilter, limit: usize) -> Vec<JobId> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = store.operations().find(filter, before, limit).await.unwrap();
        assert!(page.ids.len() <= limit);
        if let (Some(before), Some(next)) = (before, page.next) {
            assert!(next < before, "it goes on");
        }
        found.extend(page.ids);
        match page.next {
            Some(next) => before = Some(next),
            None => return found,
        }
    }
}

/// An id made at this time, in milliseconds.
fn made_at(millis: u64, low: u64) -> JobId {
    Uuid::from_u64_pair(millis << 16 | 0x7000, 1 << 63 | low).into()
}

fn newest_first(mut ids: Vec<JobId>) -> Vec<JobId> {
    ids.sort_unstable_by(|one, other| other.cmp(one));
    ids
}

/// A search finds what a look at each job finds, for every filter and in pages of any size.
pub async fn jobs_are_found_by_filter(case: Case) {
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let later = Timestamp::from_timestamp_millis(4_000_000_000_000).unwrap();
    let new = vec![
        NewJob { queue: "mail".parse().unwrap(), ..job() },
        NewJob { kind: "other.kind".parse().unwrap(), ..job() },
        NewJob { labels: labels(&[("team", "red"), ("a\"b", "c\\d")]), ..job() },
        NewJob { labels: labels(&[("team", "blue"), ("1", "1")]), ..job() },
        NewJob { run_at: Some(later), ..job() },
        of_tenant("acme", job()),
        of_tenant("acme", job()),
        job(),
        job(),
        job(),
        job(),
    ];
    case.insert(&new).await;
    let made = ids(&new);
    let worker = case.worker().await;
    let running = case.run_jobs(worker, &made[5..10]).await;
    let retry = Outcome::Retry { after: HOUR, error: "e".into() };
    for (job, outcome) in running.iter().zip([succeeded(), dead(), Outcome::Cancelled, retry]) {
        assert!(case.finish(*job, outcome).await);
    }
    let any = JobFilter::default();
    let mut filters = vec![
        any.clone(),
        JobFilter { queue: Some("mail".parse().unwrap()), ..any.clone() },
        JobFilter { kind: Some("other.kind".parse().unwrap()), ..any.clone() },
        JobFilter { kind: Some("no.kind".parse().unwrap()), ..any.clone() },
        JobFilter { labels: labels(&[("team", "red")]), ..any.clone() },
        JobFilter { labels: labels(&[("team", "red"), ("a\"b", "c\\d")]), ..any.clone() },
        JobFilter { labels: labels(&[("team", "red"), ("1", "1")]), ..any.clone() },
        JobFilter { labels: labels(&[("team", "re")]), ..any.clone() },
        JobFilter {
            queue: Some("default".parse().unwrap()),
            states: vec![State::Queued],
            labels: labels(&[("1", "1")]),
            ..any.clone()
        },
        JobFilter { tenant: Some("acme".parse().unwrap()), ..any.clone() },
        JobFilter { tenant: Some("nobody".parse().unwrap()), ..any.clone() },
        JobFilter {
            tenant: Some("acme".parse().unwrap()),
            states: vec![State::Running, State::Dead],
            ..any.clone()
        },
        JobFilter { states: vec![State::Running, State::Dead, State::Retrying], ..any.clone() },
        JobFilter { states: State::TERMINAL.to_vec(), ..any.clone() },
    ];
    filters.extend(State::ALL.map(|state| JobFilter { states: vec![state], ..any.clone() }));
    let records = case.store.get(&made).await.unwrap();
    for filter in filters {
        let fit = newest_first(records.iter().filter(|job| filter.fits(job)).map(|job| job.id).collect());
        for limit in [1, 2, 5, 11, 1000] {
            assert_eq!(all(&*case.other, &filter, limit).await, fit, "{filter:?} by {limit}");
        }
    }
}

/// The times of a filter are those in the ids, and what comes in meanwhile does not move the pages.
pub async fn lists_keep_their_order(case: Case) {
    const DAY: u64 = 24 * 3600 * 1000;
    let now = u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap();
    let mut new = jobs(7);
    // Of several days, of long ago and of the far future: whatever a clock may have said.
    let times = [0, now - 40 * DAY, now - DAY, now - 1, now, now + DAY, (1 << 48) - 1];
    for (job, time) in new.iter_mut().zip(times) {
        job.id = made_at(time, 5);
    }
    // Not in their order.
    new.swap(1, 5);
    new.swap(0, 3);
    case.insert(&new).await;
    let made = newest_first(ids(&new));
    let any = JobFilter::default();
    let time = |millis: u64| Timestamp::from_timestamp_millis(millis.try_into().unwrap());
    let cases = [
        (any.clone(), &made[..]),
        (JobFilter { created_after: time(now), ..any.clone() }, &made[..3]),
        (JobFilter { created_before: time(now), ..any.clone() }, &made[3..]),
        (JobFilter { created_after: time(now - DAY), created_before: time(now), ..any.clone() }, &made[3..5]),
        (JobFilter { created_after: time(now), created_before: time(now), ..any.clone() }, &[]),
        (JobFilter { created_after: time(now + 1), created_before: time(now), ..any.clone() }, &[]),
    ];
    for (filter, expected) in cases {
        for limit in [1, 3, 10] {
            assert_eq!(all(&*case.store, &filter, limit).await, expected, "{filter:?} by {limit}");
        }
    }

    let first = case.store.operations().find(&any, None, 3).await.unwrap();
    assert_eq!((&first.ids[..], first.next), (&made[..3], Some(made[2])));
    let newer = NewJob { id: made_at(now + 2 * DAY, 0), ..job() };
    case.insert(&[newer]).await;
    assert_eq!(case.store.cancel(made[2]).await.unwrap(), windlass_core::CancelOutcome::Cancelled);
    assert_eq!(case.store.operations().delete(&[made[2]], &State::TERMINAL).await.unwrap(), [made[2]]);
    let second = case.store.operations().find(&any, first.next, 3).await.unwrap();
    assert_eq!(second.ids, made[3..6], "neither what has come nor what has gone moves the page");
}

/// However few jobs fit, one call looks at a bounded number of them.
pub async fn a_search_is_bounded(case: Case) {
    let rare = NewJob { id: made_at(5, 0), kind: "rare.kind".parse().unwrap(), ..job() };
    case.insert(std::slice::from_ref(&rare)).await;
    for _ in 0..11 {
        case.queued(1000).await;
    }
    let filter = JobFilter { kind: Some(rare.kind.clone()), ..JobFilter::default() };
    let first = case.store.operations().find(&filter, None, 10).await.unwrap();
    assert!(first.ids.is_empty() && first.next.is_some(), "{first:?}");
    let second = case.store.operations().find(&filter, first.next, 10).await.unwrap();
    assert_eq!((second.ids, second.next), (vec![rare.id], None));

    // What has a side table is found at once.
    let running = case.run_jobs(case.worker().await, &[rare.id]).await[0];
    for (state, outcome) in
        [(State::Running, Outcome::Snoozed { after: HOUR }), (State::Scheduled, Outcome::Released)]
    {
        let filter = JobFilter { states: vec![state], ..filter.clone() };
        let found = case.store.operations().find(&filter, None, 10).await.unwrap();
        assert_eq!((found.ids, found.next), (vec![rare.id], None), "{state}");
        case.finish(running, outcome).await;
    }
    let everything = all(&*case.store, &JobFilter::default(), 1000).await;
    assert_eq!((everything.len(), set(everything).len()), (11_001, 11_001), "each once");
}

/// Large results make pages short, so that a page can be read at once.
pub async fn large_results_make_short_pages(case: Case) {
    let large = raw(&format!("\"{}\"", "x".repeat(3 * 1024 * 1024)));
    for job in case.running(5).await {
        assert!(case.finish(job, Outcome::Succeeded { result: Some(large.clone()), keep: None }).await);
    }
    let any = JobFilter::default();
    let page = case.store.operations().find(&any, None, 100).await.unwrap();
    assert_eq!(page.ids.len(), 3);
    assert_eq!(set(all(&*case.store, &any, 100).await).len(), 5);
}
