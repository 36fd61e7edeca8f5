use std::time::Duration;

use windlass_core::{
    JobId, LogCursor, LogLevel, LogRecord, NewLine, NewProgress, Note, Outcome, Progress, State, Store,
};

use super::support::{Case, HOUR, Running, Timed, raw, retry, succeeded};

fn note(job: Running) -> Note {
    Note { id: job.id, fence: job.fence, attempt: job.fence, progress: None, lines: Vec::new() }
}

fn progress(job: Running, value: f64, message: &str) -> Note {
    let progress = NewProgress { value, message: message.into(), age: Duration::ZERO };
    Note { progress: Some(progress), ..note(job) }
}

fn line(number: u32, message: &str) -> NewLine {
    NewLine { number, level: LogLevel::Info, message: message.into(), fields: None, age: Duration::ZERO }
}

async fn texts(store: &dyn Store, id: JobId) -> Vec<String> {
    let lines = store.notes().logs(id, None, 100).await.unwrap();
    lines.into_iter().map(|line| line.message).collect()
}

/// The newest progress is shown, with its time by the store's clock, and stays when the job is over.
pub async fn progress_is_shown_and_stays(timed: Timed) {
    let Timed { case, clock } = timed;
    let jobs = case.running(2).await;
    assert_eq!(case.get(jobs[0].id).await.progress, None);
    let notes = case.store.notes();
    notes.note(&[progress(jobs[0], 0.25, "read\0ing"), progress(jobs[1], 1.0, "")]).await.unwrap();
    clock.advance(HOUR);
    let mut second = progress(jobs[0], 0.5, "writing");
    if let Some(progress) = &mut second.progress {
        progress.age = Duration::from_secs(60);
    }
    let before = case.get(jobs[0].id).await.progress.unwrap();
    assert_eq!(before, Progress { value: 0.25, message: "read\u{fffd}ing".into(), at: clock.now() - HOUR });
    notes.note(&[second]).await.unwrap();
    let shown = Progress { value: 0.5, message: "writing".into(), at: clock.now() - Duration::from_secs(60) };
    assert_eq!(case.get(jobs[0].id).await.progress, Some(shown.clone()));
    assert!(case.finish(jobs[0], succeeded()).await);
    assert_eq!(case.get(jobs[0].id).await.progress, Some(shown));
    assert_eq!(case.get(jobs[1].id).await.progress.unwrap().value, 1.0);
    notes.note(&[]).await.unwrap();
}

/// Log lines are kept once each, in order, and read in pages of any size.
pub async fn log_lines_are_read_in_order(timed: Timed) {
    let Timed { case, clock } = timed;
    let jobs = case.running(2).await;
    let rich = NewLine {
        number: 1,
        level: LogLevel::Error,
        message: "two\n\u{1f980}\0".into(),
        fields: Some(raw("{\"n\": 1.50}")),
        age: Duration::from_secs(5),
    };
    let first = Note { lines: vec![line(0, "one"), rich], ..note(jobs[0]) };
    let notes = case.store.notes();
    let other = Note { lines: vec![line(0, "other")], ..note(jobs[1]) };
    notes.note(&[other, first.clone()]).await.unwrap();
    // The same again, as after a lost answer, with one more.
    let again = Note { lines: [first.lines.clone(), vec![line(2, "three")]].concat(), ..note(jobs[0]) };
    notes.note(&[again]).await.unwrap();
    assert!(case.finish(jobs[0], retry()).await);
    case.store.promote_due(10).await.unwrap();
    let second = case.run_jobs(case.worker().await, &[jobs[0].id]).await[0];
    notes.note(&[Note { lines: vec![line(0, "four")], ..note(second) }]).await.unwrap();

    let reader = case.other.notes();
    let all = reader.logs(jobs[0].id, None, 100).await.unwrap();
    let shown: Vec<_> = all.iter().map(|line| (line.attempt, line.level, line.message.as_str())).collect();
    assert_eq!(
        shown,
        [
            (1, LogLevel::Info, "one"),
            (1, LogLevel::Error, "two\n\u{1f980}\u{fffd}"),
            (1, LogLevel::Info, "three"),
            (2, LogLevel::Info, "four"),
        ]
    );
    assert_eq!(all[1].fields.as_ref().map(|fields| fields.get()), Some("{\"n\": 1.50}"));
    assert_eq!((all[0].at, all[1].at), (clock.now(), clock.now() - Duration::from_secs(5)));
    for limit in 1..5 {
        let (mut paged, mut after): (Vec<LogRecord>, Option<LogCursor>) = (Vec::new(), None);
        loop {
            let page = reader.logs(jobs[0].id, after, limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.cursor);
            paged.extend(page);
        }
        assert_eq!(format!("{paged:?}"), format!("{all:?}"), "in pages of {limit}");
    }
    assert_eq!(texts(&*case.other, jobs[1].id).await, ["other"]);
    assert!(reader.logs(JobId::new(), None, 10).await.unwrap().is_empty());
}

/// What an older attempt says late is dropped; the last words of the newest count, also when it is over.
pub async fn late_notes_of_older_attempts_are_dropped(case: Case) {
    let first = case.running(1).await[0];
    assert!(case.finish(first, Outcome::Released).await);
    let last_words = |job, text: &str| Note { lines: vec![line(9, text)], ..progress(job, 0.1, text) };
    let notes = case.store.notes();
    notes.note(&[last_words(first, "released")]).await.unwrap();
    let second = case.run_jobs(case.worker().await, &[first.id]).await[0];
    let stranger = Running { id: JobId::new(), ..second };
    notes.note(&[last_words(first, "late"), last_words(stranger, "nobody")]).await.unwrap();
    assert_eq!(case.get(first.id).await.progress.unwrap().message, "released");
    notes.note(&[last_words(second, "second")]).await.unwrap();
    notes.note(&[last_words(first, "later still")]).await.unwrap();
    assert!(case.finish(second, succeeded()).await);
    assert_eq!(case.get(first.id).await.progress.unwrap().message, "second");
    assert_eq!(texts(&*case.store, first.id).await, ["released", "second"]);
    assert!(texts(&*case.store, stranger.id).await.is_empty());
}

/// A checkpoint is found by the next attempt, and is written by none but the attempt that runs.
pub async fn checkpoints_are_fenced(case: Case) {
    let first = case.running_for(Duration::ZERO, 1).await[0];
    let (here, there) = (case.store.notes(), case.other.notes());
    assert!(there.last_checkpoint(first.id).await.unwrap().is_none());
    for value in ["{\"page\": 1}", "{\"page\":  2}"] {
        assert!(here.checkpoint(first.id, first.fence, &raw(value)).await.unwrap());
    }
    let found = async || there.last_checkpoint(first.id).await.unwrap().map(|value| value.get().to_owned());
    assert_eq!(found().await.as_deref(), Some("{\"page\":  2}"), "byte for byte");
    for (id, fence) in [(first.id, 0), (first.id, 2), (JobId::new(), 1)] {
        assert!(!here.checkpoint(id, fence, &raw("0")).await.unwrap());
    }
    case.store.rescue(1000).await.unwrap();
    assert!(!here.checkpoint(first.id, first.fence, &raw("0")).await.unwrap(), "its lease is lost");
    let second = case.run_jobs(case.worker().await, &[first.id]).await[0];
    assert!(!here.checkpoint(first.id, first.fence, &raw("0")).await.unwrap(), "another runs");
    assert_eq!(found().await.as_deref(), Some("{\"page\":  2}"));
    assert!(here.checkpoint(second.id, second.fence, &raw("3")).await.unwrap());
    assert!(case.finish(second, succeeded()).await);
    assert!(!here.checkpoint(second.id, second.fence, &raw("4")).await.unwrap(), "it is over");
    assert_eq!(found().await.as_deref(), Some("3"));
}

/// While rescues race checkpoints: what the next attempt finds at its claim is what stays.
pub async fn checkpoints_race_the_rescue(case: Case) {
    for _ in 0..20 {
        let job = case.running_for(Duration::ZERO, 1).await[0];
        let value = raw("1");
        let (kept, rescued) =
            futures::join!(case.store.notes().checkpoint(job.id, job.fence, &value), case.other.rescue(1000));
        rescued.unwrap();
        case.store.rescue(1000).await.unwrap();
        assert_eq!(case.state(job.id).await, State::Queued);
        let found = case.other.notes().last_checkpoint(job.id).await.unwrap();
        assert_eq!(found.is_some(), kept.unwrap());
    }
}

/// With a job, everything it has said goes.
pub async fn notes_go_with_their_job(case: Case) {
    let job = case.running(1).await[0];
    let notes = case.store.notes();
    notes.note(&[Note { lines: vec![line(0, "x")], ..progress(job, 0.5, "") }]).await.unwrap();
    assert!(notes.checkpoint(job.id, job.fence, &raw("1")).await.unwrap());
    assert!(case.finish(job, succeeded()).await);
    assert_eq!(case.store.operations().delete(&[job.id], &State::TERMINAL).await.unwrap(), [job.id]);
    notes.note(&[Note { lines: vec![line(1, "late")], ..progress(job, 0.6, "late") }]).await.unwrap();
    case.insert(&[windlass_core::NewJob { id: job.id, ..super::support::job() }]).await;
    assert_eq!(case.get(job.id).await.progress, None);
    assert!(texts(&*case.store, job.id).await.is_empty());
    assert!(notes.last_checkpoint(job.id).await.unwrap().is_none());
}
